"""Candidates: each expert proposes its best items, and the union of them is ranked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from headwater.model import Model, Opinion
from headwater.types import NO_ROW, Contexts, Flags, Floats, Ints, Longs


@dataclass(slots=True)
class Candidates:
    """The union of B lists, and where each expert's own list has each item.

    ``places[e][b, c]`` is the 0-based place of candidate c in expert e's list, -1 if not in it.
    """

    rows: Ints  # (B, C), NO_ROW past the end
    lists: dict[str, Ints]  # name -> (B, K)
    list_scores: dict[str, Floats]  # name -> (B, K), in the expert's own units
    places: dict[str, Ints]  # name -> (B, C)
    opinions: dict[str, Opinion]  # name -> of each expert that scores from histories
    users: Floats  # (B, D + 1) vectors of the sequence expert


def propose(model: Model, users: Floats, contexts: Contexts, withheld: Flags, k: int) -> Candidates:
    """The best k items of each expert for each context, none of them withheld or excluded.

    Args:
        users: (B, D + 1) the sequence expert's vectors of the contexts.
        withheld: (N,) rows that nobody may be shown.
    """
    lists, list_scores = {}, {}
    lists["popularity"], list_scores["popularity"] = _popular(model, contexts, withheld, k)
    opinions = {name: expert.weigh(contexts) for name, expert in model.from_history.items()}
    for name, opinion in opinions.items():
        lists[name], list_scores[name] = opinion.best(withheld, k)
    lists["sequence"], list_scores["sequence"] = model.sequence.candidates(
        users, contexts, withheld, k
    )
    stacked = np.stack(list(lists.values()))
    rows, places, longest = _unite(stacked, len(withheld))
    return Candidates(
        rows=rows[:, :longest],
        lists=lists,
        list_scores=list_scores,
        places={name: places[e][:, :longest] for e, name in enumerate(lists)},
        opinions=opinions,
        users=users,
    )


def _popular(model: Model, contexts: Contexts, withheld: Flags, k: int) -> tuple[Ints, Floats]:
    """One order of all items serves every context: each takes the first k that it may."""
    scores = model.popularity.scores()
    scores[withheld] = -1.0
    longest = int(np.diff(contexts.excluded_starts).max(initial=0))
    depth = min(k + longest, len(scores))
    top = np.arange(len(scores))
    if depth < len(scores):
        top = np.argpartition(-scores, depth - 1)[:depth]
    top = top[np.lexsort((top, -scores[top]))]
    order: Ints = top[scores[top] > 0].astype(np.int32)
    rows = np.full((len(contexts), k), NO_ROW, np.int32)
    _take(order, contexts.excluded_starts, contexts.excluded, len(scores), rows)
    return rows, np.where(rows >= 0, scores[rows], 0).astype(np.float32)


@njit(cache=True, nogil=True)
def _take(
    order: Ints,
    excluded_starts: Longs,
    excluded: Ints,
    n_items: int,
    rows: Ints,
) -> None:
    mark = np.full(n_items, -1, np.int32)
    k = rows.shape[1]
    for b in range(len(rows)):
        for e in range(excluded_starts[b], excluded_starts[b + 1]):
            if excluded[e] < n_items:
                mark[excluded[e]] = b
        filled = 0
        for item in order:
            if filled == k:
                break
            if mark[item] != b:
                rows[b, filled] = item
                filled += 1


@njit(cache=True, nogil=True)
def _unite(
    lists: Ints,
    n_items: int,
) -> tuple[Ints, Ints, int]:
    """(E, B, K) lists to their unions (B, E * K), the places (E, B, E * K), the longest union."""
    experts, batch, k = lists.shape
    rows = np.full((batch, experts * k), -1, np.int32)
    places = np.full((experts, batch, experts * k), -1, np.int32)
    column = np.full(n_items, -1, np.int32)
    longest = 1
    for b in range(batch):
        filled = 0
        for e in range(experts):
            for place in range(k):
                item = lists[e, b, place]
                if item < 0:
                    break
                if column[item] < 0:
                    column[item] = filled
                    rows[b, filled] = item
                    filled += 1
                places[e, b, column[item]] = place
        for c in range(filled):
            column[rows[b, c]] = -1
        longest = max(longest, filled)
    return rows, places, longest
