"""The habits expert: what the user comes back to.

Of the items in a user's history, the ones that come again are those that the user had often
and lately, and those that everybody comes back to:

    s(i) = r_i * sum of h_d over the events d = 1 .. L of the history that named i

with r_i = (returns to i + 1) / (events of i + 10), a return being an event of a user who has the
item in the history, and h_d how often the item of d events ago is the next one: (returns to it
+ 1) / (events with a history that long + 100), so that a stream where people go back and forth
and one where they come back after weeks each get their own curve. Personal frequency, weighted
by recency, is hard to beat where people buy the same things again (Li et al., "A next basket
recommendation reality check", TOIS 2023).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.model._opinion import Scratch, SparseOpinion
from headwater.types import Batch, Contexts, Floats, Ints, Longs, State

_RETURNS, _EVENTS, _HISTORIES = 1.0, 10.0, 100.0
"""Returns, events of an item and histories of a length that everything is given before it has its
own."""


class Habits:
    """Events and returns per item; a pure fold of the events."""

    name = "habits"

    def __init__(self, length: int) -> None:
        self.n_items = 0
        self._distances = np.zeros((length, 2), np.int64)  # returns, histories that reach so far
        self._counts = np.zeros((0, 2), np.float32)  # returns, events
        self._scratch = Scratch()

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._counts):
            size = max(n_items, len(self._counts) * 5 // 4, 1024)
            counts = np.zeros((size, 2), np.float32)
            counts[: len(self._counts)] = self._counts
            self._counts = counts
            self._scratch = Scratch(size)
        self.n_items = max(self.n_items, n_items)

    def learn(self, batch: Batch) -> None:
        """Counts the wanted events of a batch, and which of them are returns."""
        _learn(
            np.flatnonzero(batch.wanted),
            batch.items,
            batch.contexts.history_items,
            self._counts,
            self._distances,
        )

    def weigh(self, contexts: Contexts) -> SparseOpinion:
        """The scores s(i) of the items of each history."""
        returns, reached = self._distances.T
        chances = (returns + _RETURNS) / (reached + _HISTORIES)
        scratch = self._scratch
        starts, rows, values = _weigh(
            contexts.history_items, chances, self._counts, scratch.totals, scratch.touched
        )
        return SparseOpinion(contexts, starts, rows, values, rows, scratch)

    def forget(self, rows: Ints) -> None:
        """Clears what was counted of items."""
        self._counts[rows] = 0

    def state(self) -> State:
        return {"counts": self._counts[: self.n_items], "distances": self._distances}

    def load(self, state: State) -> None:
        self._counts, self._distances = state["counts"].copy(), state["distances"].copy()
        self.n_items = len(self._counts)
        self._scratch = Scratch(self.n_items)


@njit(cache=True, nogil=True)
def _learn(
    wanted: Longs, items: Ints, history_items: Ints, counts: Floats, distances: Longs
) -> None:
    length = history_items.shape[1]
    for b in wanted:
        item = items[b]
        returned = False
        for distance in range(length):
            before = history_items[b, length - 1 - distance]
            if before < 0:
                break
            distances[distance, 1] += 1
            if before == item:
                distances[distance, 0] += 1
                returned = True
        counts[item, 1] += 1
        if returned:
            counts[item, 0] += 1


@njit(cache=True, nogil=True)
def _weigh(
    history_items: Ints, chances: Floats, counts: Floats, totals: Floats, touched: Ints
) -> tuple[Longs, Ints, Floats]:
    batch, length = history_items.shape
    starts = np.zeros(batch + 1, np.int64)
    rows, values = np.empty(batch * length, np.int32), np.empty(batch * length, np.float32)
    filled = 0
    for b in range(batch):
        n_touched = 0
        for distance in range(1, length + 1):
            item = history_items[b, length - distance]
            if item < 0:
                break
            if totals[item] == 0:
                touched[n_touched] = item
                n_touched += 1
            rate = (counts[item, 0] + _RETURNS) / (counts[item, 1] + _EVENTS)
            totals[item] += chances[distance - 1] * rate
        for t in range(n_touched):
            rows[filled], values[filled] = touched[t], totals[touched[t]]
            totals[touched[t]] = 0
            filled += 1
        starts[b + 1] = filled
    return starts, rows[:filled], values[:filled]
