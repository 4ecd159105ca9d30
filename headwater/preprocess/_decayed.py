"""Decayed counts by hashed key, in hash tables of one size.

A count decays exponentially with stream time, r <- r * exp(-dt / window) + 1, and the
quietest entry of a set makes place for a new one. Entries lapse by themselves, and so those of
a row that goes to someone else aren't cleared.
"""

from __future__ import annotations

from math import exp
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from headwater.types import Doubles, State

_Number = TypeVar("_Number", np.uint64, np.float64)

_WAYS = 8
"""Places that an entry may have in a table."""

_LAPSED = 50.0
"""Windows after which nothing is left of an entry, 2e-22 of it: its place is as good as free."""

Table = tuple[NDArray[np.uint64], Doubles, Doubles]
"""Keys, counts as of their times, and the stream time of each entry's newest event."""


class DecayedCounts:
    """Counts by key, set-associative: an entry has ``_WAYS`` places.

    The size is that asked for, or the next power of two.
    """

    def __init__(self, size: int) -> None:
        size = 1 << (size - 1).bit_length()
        self.arrays: Table = (
            _aligned(np.zeros(size, np.uint64)),
            _aligned(np.zeros(size, np.float64)),
            _aligned(np.zeros(size, np.float64)),
        )

    def state(self) -> State:
        return dict(zip(("keys", "counts", "times"), self.arrays, strict=True))

    def load(self, state: State) -> None:
        self.arrays = (
            _aligned(state["keys"]),
            _aligned(state["counts"]),
            _aligned(state["times"]),
        )


def _aligned(array: NDArray[_Number]) -> NDArray[_Number]:
    """A copy of which every set of places is one cache line, not parts of two."""
    room = np.zeros(len(array) + _WAYS, array.dtype)
    start = -(room.ctypes.data // array.itemsize) % _WAYS
    found = room[start : start + len(array)]
    found[:] = array
    return found


@njit(cache=True, nogil=True)
def count(table: Table, key: np.uint64, now: float, window: float) -> float:
    """Counts one event more; returns the decayed count with it."""
    _, counts, times = table
    place = _place(table, key, now, window)
    level: float = counts[place] * exp((times[place] - now) / window) + 1.0
    counts[place], times[place] = level, now
    return level


@njit(cache=True, nogil=True)
def level(table: Table, key: np.uint64, now: float, window: float) -> float:
    """The decayed count of a key; changes nothing."""
    keys, counts, times = table
    first = _first(table, key)
    for place in range(first, first + _WAYS):
        if keys[place] == key:
            found: float = counts[place] * exp((times[place] - now) / window)
            return found
    return 0.0


@njit(cache=True, nogil=True)
def last(table: Table, key: np.uint64, now: float, window: float) -> float:
    """When the key was last here, -inf where that isn't known; it is here now."""
    _, counts, times = table
    place = _place(table, key, now, window)
    before: float = times[place] if counts[place] > 0 else -np.inf
    counts[place], times[place] = 1.0, now
    return before


@njit(cache=True, nogil=True)
def mixed(one: np.uint64, other: np.uint64) -> np.uint64:
    """64 bits of two numbers, by the finalizer of splitmix64 (Steele et al., OOPSLA 2014)."""
    z = one * np.uint64(0x9E3779B97F4A7C15) + other + np.uint64(0x632BE59BD9B4E019)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def _place(table: Table, key: np.uint64, now: float, window: float) -> int:
    """Where the key is, or from now on is: in the place of the quietest, with a count of 0."""
    keys, counts, times = table
    first = _first(table, key)
    # A loop without a way out is done eight places at a time.
    found = np.int64(-1)
    for w in range(_WAYS):
        is_here = keys[first + w] == key and counts[first + w] > 0
        found = max(found, np.int64(w) if is_here else np.int64(-1))
    if found >= 0:
        return first + int(found)
    quietest, least = first, np.inf
    for place in range(first, first + _WAYS):
        if counts[place] == 0 or now - times[place] > _LAPSED * window:
            quietest = place
            break
        # The exponential takes longest: what is no smaller and no older has more left.
        if place > first and counts[place] >= counts[quietest] and times[place] >= times[quietest]:
            continue
        left = counts[place] * exp((times[place] - now) / window)
        if left < least:
            quietest, least = place, left
    keys[quietest], counts[quietest] = key, 0.0
    return quietest


@njit(cache=True, nogil=True)
def _first(table: Table, key: np.uint64) -> int:
    # By way of int64: numba makes a float of an unsigned and a signed integer. The number of sets
    # is a power of two, for which no division is needed.
    return int(np.int64(key) & np.int64(len(table[0]) // _WAYS - 1)) * _WAYS
