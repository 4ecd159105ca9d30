"""Who is first by a weighted sum of counts, without a look at everybody.

With c_h(i) the counts of item i and w_h what a count is worth, the score is sum_h w_h c_h(i). The
weights change with every event, and so does nearly every score; but few items' counts do, so few
can be first (the threshold algorithm of Fagin, Lotem and Naor, PODS 2001). Two circles of items are
kept. In the *pool* are those that lead at some h, and those that events have named since: all
others have at each h at most what the last of its leaders had, B_h, and no more than sum_h w_h B_h
in all. In *front* are those of the pool that led by the score at an earlier time, when weights were
v_h, and those that events have named since: others of the pool had at most f then, and have at most

    f * max_h (w_h / v_h)

now, for their counts are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit

from headwater.model._opinion import keep_best
from headwater.types import Doubles, Ints

_LEADERS = 1_024
"""Items of the highest counts at each h that are kept in view."""

_FRONT = 1_024
"""Items of the highest scores that are."""

_ROUNDING = 1.0 + 1e-12
"""What sums of a few products may differ by, and more: what is as good as the best of those that
aren't looked at isn't known to be before them."""

_GROWTH = 4
"""A circle is drawn anew once it has so many times as many."""


class Leaders:
    """Knows which items may be first. What it finds doesn't depend on what was asked before.

    Args:
        n_counts: H.
    """

    def __init__(self, n_counts: int) -> None:
        self._n_counts = n_counts
        self._pool, self._front = _Circle(), _Circle()
        self._bounds: Doubles | None = None
        self._drawn_with = np.zeros(n_counts)  # the weights of when the front was drawn
        self._beyond = np.inf  # the highest score of the others then; infinite without a front

    def forget(self) -> None:
        """Counts are others than they were, or in another unit."""
        self._bounds = None

    def note(self, named: Ints) -> None:
        """The counts of these distinct items have changed."""
        if self._bounds is not None:
            self._pool.add(named)
            self._front.add(named)

    def first(self, n: int | None, counts: Doubles, weights: Doubles) -> tuple[Ints, Doubles, bool]:
        """The rows that are first, with their scores, and whether no other row has any.

        They are exactly the first ones, of equal ones those of lower row, but how many isn't
        known before: a few thousand.

        Args:
            n: no more than so many, of which the last may be as good as the next one.
            counts: (N, H)
            weights: (H,)
        """
        if self._bounds is None or self._pool.n > _GROWTH * _LEADERS * self._n_counts:
            self._bounds = self._draw_pool(counts)
        pool, floor = self._pool.rows, _ROUNDING * float(self._bounds @ weights)
        if n is None or n >= len(pool):
            scores = scores_of(pool, counts, weights)
            leading = scores > floor
            pool, scores = pool[leading], scores[leading]
            order = np.lexsort((pool, -scores))
            return pool[order], scores[order], not self._bounds.any()
        rows, scores = np.empty(n, np.int32), np.empty(n)
        if n < _FRONT < len(pool):
            for circle, beyond in self._circles(counts, weights, floor):
                if _lead(circle, counts, weights, beyond, rows, scores) == n:
                    return rows, scores, False
        found = _lead(pool, counts, weights, floor, rows, scores)
        return rows[:found], scores[:found], False

    def _circles(
        self, counts: Doubles, weights: Doubles, floor: float
    ) -> Iterator[tuple[Ints, float]]:
        """The front as it is, and drawn anew; and the score that nobody outside has more than."""
        if np.isfinite(self._beyond) and self._front.n <= _GROWTH * _FRONT:
            growth = float((weights / np.maximum(self._drawn_with, 1e-300)).max())
            yield self._front.rows, max(floor, _ROUNDING * growth * self._beyond)
        scores = scores_of(self._pool.rows, counts, weights)
        order = np.argpartition(-scores, _FRONT)
        # In their order, which they nearly keep: then hardly one is moved when they are sorted.
        leading = order[:_FRONT][np.argsort(-scores[order[:_FRONT]])]
        self._front.draw(self._pool.rows[leading], len(counts))
        self._beyond, self._drawn_with = float(scores[order[_FRONT]]), weights
        yield self._front.rows, max(floor, _ROUNDING * self._beyond)

    def _draw_pool(self, counts: Doubles) -> Doubles:
        """Looks at all items for those that lead at some h; returns what the last of these has."""
        leads, bounds = np.zeros(len(counts), np.bool_), np.zeros(self._n_counts)
        for h, of_items in enumerate(counts.T):
            if len(of_items) > _LEADERS:
                leaders = np.argpartition(-of_items, _LEADERS - 1)[:_LEADERS]
                leads[leaders] = True
                bounds[h] = of_items[leaders].min()
            else:
                leads[:] = True
        self._pool.draw(np.flatnonzero(leads).astype(np.int32), len(counts))
        self._front.draw(np.zeros(0, np.int32), len(counts))
        self._beyond = np.inf
        return bounds


class _Circle:
    """Distinct rows, to which others are added."""

    def __init__(self) -> None:
        self.n = 0
        self._rows = np.zeros(0, np.int32)
        self._within = np.zeros(0, np.bool_)

    @property
    def rows(self) -> Ints:
        return self._rows[: self.n]

    def draw(self, rows: Ints, n_items: int) -> None:
        """These rows of ``n_items`` alone."""
        self._rows, self.n = rows, len(rows)
        self._within = np.zeros(n_items, np.bool_)
        self._within[rows] = True

    def add(self, rows: Ints) -> None:
        """Those of distinct rows that aren't there."""
        if len(rows) and (most := int(rows.max()) + 1) > len(self._within):
            within = np.zeros(2 * most, np.bool_)
            within[: len(self._within)] = self._within
            self._within = within
        new = rows[~self._within[rows]]
        if self.n + len(new) > len(self._rows):
            self._rows = np.concatenate([self.rows, new, np.zeros(_LEADERS, np.int32)])
        self._rows[self.n : self.n + len(new)] = new
        self.n += len(new)
        self._within[new] = True


def scores_of(rows: Ints, counts: Doubles, weights: Doubles) -> Doubles:
    """(R,) of given rows; the same for a row whatever stands beside it, to the last bit."""
    scores = np.empty(len(rows))
    _score(rows, counts, weights, scores)
    return scores


@njit(cache=True, nogil=True)
def _lead(
    pool: Ints, counts: Doubles, weights: Doubles, floor: float, rows: Ints, scores: Doubles
) -> int:
    """Writes the best of the pool above a floor, best first; returns how many there are."""
    filled = 0
    for k in range(len(pool)):
        total = 0.0
        for h in range(len(weights)):
            total += counts[pool[k], h] * weights[h]
        if total > floor and len(rows):
            filled = keep_best(rows, scores, filled, pool[k], total)
    return filled


@njit(cache=True, nogil=True)
def _score(rows: Ints, counts: Doubles, weights: Doubles, scores: Doubles) -> None:
    for k in range(len(rows)):
        total = 0.0
        for h in range(len(weights)):
            total += counts[rows[k], h] * weights[h]
        scores[k] = total
