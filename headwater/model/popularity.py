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
from headwater.model._leaders import Leaders, scores_of
from headwater.types import NO_ROW, Batch, Doubles, Flags, Floats, Ints, Longs, State

_RESCALE_AT = 60.0
"""Half-lives past the landmark at which counts are rescaled: 2 ** 60 is far from overflow."""

_RESPONSIBILITY_RATE = 0.002
"""Step of the online EM, a memory of about 500 events, so that one burst doesn't swing the
mixture. A first guess: no other value was tried."""


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
        self._leaders = Leaders(h)  # it follows from the counts

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._events):
            size = max(n_items, len(self._events) * 5 // 4, 1024)
            for name in ("_counts", "_events", "_first_times", "_last_times"):
                old = getattr(self, name)
                grown = np.zeros((size, *old.shape[1:]), old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
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
        return scores_of(np.arange(self.n_items, dtype=np.int32), self._counts, self._weights())

    def leaders(self, n: int | None = None) -> tuple[Ints, Doubles, bool]:
        """The rows that are first by ``scores()``, with those, and whether no other row has any.

        They are exactly the first ones, of equal ones those of lower row, but how many isn't
        known before: a few thousand. No more rows are looked at (``headwater.model._leaders``).

        Args:
            n: no more than so many, of which the last may be as good as the next one.
        """
        return self._leaders.first(n, self.counts, self._weights())

    def _weights(self) -> Doubles:
        """(H,) what a count at each half-life is worth."""
        return self._mix / np.maximum(self._totals, 1e-300)

    def learn(self, batch: Batch) -> None:
        """Counts the wanted events of a batch, in order."""
        wanted = batch.wanted
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
            self._leaders.forget()
        else:
            self._leaders.note(np.unique(batch.items[wanted]))

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
        self._leaders.forget()


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
