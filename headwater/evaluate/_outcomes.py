"""One micro-batch of predictions beside what then happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headwater.evaluate._metrics import history_buckets, item_age_buckets
from headwater.types import NO_ROW, Batch, Bytes, Doubles, Floats, Ints, Longs, Ranking

MIXTURE = "mixture"
"""The model that is served; it comes first, then the experts in their order."""

LIST_LENGTH = 100
"""The longest list that is served: a true item beyond it is a miss."""

TOP = 10
"""Items of a list that coverage and novelty look at."""


@dataclass(slots=True)
class Outcomes:
    """What M models had ranked for the n targets of a batch, in log order."""

    index: Longs  # (n,) places in the batch
    ranks: Ints  # (n, M) 0-based place of the true item, -1 where it isn't in the list
    history_lengths: Longs  # (n,)
    item_events_before: Longs  # (n,)
    history: Bytes  # (n,) codes into HISTORY_BUCKETS
    item_age: Bytes  # (n,) codes into ITEM_AGE_BUCKETS
    tops: Ints  # (n, M, TOP) item rows, NO_ROW past the end of a list
    novelty: Doubles  # (n, M) mean -log2 share of the top, NaN for an empty list
    confidence: Floats  # (n, TOP) the mixture's probability of each shown item, NaN past the end

    def __len__(self) -> int:
        return len(self.index)


def compare(
    experts: Sequence[str],
    batch: Batch,
    ranking: Ranking,
    item_counts: Longs,
    total_events: int,
) -> Outcomes:
    """The outcomes of a batch's targets.

    Args:
        experts: names of the experts; each has a list in ``ranking.expert_rows``.
        batch: B events.
        ranking: B lists, each made before its event was learned from.
        item_counts: (N,) events per item so far; rows from N on count as without.
        total_events: events of all items so far.

    Raises:
        ValueError: batch and lists differ in number.
    """
    lists = [ranking.rows, *(ranking.expert_rows[name] for name in experts)]
    for rows in lists:
        if len(rows) != len(batch):
            raise ValueError(f"{len(rows)} lists for a batch of {len(batch)} events")
    index = np.flatnonzero(batch.targets)
    lists = [rows[index, :LIST_LENGTH] for rows in lists]
    items = batch.items[index]
    ranks = np.empty((len(index), len(lists)), np.int32)
    tops = np.full((len(index), len(lists), TOP), NO_ROW, np.int32)
    for model, rows in enumerate(lists):
        ranks[:, model] = _ranks(rows, items)
        tops[:, model, : rows.shape[1]] = rows[:, :TOP]
    return Outcomes(
        index=index,
        ranks=ranks,
        history_lengths=batch.contexts.history_lengths[index],
        item_events_before=batch.item_events_before[index],
        history=history_buckets(batch.contexts.history_lengths[index]),
        item_age=item_age_buckets(batch.item_events_before[index]),
        tops=tops,
        novelty=_novelty(tops, item_counts, total_events),
        confidence=_confidence(ranking.scores[index, :LIST_LENGTH], tops[:, 0]),
    )


def _ranks(rows: Ints, items: Ints) -> Ints:
    # A true item without a row must not be found in the padding.
    found = (rows == items[:, None]) & (items != NO_ROW)[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1), -1).astype(np.int32)


def _confidence(scores: Floats, tops: Ints) -> Floats:
    """Softmax of each list's scores, at its top."""
    found = np.full(tops.shape, np.nan, np.float32)
    # Past the end of a list a score is -inf, and its item gets nothing; a list may have none.
    exponents = np.exp(scores - np.where(np.isfinite(scores[:, :1]), scores[:, :1], 0.0))
    shares = exponents / np.maximum(exponents.sum(axis=1, keepdims=True), 1e-30)
    found[:, : scores.shape[1]] = shares[:, :TOP]
    found[tops == NO_ROW] = np.nan
    return found


def _novelty(tops: Ints, item_counts: Longs, total_events: int) -> Doubles:
    """Self-information of the shown items (Zhou et al., PNAS 2010), mean over each list.

    An item that no event has named yet counts as if one had: its share would be
    0, and its novelty infinite.
    """
    shown = tops != NO_ROW
    counts = np.ones(tops.shape, np.int64)
    known = shown & (tops < len(item_counts))
    counts[known] = np.maximum(item_counts[tops[known]], 1)
    information = np.where(shown, np.log2(max(total_events, 1)) - np.log2(counts), 0.0)
    lengths = shown.sum(axis=2)
    means = np.full(lengths.shape, np.nan)
    np.divide(information.sum(axis=2), lengths, out=means, where=lengths > 0)
    return means
