"""The popularity expert: decayed counts at several half-lives, mixed by how well each foretells.

For half-life h the decayed count of item i at time t is

    c_h(i, t) = sum over events k of i of  w_k * 2 ** (-(t - t_k) / h)

kept by *forward decay* (Cormode et al., ICDE 2009): weights grow by
2 ** ((t_k - landmark) / h) instead of old counts shrinking, so an event touches
one row, and the order of items needs no decay at all. The share
p_h(i) = c_h(i) / sum_j c_h(j) is a forecast of the next item. The served
popularity is the mixture sum_h m_h p_h(i), whose weights m follow the stream by
online expectation-maximisation: m_h moves towards its responsibility
m_h p_h(i) / sum_g m_g p_g(i) for each item i that came next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from headwater.config import Popularity as Settings
from headwater.model._opinion import keep_best
from headwater.types import NO_ROW, Batch, Doubles, Flags, Floats, Ints, Longs, State

_RESCALE_AT = 60.0
"""Half-lives past the landmark at which counts are rescaled: 2 ** 60 is far from overflow."""

_RESPONSIBILITY_RATE = 0.002
"""Step of the online EM, a memory of about 500 events, so that one burst doesn't swing the
mixture. A first guess: no other value was tried."""

_LEADERS = 1_024
"""Items of the highest counts at each half-life that are kept in view."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What shares were: counts have changed since of the given rows alone, but for their unit."""

    rows: Ints  # (R,) ascending
    counts: Doubles  # (R, H)
    totals: Doubles  # (H,)
    landmarks: Doubles  # (H,)


class Popularity:
    """Decayed counts per item; a pure fold of the events."""

    name = "popularity"

    def __init__(self, settings: Settings) -> None:
        self.half_lives = np.array(settings.half_lives_hours) * 3600.0  # (H,) seconds
        h = len(self.half_lives)
        self.n_items = 0
        self._counts = np.zeros((0, h), np.float64)
        self._totals = np.zeros(h, np.float64)
        self._landmarks = np.zeros(h, np.float64)
        self._mix = np.full(h, 1.0 / h)
        self._events = np.zeros(0, np.int64)
        self._counted = np.zeros(2, np.int64)  # events of all items, items that have any
        self._first_times = np.zeros(0, np.float64)
        self._last_times = np.zeros(0, np.float64)
        # Those among whom the most popular are; they follow from the counts.
        self._pool = np.zeros(0, np.int32)
        self._n_pool = 0
        self._in_pool = np.zeros(0, np.bool_)
        self._bounds: Doubles | None = None

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._events):
            size = max(n_items, len(self._events) * 5 // 4, 1024)
            for name in ("_counts", "_events", "_first_times", "_last_times"):
                old = getattr(self, name)
                grown = np.zeros((size, *old.shape[1:]), old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
            in_pool = np.zeros(size, np.bool_)
            in_pool[: len(self._in_pool)] = self._in_pool
            self._in_pool = in_pool
        self.n_items = max(self.n_items, n_items)

    @property
    def events(self) -> np.ndarray:
        """(N,) positive events per item so far."""
        return self._events[: self.n_items]

    @property
    def n_events(self) -> int:
        """Positive events of all items so far."""
        return int(self._counted[0])

    @property
    def n_eligible(self) -> int:
        """How many items some event has named."""
        return int(self._counted[1])

    @property
    def first_times(self) -> Doubles:
        """(N,) stream time of each item's first event, 0 before it."""
        return self._first_times[: self.n_items]

    @property
    def last_times(self) -> Doubles:
        """(N,) stream time of each item's newest event, 0 before the first."""
        return self._last_times[: self.n_items]

    @property
    def mix(self) -> Doubles:
        """(H,) weight of each half-life in the served popularity; sums to 1."""
        return self._mix

    @property
    def counts(self) -> Doubles:
        """(N, H) decayed events of each item at each half-life, in units that only shares know."""
        return self._counts[: self.n_items]

    @property
    def totals(self) -> Doubles:
        """(H,) likewise of all items, above 0."""
        return np.maximum(self._totals, 1e-300)

    def eligible(self) -> Flags:
        """(N,) items that some event has named."""
        return self.events > 0

    def shares(self, rows: Ints) -> Floats:
        """Each item's share of the decayed events, per half-life; (..., H) for rows (...)."""
        return (self._counts[rows] / self.totals).astype(np.float32)

    def before(self, items: Ints) -> Earlier:
        """What shares are, before events of these items (``NO_ROW`` among them) are counted."""
        rows = np.unique(items[items != NO_ROW])
        return Earlier(rows, self._counts[rows], self._totals.copy(), self._landmarks.copy())

    def shares_before(self, earlier: Earlier, rows: Ints) -> Floats:
        """``shares`` as they were when ``earlier`` was made.

        What wasn't counted since has a share of nothing where 900 half-lives have gone by.
        """
        # As far as a float reaches. The first landmark is 0, when all counts are.
        halvings = np.minimum((self._landmarks - earlier.landmarks) / self.half_lives, 900.0)
        counts = self._counts[rows] * 2.0**halvings
        if len(earlier.rows):
            place = np.minimum(np.searchsorted(earlier.rows, rows), len(earlier.rows) - 1)
            changed = earlier.rows[place] == rows
            counts[changed] = earlier.counts[place[changed]]
        return (counts / np.maximum(earlier.totals, 1e-300)).astype(np.float32)

    def scores(self) -> Doubles:
        """(N,) the served popularity of every item; sums to 1 once there are events."""
        return self._scores(np.arange(self.n_items, dtype=np.int32))

    def leaders(self, n: int | None = None) -> tuple[Ints, Doubles, bool]:
        """The rows that are first by ``scores()``, with those, and whether no other row has any.

        Args:
            n: no more than so many, of which the last may be as good as the next one.

        They are exactly the first ones, of equal ones those of lower row, but how many isn't
        known before: a few thousand. No more rows are looked at (the threshold algorithm of
        Fagin, Lotem and Naor, PODS 2001): those that lead at some half-life, and those that
        events have named since. All others have at each half-life at most what the last of its
        leaders had, so a higher score than of such counts can't be beaten by them.
        """
        if self._bounds is None or self._n_pool > 4 * _LEADERS * len(self.half_lives):
            self._lead()
        assert self._bounds is not None
        pool, floor = self._pool[: self._n_pool], float(self._bounds @ self._weights())
        if n is not None and n < len(pool):
            rows, scores = np.empty(n, np.int32), np.empty(n)
            found = _lead(pool, self._counts, self._weights(), floor, rows, scores)
            return rows[:found], scores[:found], False
        scores = self._scores(pool)
        leading = scores > floor
        pool, scores = pool[leading], scores[leading]
        order = np.lexsort((pool, -scores))
        return pool[order], scores[order], not self._bounds.any()

    def _weights(self) -> Doubles:
        """(H,) what a count at each half-life is worth."""
        return self._mix / np.maximum(self._totals, 1e-300)

    def _scores(self, rows: Ints) -> Doubles:
        """(R,) of given rows; the same for a row whatever stands beside it, to the last bit."""
        scores = np.empty(len(rows))
        _score(rows, self._counts, self._weights(), scores)
        return scores

    def learn(self, batch: Batch) -> None:
        """Counts the wanted events of a batch, in order."""
        wanted = (batch.items != NO_ROW) & (batch.polarities > 0) & (batch.weights > 0)
        landmarks = self._landmarks.copy()
        _count(
            batch.items[wanted],
            batch.weights[wanted].astype(np.float64),
            batch.contexts.times[wanted],
            self.half_lives,
            self._counts,
            self._totals,
            self._landmarks,
            self._mix,
            self._events,
            self._counted,
            self._first_times,
            self._last_times,
        )
        if (self._landmarks != landmarks).any():
            self._bounds = None  # they are counted in other units
        if self._bounds is not None:
            named = np.unique(batch.items[wanted])
            new = named[~self._in_pool[named]]
            if self._n_pool + len(new) > len(self._pool):
                self._pool = np.concatenate([self._pool, new, np.zeros(_LEADERS, np.int32)])
            self._pool[self._n_pool : self._n_pool + len(new)] = new
            self._n_pool += len(new)
            self._in_pool[new] = True

    def forget(self, rows: Ints) -> None:
        """Clears items, as if no event had named them."""
        events = self._events[np.unique(rows)]
        self._counted -= (events.sum(), np.count_nonzero(events))
        for array in (self._counts, self._events, self._first_times, self._last_times):
            array[rows] = 0
        # Summed anew: taking the largest counts off a total would leave little but rounding.
        self._totals = self._counts[: self.n_items].sum(axis=0)

    def state(self) -> State:
        n = self.n_items
        return {
            "counts": self._counts[:n],
            "totals": self._totals,
            "landmarks": self._landmarks,
            "mix": self._mix,
            "events": self._events[:n],
            "counted": self._counted,
            "first_times": self._first_times[:n],
            "last_times": self._last_times[:n],
        }

    def load(self, state: State) -> None:
        for name, value in state.items():
            setattr(self, "_" + name, value.copy())
        self.n_items = len(self._events)
        self._in_pool = np.zeros(self.n_items, np.bool_)
        self._bounds = None

    def _lead(self) -> None:
        """Looks at all items for those that lead at some half-life."""
        counts = self._counts[: self.n_items]
        self._in_pool[:] = False
        self._bounds = np.zeros(len(self.half_lives))
        for h, of_items in enumerate(counts.T):
            if len(of_items) > _LEADERS:
                leaders = np.argpartition(-of_items, _LEADERS - 1)[:_LEADERS]
                self._in_pool[leaders] = True
                self._bounds[h] = of_items[leaders].min()
            else:
                self._in_pool[: len(of_items)] = True
        self._pool = np.flatnonzero(self._in_pool).astype(np.int32)
        self._n_pool = len(self._pool)


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


@njit(cache=True, nogil=True)
def _count(
    items: Ints,
    weights: Doubles,
    times: Doubles,
    half_lives: Doubles,
    counts: Doubles,
    totals: Doubles,
    landmarks: Doubles,
    mix: Doubles,
    events: Longs,
    counted: Longs,
    first_times: Doubles,
    last_times: Doubles,
) -> None:
    n_half_lives = len(half_lives)
    forecast = np.zeros(n_half_lives)
    for k in range(len(items)):
        item, time = items[k], times[k]
        seen = 0.0
        for h in range(n_half_lives):
            share = counts[item, h] / totals[h] if totals[h] > 0 else 0.0
            forecast[h] = mix[h] * share
            seen += forecast[h]
        if seen > 0:
            for h in range(n_half_lives):
                mix[h] += _RESPONSIBILITY_RATE * (forecast[h] / seen - mix[h])
        for h in range(n_half_lives):
            age = (time - landmarks[h]) / half_lives[h]
            if age > _RESCALE_AT:
                factor = 2.0 ** (-age)
                for i in range(len(counts)):
                    counts[i, h] *= factor
                totals[h] *= factor
                landmarks[h] = time
                age = 0.0
            weight = weights[k] * 2.0**age
            counts[item, h] += weight
            totals[h] += weight
        if events[item] == 0:
            first_times[item] = time
            counted[1] += 1
        events[item] += 1
        counted[0] += 1
        last_times[item] = time
