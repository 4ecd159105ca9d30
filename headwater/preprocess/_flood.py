"""How much of what is taught may be of one item.

A client that breaks may name one item whatever is looked at, and a thousand devices repeat it
within seconds: no rule that looks at a user finds that. So of the newest ``NEWEST`` events that
taught, one item may have its share, or twice what it had of as many before, or half more than what
it usually has. A hit grows within hundreds of events of which some are of other items; where all
are of one, nothing moves on. On a site of three pages nothing is unusual in a third of all events.
What stays becomes usual.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.preprocess._decayed import DecayedCounts, Table, count, mixed
from headwater.types import NO_ROW, Bytes, Ints, Longs, State

NEWEST = 100
"""Taught events of which an item may have a share."""
_USUAL = 10_000.0
"""Events over which it is remembered what an item usually has, with exponential decay."""
_BEFORE, _USUALLY = 2.0, 1.5
"""Times its share of as many events before, and its usual share, that an item may have in any
case."""
_WARM = 1_000
"""Events before anything is usual."""
_SLOTS = 1_024
"""Items of one slot are counted together, so that hardly any event is compared with the newest."""


class Flood:
    """The items of the newest events that taught, and what each item has of all."""

    def __init__(self, remembered: int) -> None:
        self._newest: Ints = np.full(2 * NEWEST, NO_ROW, np.int32)
        self._counts: Longs = np.zeros(2, np.int64)  # events that taught, and events
        self._usual = DecayedCounts(remembered)

    def find(self, live: Longs, items: Ints, share: float, reasons: Bytes, reason: int) -> None:
        """Gives a reason to every event of an item that has its share already.

        Args:
            live: (L,) places of the events to judge, in log order.
            items: (B,) rows.
            share: of the newest events that taught.
            reasons: (B,) why an event teaches nothing, 0 where it does; it is changed.
            reason: what to put there.
        """
        _find(live, items, share, self._newest, self._counts, self._usual.arrays, reasons, reason)

    def state(self) -> State:
        usual = {f"usual.{name}": value for name, value in self._usual.state().items()}
        return {"newest": self._newest, "counts": self._counts, **usual}

    def load(self, state: State) -> None:
        self._newest, self._counts = state["newest"].copy(), state["counts"].copy()
        self._usual.load({name: state[f"usual.{name}"] for name in self._usual.state()})


@njit(cache=True, nogil=True)
def _find(
    live: Longs,
    items: Ints,
    share: float,
    newest: Ints,
    counts: Longs,
    usual: Table,
    reasons: Bytes,
    reason: int,
) -> None:
    size = len(newest)
    at_most = np.zeros(_SLOTS, np.int32)  # of the newest events, by slot
    for back in range(1, NEWEST + 1):
        at_most[newest[(counts[0] - back) % size] % _SLOTS] += 1
    for b in live:
        item, now = items[b], float(counts[1])
        often = count(usual, mixed(np.uint64(item), np.uint64(0)), now, _USUAL) - 1.0
        counts[1] += 1
        if reasons[b] != 0:
            continue
        if now >= _WARM and at_most[item % _SLOTS] + 1 > NEWEST * share:
            own, before = _last(newest, counts[0], item)
            usually = NEWEST * _USUALLY * often / _USUAL
            if own + 1 > max(NEWEST * share, usually, _BEFORE * before):
                reasons[b] = reason
                continue
        at_most[newest[(counts[0] - NEWEST) % size] % _SLOTS] -= 1
        at_most[item % _SLOTS] += 1
        newest[counts[0] % size] = item
        counts[0] += 1


@njit(cache=True, nogil=True)
def _last(newest: Ints, taught: int, item: int) -> tuple[int, int]:
    """Events of an item among the newest that taught, and among as many before those."""
    own = before = 0
    for back in range(1, len(newest) + 1):
        if newest[(taught - back) % len(newest)] == item:
            if back <= NEWEST:
                own += 1
            else:
                before += 1
    return own, before
