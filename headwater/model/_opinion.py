"""What an expert says of a batch of histories: its own best items, and its score of any item."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numba import njit

from headwater.types import NO_ROW, Contexts, Flags, Floats, Ints, Longs


class Opinion(Protocol):
    """The scores that one expert gives for B contexts, in units of its own."""

    def best(self, withheld: Flags, k: int) -> tuple[Ints, Floats]:
        """The best k items for each context, best first: rows and scores, (B, k) each.

        ``withheld`` (N,) marks rows that may not be proposed to anyone. Where fewer may be
        proposed, the end of a list is ``NO_ROW`` with a score of 0.
        """
        ...

    def scores(self, rows: Ints) -> Floats:
        """(B, C) scores of given items; 0 for those that it knows nothing of."""
        ...


class SparseOpinion:
    """An opinion of few items: context b has a score for ``rows[starts[b]:starts[b + 1]]``.

    Args:
        contexts: B of them.
        starts: (B + 1,).
        rows: distinct within a context.
        values: their scores, all positive.
    """

    def __init__(self, contexts: Contexts, starts: Longs, rows: Ints, values: Floats) -> None:
        self._contexts = contexts
        self._starts = starts
        self._rows = rows
        self._values = values

    def best(self, withheld: Flags, k: int) -> tuple[Ints, Floats]:
        rows = np.full((len(self._contexts), k), NO_ROW, np.int32)
        scores = np.zeros((len(self._contexts), k), np.float32)
        _best(
            self._starts,
            self._rows,
            self._values,
            self._contexts.excluded_starts,
            self._contexts.excluded,
            withheld,
            rows,
            scores,
        )
        return rows, scores

    def scores(self, rows: Ints) -> Floats:
        out = np.zeros(rows.shape, np.float32)
        highest = max(int(rows.max(initial=0)), int(self._rows.max(initial=0)))
        _look_up(self._starts, self._rows, self._values, rows, highest + 1, out)
        return out


@njit(cache=True, nogil=True)
def _best(
    starts: Longs,
    of_rows: Ints,
    values: Floats,
    excluded_starts: Longs,
    excluded: Ints,
    withheld: Flags,
    rows: Ints,
    scores: Floats,
) -> None:
    n_items = len(withheld)
    barred = np.full(n_items, -1, np.int32)
    for b in range(len(rows)):
        for e in range(excluded_starts[b], excluded_starts[b + 1]):
            if excluded[e] < n_items:
                barred[excluded[e]] = b
        filled = 0
        for place in range(starts[b], starts[b + 1]):
            item = of_rows[place]
            if item < n_items and not withheld[item] and barred[item] != b:
                filled = keep_best(rows[b], scores[b], filled, item, values[place])


@njit(cache=True, nogil=True)
def keep_best(rows: Ints, scores: Floats, filled: int, item: int, score: float) -> int:
    """Sorts an item into a short list, best first, ties by row; returns how many it holds then."""
    k = len(rows)
    if filled == k and not _before(score, item, scores[k - 1], rows[k - 1]):
        return filled
    place = filled if filled < k else k - 1
    while place > 0 and _before(score, item, scores[place - 1], rows[place - 1]):
        scores[place] = scores[place - 1]
        rows[place] = rows[place - 1]
        place -= 1
    scores[place] = score
    rows[place] = item
    return filled + 1 if filled < k else filled


@njit(cache=True, nogil=True)
def _before(score: float, row: int, other_score: float, other_row: int) -> bool:
    return score > other_score or (score == other_score and row < other_row)


@njit(cache=True, nogil=True)
def _look_up(
    starts: Longs, of_rows: Ints, values: Floats, rows: Ints, n_items: int, out: Floats
) -> None:
    found = np.zeros(n_items, np.float32)
    for b in range(len(rows)):
        for place in range(starts[b], starts[b + 1]):
            found[of_rows[place]] = values[place]
        for c in range(rows.shape[1]):
            if rows[b, c] >= 0:
                out[b, c] = found[rows[b, c]]
        for place in range(starts[b], starts[b + 1]):
            found[of_rows[place]] = 0


@njit(cache=True, nogil=True)
def emptied(
    totals: Floats, touched: Ints, n_touched: int, rows: Ints, values: Floats, filled: int
) -> tuple[Ints, Floats, int]:
    """Moves the positive ones of ``totals`` behind the ``filled`` ones, and sets them to 0.

    Returns the two arrays, larger ones where they were too small, and how many they hold now.
    """
    if filled + n_touched > len(rows):
        size = 2 * (filled + n_touched)
        more_rows, more_values = np.empty(size, np.int32), np.empty(size, np.float32)
        more_rows[:filled], more_values[:filled] = rows[:filled], values[:filled]
        rows, values = more_rows, more_values
    for t in range(n_touched):
        item = touched[t]
        rows[filled], values[filled] = item, totals[item]
        totals[item] = 0
        filled += 1
    return rows, values, filled
