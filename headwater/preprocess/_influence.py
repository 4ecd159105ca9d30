"""How much of what is taught within a window may come from few users.

A user's first event with an item within the window is a voice for it; what he does with it
after that is repeats. An item's repeats teach only as far as its voices carry them: while

    r + 1  <=  max(LEAST, times * (R / V) * (v + 1))

with r and v the item's repeats and voices that taught, R and V those of all items, each
counted with exponential decay. R / V is what is usual here: where people play the same song
all day much is let through, and where nobody acts twice hardly anything. Ten accounts that
push one item have ten voices, however often they act.
"""

from __future__ import annotations

from math import exp

import numpy as np
from numba import njit

from headwater.preprocess._decayed import DecayedCounts, Table, count, level, mixed
from headwater.types import Doubles, State

_VOICE = 1.5
"""Decayed count of a user's events with an item up to which the newest is a voice: the first one,
and one behind a pause of most of the window."""
_LEAST = 3.0
"""Repeats that are taught of every item."""
_WARM = 200.0
"""Voices of all items before anything is usual."""

Kept = tuple[Table, Table, Table, Table, Doubles]
"""Events by user, by user and item; repeats and voices by item; R, V and their stream time."""


class Influence:
    """What is remembered of users and items within the window."""

    def __init__(self, remembered: int) -> None:
        self._tables = {
            name: DecayedCounts(remembered) for name in ("users", "pairs", "repeats", "voices")
        }
        self._sums: Doubles = np.zeros(3)

    @property
    def arrays(self) -> Kept:
        users, pairs, repeats, voices = (table.arrays for table in self._tables.values())
        return users, pairs, repeats, voices, self._sums

    def state(self) -> State:
        return {
            "sums": self._sums,
            **{f"{name}.{k}": v for name, t in self._tables.items() for k, v in t.state().items()},
        }

    def load(self, state: State) -> None:
        self._sums = state["sums"].copy()
        for name, table in self._tables.items():
            table.load({key: state[f"{name}.{key}"] for key in table.state()})


@njit(cache=True, nogil=True)
def events_of(kept: Kept, user: np.uint64, now: float, window: float) -> float:
    """Counts an event of a user; returns his decayed count with it."""
    return count(kept[0], mixed(user, np.uint64(0)), now, window)


@njit(cache=True, nogil=True)
def is_pushed(
    kept: Kept,
    user: np.uint64,
    item: np.uint64,
    now: float,
    window: float,
    times: float,
    taught: bool,
) -> bool:
    """Whether an event is a repeat beyond what its item's voices carry.

    Args:
        kept: what is remembered; it is changed.
        user: row.
        item: row.
        now: stream time in seconds.
        window: time constant of the decay, in seconds.
        times: by how much an item may exceed what is usual.
        taught: False for an event that another rule has found: it is no voice.
    """
    _, pairs, repeats, voices, sums = kept
    own = count(pairs, mixed(user, item), now, window)
    if not taught:
        return False
    fading = exp((sums[2] - now) / window)
    sums[0] *= fading
    sums[1] *= fading
    sums[2] = now
    key = mixed(item, np.uint64(0))
    if own <= _VOICE:
        count(voices, key, now, window)
        sums[1] += 1.0
        return False
    carried = times * (sums[0] / max(sums[1], 1.0)) * (level(voices, key, now, window) + 1.0)
    if sums[1] >= _WARM and level(repeats, key, now, window) + 1.0 > max(_LEAST, carried):
        return True
    count(repeats, key, now, window)
    sums[0] += 1.0
    return False
