"""A stream whose tastes change at one event, and how long a recommender takes to come back.

From the change on, every item stands for another one: the same events under permuted ids, so
that all that was learned of items is wrong, and the stream is as hard as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.config import HOUR, Config
from headwater.evaluate import Outcomes, ndcg_gains
from headwater.ingest import Interactions, read_interactions
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner
from headwater.types import Batch

BATCH = 100
RECOVERED = 0.95
"""Share of the NDCG@10 of before the change that has to be reached again."""
WINDOW = 1_000
"""Predictions that such a figure is a mean of."""

Gains = NDArray[np.float64]


def changed(path: Path, at: int, length: int, seed: int = 0) -> Interactions:
    """The first ``length`` events, the items permuted from event ``at`` on."""
    stream = read_interactions(path, limit=length)
    permuted = np.random.default_rng(seed).permutation(len(stream.item_ids))
    codes = stream.item_codes.copy()
    codes[at:] = permuted[codes[at:]]
    return replace(stream, item_codes=codes)


def ours(stream: Interactions, at: int, react: Callable[[Learner], None] = lambda _: None) -> Gains:
    """NDCG@10 of each event, NaN where it was no target; ``react`` is called at the change."""
    log = MemoryEventsLog()
    updates = MemoryUpdatesLog()
    learner = Learner(Config(), log, updates, None)
    gains = np.full(len(stream), np.nan)

    def observed(batch: Batch, outcomes: Outcomes) -> None:
        gains[batch.offsets[outcomes.index] - 1] = ndcg_gains(outcomes.ranks[:, 0], 10)

    learner.on_outcomes = observed
    for start in range(0, len(stream), BATCH):
        if start == at:
            react(learner)
        log.append(stream.events(start, min(start + BATCH, len(stream))), time.time())
        while learner.step():
            learner.publish()
            updates.drop(learner.sequence)
    return gains


def hourly(stream: Interactions, knn: bool) -> Gains:
    """NDCG@10 of a model that is fitted anew to all that was before, at every full hour of stream
    time: counts of items, or item kNN by cosine (Sarwar et al., WWW 2001) with counts behind it.

    Histories are exact, and what a user had isn't recommended to him again. What a refit
    would come to is kept up by adding each hour's events: the same numbers, without the cost.
    """
    users, items = stream.user_codes, stream.item_codes
    hours = (stream.timestamps // HOUR).astype(np.int64)
    n_items = len(stream.item_ids)
    counts = np.zeros(n_items)
    together = np.zeros((n_items, n_items), np.float32) if knn else None
    fitted: dict[int, list[int]] = {}
    histories: dict[int, list[int]] = {}
    gains = np.zeros(len(stream))
    behind = 0
    for k in range(len(stream)):
        while behind < k and hours[behind] < hours[k]:
            user, item = int(users[behind]), int(items[behind])
            counts[item] += 1
            had = fitted.setdefault(user, [])
            if together is not None and item not in had:
                together[had, item] += 1
                together[item, had] += 1
            had.append(item)
            behind += 1
        history = histories.setdefault(int(users[k]), [])
        scores = counts.copy()
        if together is not None and history:
            roots = np.sqrt(np.maximum(counts, 1.0))
            likeness = (together[history] / roots[history][:, None]).sum(axis=0) / roots
            # Below what any likeness says, and in the order of counts.
            scores = np.where(likeness > 0, 1.0 + likeness, counts / (1.0 + counts.max()))
        scores[history] = 0.0
        own = scores[items[k]]
        if own > 0:
            before = int((scores > own).sum()) + (int((scores == own).sum()) - 1) / 2.0
            gains[k] = 1.0 / np.log2(before + 2.0) if before < 10 else 0.0
        history.append(int(items[k]))
    return gains


def recovery(gains: Gains, at: int) -> dict[str, Any]:
    """The figure before the change, after it, and when it was back.

    ``recovered_after`` counts events from the change to the end of the first ``WINDOW``
    predictions whose mean is ``RECOVERED`` of the one before; ``None`` where none is.
    """
    after = gains[at:][~np.isnan(gains[at:])]
    before = float(np.nanmean(gains[at - 2 * WINDOW : at]))
    sums = np.cumsum(np.concatenate([[0.0], after]))
    means = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
    reached = np.flatnonzero(means >= RECOVERED * before)
    return {
        "before": before,
        "first": float(after[:WINDOW].mean()),
        "after": float(after.mean()),
        "last": float(after[-WINDOW:].mean()),
        "recovered_after": int(reached[0]) + WINDOW if len(reached) else None,
    }
