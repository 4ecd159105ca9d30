"""What a rank is worth, and what can be said of many of them.

A rank is the 0-based place of the true item in the list that would have been
served; -1 says that it isn't in the list. Every metric of a rank here depends on
it only below 20, so any number of ranks is exactly described by 21 counts: a
running window adds and subtracts integers, and never drifts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.intervals import normal, wilson
from headwater.types import Bytes, Doubles, Longs, Metric

RANK_BINS = 21
"""Ranks 0 to 19, and one bin for what is beyond or not in the list."""

HISTORY_BUCKETS = ("0", "1-4", "5-19", "20+")
"""Earlier events of the user."""
ITEM_AGE_BUCKETS = ("0-9", "10-99", "100+")
"""Earlier events that named the item."""
SEGMENTS = (
    "all",
    *(f"history:{bucket}" for bucket in HISTORY_BUCKETS),
    *(f"item_age:{bucket}" for bucket in ITEM_AGE_BUCKETS),
)

_HISTORY_STARTS = np.array([1, 5, 20])
_ITEM_AGE_STARTS = np.array([10, 100])
_FIRST_ITEM_AGE = 1 + len(HISTORY_BUCKETS)


def hits(ranks: NDArray[Any], k: int) -> Doubles:
    """1 where the true item is among the first ``k``, else 0; recall@k, as one item is true.

    >>> hits(np.array([0, 9, 10, -1]), 10).tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    return ((ranks >= 0) & (ranks < k)).astype(np.float64)


def ndcg_gains(ranks: NDArray[Any], k: int) -> Doubles:
    """1 / log2(rank + 2) among the first ``k``, else 0.

    NDCG (Järvelin and Kekäläinen, TOIS 2002) with one true item, whose ideal
    gain is 1.

    >>> ndcg_gains(np.array([0, 2, 10, -1]), 10).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    gains: Doubles = hits(ranks, k) / np.log2(np.maximum(ranks, 0) + 2.0)
    return gains


def reciprocal_ranks(ranks: NDArray[Any], k: int) -> Doubles:
    """1 / (rank + 1) among the first ``k``, else 0.

    >>> reciprocal_ranks(np.array([0, 3, 10, -1]), 10).tolist()
    [1.0, 0.25, 0.0, 0.0]
    """
    values: Doubles = hits(ranks, k) / (np.maximum(ranks, 0) + 1.0)
    return values


RANK_METRICS: dict[str, Callable[[NDArray[Any]], Doubles]] = {
    "hit_rate@10": lambda ranks: hits(ranks, 10),
    "ndcg@10": lambda ranks: ndcg_gains(ranks, 10),
    "mrr@10": lambda ranks: reciprocal_ranks(ranks, 10),
    "precision@10": lambda ranks: hits(ranks, 10) / 10,
    # 2 P R / (P + R) with P = hit / 10 and R = hit.
    "f1@10": lambda ranks: hits(ranks, 10) * 2 / 11,
    "accuracy@1": lambda ranks: hits(ranks, 1),
    "recall@20": lambda ranks: hits(ranks, 20),
    "mrr@20": lambda ranks: reciprocal_ranks(ranks, 20),
}
"""Name -> the value of each prediction; the metric is the mean over predictions."""

_BINNED = np.stack([value(np.append(np.arange(20), -1)) for value in RANK_METRICS.values()])
_MOMENTS = np.concatenate([_BINNED, _BINNED**2])  # (2 metrics, RANK_BINS)
# The constant, where a prediction's value is nought or one constant; else None.
_CONSTANTS = [
    float(values.max()) if np.isin(values, (0.0, values.max())).all() else None
    for values in _BINNED
]


def from_histogram(counts: NDArray[Any]) -> dict[str, Metric]:
    """Every metric of :data:`RANK_METRICS` from (RANK_BINS,) counts; their sum is at least 1.

    Intervals: Wilson's where a value can only be nought or one constant, else
    the normal one of the mean, cut to [0, 1].
    """
    n = int(counts.sum())
    moments = (_MOMENTS @ counts).tolist()
    totals, squares = moments[: len(_BINNED)], moments[len(_BINNED) :]
    return {
        name: normal(total, square, n, high=1.0)
        if constant is None
        else wilson(round(total / constant), n, scale=constant)
        for name, total, square, constant in zip(
            RANK_METRICS, totals, squares, _CONSTANTS, strict=True
        )
    }


def rank_bins(ranks: NDArray[Any]) -> Bytes:
    """The bin of each rank."""
    beyond = RANK_BINS - 1
    return np.where((ranks < 0) | (ranks >= beyond), beyond, ranks).astype(np.uint8)


def history_buckets(lengths: NDArray[Any]) -> Bytes:
    """Codes into :data:`HISTORY_BUCKETS`."""
    return np.searchsorted(_HISTORY_STARTS, lengths, side="right").astype(np.uint8)


def item_age_buckets(events: NDArray[Any]) -> Bytes:
    """Codes into :data:`ITEM_AGE_BUCKETS`."""
    return np.searchsorted(_ITEM_AGE_STARTS, events, side="right").astype(np.uint8)


def rank_histograms(bins: Bytes, history: Bytes, item_age: Bytes) -> Longs:
    """Counts of ranks per segment and model.

    Args:
        bins: (n, M) bins of n predictions by M models.
        history: (n,) codes into ``HISTORY_BUCKETS``.
        item_age: (n,) codes into ``ITEM_AGE_BUCKETS``.

    Returns:
        (len(SEGMENTS), M, RANK_BINS) counts; a prediction counts in three segments.
    """
    models = bins.shape[1]
    segments = np.stack(
        [np.zeros(len(bins), np.int64), 1 + history.astype(np.int64), _FIRST_ITEM_AGE + item_age]
    )  # (3, n)
    codes = (segments[:, :, None] * models + np.arange(models)) * RANK_BINS + bins
    size = len(SEGMENTS) * models * RANK_BINS
    counts = np.bincount(codes.reshape(-1), minlength=size)
    return counts.reshape(len(SEGMENTS), models, RANK_BINS).astype(np.int64)


def gini(counts: NDArray[Any], noughts: int = 0) -> float:
    """How unevenly the counts are spread: 0 if all are equal, near 1 if one item has them all.

    ``noughts`` more counts are 0 and need not be given.

    >>> gini(np.array([5, 5, 5])), gini(np.array([12]), noughts=3)
    (0.0, 0.75)
    """
    ordered = np.sort(counts)
    n, total = noughts + len(ordered), int(ordered.sum())
    if not total:
        return 0.0
    places = np.arange(noughts + 1, n + 1)
    return float((2 * places - n - 1) @ ordered / (n * total))


def finite_moments(values: Doubles) -> tuple[float, float, int]:
    """Sum, sum of squares and number of the values that aren't NaN."""
    known = values[~np.isnan(values)]
    return float(known.sum()), float((known * known).sum()), len(known)
