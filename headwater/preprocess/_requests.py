"""What is known of requests: the histories of their users, their sessions, what they exclude."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headwater.preprocess._histories import Histories
from headwater.preprocess._vocabulary import Vocabulary
from headwater.types import Contexts, Request


def contexts_of(
    requests: Sequence[Request],
    now: float,
    users: Vocabulary,
    items: Vocabulary,
    histories: Histories,
    viewed: int,
    *,
    consumes: bool,
) -> Contexts:
    """The contexts of requests; reads only, so an unknown user stays unknown.

    Args:
        requests: B of them.
        now: seconds since 1970.
        users, items: their rows.
        viewed: code of the type of event that the items of a session stand for.
        consumes: whether such an event uses its item up.
    """
    contexts = histories.read(users.find_rows([request.user_id for request in requests]), now)
    if not any(request.session_items or request.exclude for request in requests):
        return contexts
    excluded = [
        contexts.excluded[contexts.excluded_starts[b] : contexts.excluded_starts[b + 1]]
        for b in range(len(requests))
    ]
    for b, request in enumerate(requests):
        if request.session_items:
            rows = items.known(request.session_items)
            _append_session(contexts, b, rows, viewed, now)
            if consumes:
                excluded[b] = np.concatenate([excluded[b], np.array(rows, np.int32)])
        if request.exclude:
            rows = items.known(request.exclude)
            excluded[b] = np.concatenate([excluded[b], np.array(rows, np.int32)])
    contexts.excluded = np.concatenate([*excluded, np.zeros(0, np.int32)])
    contexts.excluded_starts = np.cumsum([0, *map(len, excluded)]).astype(np.int64)
    return contexts


def _append_session(contexts: Contexts, b: int, rows: list[int], code: int, now: float) -> None:
    contexts.history_lengths[b] += len(rows)
    contexts.session_lengths[b] += len(rows)
    rows = rows[-contexts.history_items.shape[1] :]
    if not rows:
        return
    n = len(rows)
    for array, values in (
        (contexts.history_items, rows),
        (contexts.history_types, code),
        (contexts.history_times, now),
        (contexts.history_cleaned, False),
    ):
        array[b, :-n] = array[b, n:].copy()
        array[b, -n:] = values
