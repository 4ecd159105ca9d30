"""Associations: for each item, the items that go with it, counted in fixed-width rows.

Two experts are made of these: ``transitions`` (what came next, directed) and
``neighbours`` (what is used by the same people, undirected). A new event with
item i adds w / d ** q to the association j -> i for the item j that the user had d
events before, d = 1 .. window, and to i -> j as well where associations go both
ways. Events that were cleaned are in no association, and d doesn't count them. The
score of i for a history is

    s(i) = sum_d d ** -q * T[j_d, i] / sqrt(sum_i' T[j_d, i'] + 0.5) / (n_i + 3) ** p

with n_i the events of item i. The square root stands half-way between counts,
which favour the popular, and conditional probabilities, which trust rows that
have seen little; p takes back some of what is left of popularity. Weights decay
with stream time by forward decay (Cormode et al., ICDE 2009). A row keeps its
``width`` strongest items; a new one takes the place of the weakest.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.model._opinion import Scratch, SparseOpinion, emptied
from headwater.types import (
    NO_ROW,
    Batch,
    Contexts,
    Doubles,
    Flags,
    Floats,
    Ints,
    Longs,
    State,
)

_RESCALE_AT = 30.0
"""Half-lives past the landmark at which weights are rescaled: float32 holds 2 ** 127."""

SMOOTHING = 0.5
"""Weight of "something else" in a row's sum: a row that has seen little says little."""

_LINE = 16
"""Values of 4 bytes in a cache line."""

_HIGHEST = np.iinfo(np.int32).max

RARE = 3.0
"""Events that every item is given before its popularity is taken back."""


class Associations:
    """Fixed-width rows of decayed associations; a pure fold of the events.

    Args:
        width: associations kept per item.
        window: earlier events that a new one is joined to, and that a score looks at.
        half_life: of the weights, in seconds of stream time.
        both_ways: whether i -> j is learned with j -> i.
        distance_power: q.
        popularity_power: p.
    """

    def __init__(
        self,
        width: int,
        window: int,
        half_life: float,
        *,
        both_ways: bool,
        distance_power: float,
        popularity_power: float,
    ) -> None:
        self.window = window
        self.half_life = half_life
        self.width = width
        self.both_ways = both_ways
        self.popularity_power = popularity_power
        self._reach = np.arange(1, window + 1, dtype=np.float64) ** -distance_power
        self.n_items = 0
        self._successors = np.zeros((0, self.width), np.int32)
        self._weights = np.zeros((0, self.width), np.float32)
        self._sums = np.zeros(0, np.float32)
        self._events = np.zeros(0, np.float32)
        self._clock = np.zeros(2, np.float64)  # landmark of the weights, newest event
        self._scratch = Scratch()

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._sums):
            size = max(n_items, len(self._sums) * 5 // 4, 1024)
            successors = np.zeros((size, self.width), np.int32)
            successors[: len(self._sums)] = self._successors
            weights = np.zeros((size, self.width), np.float32)
            weights[: len(self._sums)] = self._weights
            sums, events = np.zeros(size, np.float32), np.zeros(size, np.float32)
            sums[: len(self._sums)] = self._sums
            events[: len(self._sums)] = self._events
            self._events = events
            self._successors, self._weights, self._sums = successors, weights, sums
            self._scratch = Scratch(size)
        # Only now: what nobody has written to takes no memory.
        self._successors[self.n_items : n_items] = NO_ROW
        self.n_items = max(self.n_items, n_items)

    def learn(self, batch: Batch) -> None:
        """Adds the associations of the wanted events of a batch, in order."""
        _add(
            np.flatnonzero(batch.wanted),
            batch.items,
            batch.weights,
            batch.contexts.times,
            batch.contexts.history_items,
            batch.contexts.history_cleaned,
            self._reach,
            self.both_ways,
            self.half_life,
            self._successors,
            self._weights,
            self._sums,
            self._events,
            self._clock,
        )

    def weigh(self, contexts: Contexts) -> SparseOpinion:
        """The scores s(i) of every item that is associated with one of a history."""
        scratch = self._scratch
        found = _weigh(
            contexts.history_items,
            self._reach,
            self._units(),
            self.popularity_power,
            self._successors,
            self._weights,
            self._sums,
            self._events,
            scratch.totals,
            scratch.most,
            scratch.sources,
            scratch.touched,
        )
        return SparseOpinion(contexts, *found, scratch)

    def forget(self, rows: Ints) -> None:
        """Clears the rows of items and every association with them."""
        gone = np.zeros(self.n_items, np.bool_)
        gone[rows] = True
        self._events[rows] = 0
        _forget(gone, self._successors, self._weights, self._sums)

    def state(self) -> State:
        n = self.n_items
        return {
            "successors": self._successors[:n],
            "weights": self._weights[:n],
            "sums": self._sums[:n],
            "events": self._events[:n],
            "clock": self._clock,
        }

    def load(self, state: State) -> None:
        for name, value in state.items():
            setattr(self, "_" + name, value.copy())
        self.n_items = len(self._sums)
        self._scratch = Scratch(self.n_items)

    def _units(self) -> float:
        """How large a weight of 1 is now: weights grow with stream time instead of decaying."""
        landmark, newest = self._clock.tolist()
        return float(2.0 ** ((newest - landmark) / self.half_life))


@njit(cache=True, nogil=True)
def _add(
    wanted: Longs,
    items: Ints,
    event_weights: Floats,
    times: Doubles,
    history_items: Ints,
    history_cleaned: Flags,
    reach: Doubles,
    both_ways: bool,
    half_life: float,
    successors: Ints,
    weights: Floats,
    sums: Floats,
    events: Floats,
    clock: Doubles,
) -> int:
    """Adds what a batch says; returns a number that nobody needs, so that its reads are made.

    What has to be strengthened would wait for the memory row by row, 300 ns for each. So a value
    of every cache line is read before: those reads don't depend on each other and wait together.
    """
    length, width = history_items.shape[1], successors.shape[1]
    rows = np.empty(len(reach), np.int32)
    weights_read, sums_read = weights.view(np.int32), sums.view(np.int32)
    read = np.int32(0)
    for b in wanted:
        item, time = items[b], times[b]
        if clock[0] == 0.0:
            clock[0] = time
        clock[1] = time
        age = (time - clock[0]) / half_life
        if age > _RESCALE_AT:
            factor = np.float32(2.0 ** (-age))
            weights *= factor
            sums *= factor
            clock[0] = time
            age = 0.0
        grown = 2.0**age * event_weights[b]
        events[item] += 1
        n = 0
        for column in range(length - 1, -1, -1):
            before = history_items[b, column]
            if before < 0 or n == len(rows):
                break
            if history_cleaned[b, column]:
                continue
            rows[n] = before
            n += 1
            row = np.uintp(before)
            for w in range(0, width, _LINE):
                read ^= successors[row, w] ^ weights_read[row, w]
            read ^= sums_read[row]
        for distance in range(n):
            before, weight = rows[distance], grown * reach[distance]
            _strengthen(before, item, weight, successors, weights, sums)
            if both_ways and before != item:
                _strengthen(item, before, weight, successors, weights, sums)
    return int(read)


@njit(cache=True, nogil=True)
def _strengthen(
    row: int, item: int, weight: float, successors: Ints, weights: Floats, sums: Floats
) -> None:
    mine = successors[row]
    width = np.int32(len(mine))
    # Loops without a way out, and over integers, are done eight places at a time.
    place = np.int32(-1)
    for w in range(width):
        place = max(place, np.int32(w) if mine[w] == item else np.int32(-1))
    if place < 0:
        # Weights aren't negative, so their bits are in the same order as they are.
        bits = weights[row].view(np.int32)
        least = np.int32(_HIGHEST)
        for w in range(width):
            least = min(least, bits[w])
        place = width
        for w in range(width):
            place = min(place, np.int32(w) if bits[w] == least else width)
        sums[row] -= weights[row, place]
        weights[row, place] = 0
        mine[place] = item
    weights[row, place] += weight
    sums[row] += weight


@njit(cache=True, nogil=True)
def _forget(gone: Flags, successors: Ints, weights: Floats, sums: Floats) -> None:
    width = successors.shape[1]
    for row in range(len(gone)):
        changed = False
        for w in range(width):
            item = successors[row, w]
            if item >= 0 and (gone[row] or gone[item]):
                successors[row, w] = NO_ROW
                weights[row, w] = 0
                changed = True
        # Summed anew: taking the largest weights off a sum would leave little but rounding.
        if changed:
            sums[row] = weights[row].sum()


@njit(cache=True, nogil=True)
def _accumulate(
    history: Ints,
    reach: Doubles,
    units: float,
    popularity_power: float,
    successors: Ints,
    weights: Floats,
    sums: Floats,
    events: Floats,
    totals: Floats,
    most: Floats,
    of_source: Ints,
    touched: Ints,
) -> int:
    """Adds up s(i) in ``totals``, and notes the history item that adds most to each.

    Returns how many rows it wrote, listed in ``touched``.
    """
    length = len(history)
    n_touched = 0
    for distance in range(1, min(len(reach), length) + 1):
        before = history[length - distance]
        if before < 0:
            break
        if sums[before] <= 0:
            continue
        factor = reach[distance - 1] / np.sqrt((sums[before] + SMOOTHING * units) * units)
        for w in range(successors.shape[1]):
            item = successors[before, w]
            # Rounded first: an item whose total stays 0 would be listed again and again.
            gain = np.float32(weights[before, w] * factor)
            if item >= 0 and gain > 0:
                if totals[item] == 0:
                    touched[n_touched] = item
                    n_touched += 1
                totals[item] += gain
                if gain > most[item]:
                    most[item] = gain
                    of_source[item] = before
    if popularity_power > 0:
        for t in range(n_touched):
            totals[touched[t]] /= (events[touched[t]] + RARE) ** popularity_power
    return n_touched


@njit(cache=True, nogil=True)
def _weigh(
    history_items: Ints,
    reach: Doubles,
    units: float,
    popularity_power: float,
    successors: Ints,
    weights: Floats,
    sums: Floats,
    events: Floats,
    totals: Floats,
    most: Floats,
    of_source: Ints,
    touched: Ints,
) -> tuple[Longs, Ints, Floats, Ints]:
    batch = len(history_items)
    starts = np.zeros(batch + 1, np.int64)
    rows, values = np.empty(64 * batch, np.int32), np.empty(64 * batch, np.float32)
    sources = np.empty(64 * batch, np.int32)
    filled = 0
    for b in range(batch):
        n_touched = _accumulate(
            history_items[b],
            reach,
            units,
            popularity_power,
            successors,
            weights,
            sums,
            events,
            totals,
            most,
            of_source,
            touched,
        )
        rows, values, sources, filled = emptied(
            totals, most, of_source, touched, n_touched, rows, values, sources, filled
        )
        starts[b + 1] = filled
    return starts, rows[:filled], values[:filled], sources[:filled]
