"""What an expert says of a batch of histories: its own best items, and its score of any item."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numba import njit

from headwater.types import NO_ROW, Contexts, Doubles, Flags, Floats, Ints, Longs


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

    def sources(self, rows: Ints) -> Ints:
        """(B, C) for each given item, the history item that its score comes from most; ``NO_ROW``
        where none leads to it.
        """
        ...


class Scratch:
    """What a walk over items notes of each: kept, for a request must not cost more as the
    catalogue grows. Everything is 0 again behind each use.
    """

    def __init__(self, n_items: int = 0) -> None:
        self.totals = np.zeros(n_items, np.float32)
        self.parts = np.zeros(n_items, np.float32)
        self.most = np.zeros(n_items, np.float32)
        self.sources = np.zeros(n_items, np.int32)
        # Of all, and behind them of a part; and one that is written before it is known to count.
        self.touched = np.zeros(2 * n_items + 1, np.int32)
        self.marks = np.zeros(n_items, np.bool_)


class SparseOpinion:
    """An opinion of few items: context b has a score for ``rows[starts[b]:starts[b + 1]]``.

    Args:
        contexts: B of them.
        starts: (B + 1,).
        rows: distinct within a context.
        values: their scores, all positive.
        sources: the history items that they come from most.
        scratch: has room for every row.
    """

    def __init__(
        self,
        contexts: Contexts,
        starts: Longs,
        rows: Ints,
        values: Floats,
        sources: Ints,
        scratch: Scratch,
    ) -> None:
        self._contexts = contexts
        self._starts = starts
        self._rows = rows
        self._values = values
        self._sources = sources
        self._scratch = scratch

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
            self._scratch.marks,
            rows,
            scores,
        )
        return rows, scores

    def scores(self, rows: Ints) -> Floats:
        out = np.zeros(rows.shape, np.float32)
        _look_up(self._starts, self._rows, self._values, rows, self._scratch.totals, out)
        return out

    def sources(self, rows: Ints) -> Ints:
        out = np.full(rows.shape, NO_ROW, np.int32)
        _look_back(self._starts, self._rows, self._sources, rows, self._scratch.sources, out)
        return out


@njit(cache=True, nogil=True)
def _best(
    starts: Longs,
    of_rows: Ints,
    values: Floats,
    excluded_starts: Longs,
    excluded: Ints,
    withheld: Flags,
    barred: Flags,
    rows: Ints,
    scores: Floats,
) -> None:
    n_items = len(withheld)
    for b in range(len(rows)):
        mark(barred, excluded[excluded_starts[b] : excluded_starts[b + 1]], True)
        filled = 0
        for place in range(starts[b], starts[b + 1]):
            item = of_rows[place]
            if item < n_items and not withheld[item] and not barred[item]:
                filled = keep_best(rows[b], scores[b], filled, item, values[place])
        mark(barred, excluded[excluded_starts[b] : excluded_starts[b + 1]], False)


@njit(cache=True, nogil=True)
def mark(marks: Flags, rows: Ints, as_what: bool) -> None:
    """Sets the marks of the rows that there are marks of."""
    for row in rows:
        if row < len(marks):
            marks[row] = as_what


@njit(cache=True, nogil=True)
def keep_best(rows: Ints, scores: Floats | Doubles, filled: int, item: int, score: float) -> int:
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
    starts: Longs, of_rows: Ints, values: Floats, rows: Ints, found: Floats, out: Floats
) -> None:
    for b in range(len(rows)):
        for place in range(starts[b], starts[b + 1]):
            found[of_rows[place]] = values[place]
        for c in range(rows.shape[1]):
            if 0 <= rows[b, c] < len(found):
                out[b, c] = found[rows[b, c]]
        for place in range(starts[b], starts[b + 1]):
            found[of_rows[place]] = 0


@njit(cache=True, nogil=True)
def _look_back(
    starts: Longs, of_rows: Ints, sources: Ints, rows: Ints, found: Ints, out: Ints
) -> None:
    for b in range(len(rows)):
        # One more than a source: a row that has none finds 0.
        for place in range(starts[b], starts[b + 1]):
            found[of_rows[place]] = sources[place] + 1
        for c in range(rows.shape[1]):
            if 0 <= rows[b, c] < len(found):
                out[b, c] = found[rows[b, c]] - 1
        for place in range(starts[b], starts[b + 1]):
            found[of_rows[place]] = 0


@njit(cache=True, nogil=True)
def emptied(
    totals: Floats,
    most: Floats,
    of_source: Ints,
    touched: Ints,
    n_touched: int,
    rows: Ints,
    values: Floats,
    sources: Ints,
    filled: int,
) -> tuple[Ints, Floats, Ints, int]:
    """Moves the ``totals`` of what was touched, and its sources, behind the ``filled`` ones.

    Sets them, and ``most``, to 0. Returns the three arrays, larger ones where they were too small,
    and how many they hold now.
    """
    if filled + n_touched > len(rows):
        size = 2 * (filled + n_touched)
        more_rows, more_values = np.empty(size, np.int32), np.empty(size, np.float32)
        more_sources = np.empty(size, np.int32)
        more_rows[:filled], more_values[:filled] = rows[:filled], values[:filled]
        more_sources[:filled] = sources[:filled]
        rows, values, sources = more_rows, more_values, more_sources
    for t in range(n_touched):
        item = touched[t]
        rows[filled], values[filled], sources[filled] = item, totals[item], of_source[item]
        totals[item] = 0
        most[item] = 0
        of_source[item] = 0
        filled += 1
    return rows, values, sources, filled
