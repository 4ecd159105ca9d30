"""Cleaning: which events teach nothing, and why.

An event that a rule finds loses its training weight and nothing else: it stays in
histories, targets and metrics, marked, so that no expert learns from it by way of a
history either. The first reason that fits counts:

- ``unknown_type``: no setting knows the type; its weight is 0 anyway.
- ``impossible_time``: the client's time lies far behind the stream's.
- ``duplicate``: the same user, item and type again, under another id: a double
  click, a retry.
- ``burst``: a user who is faster than people are.
- ``hammered``: one item by one user, again and again.

All but the first are for *live* events: sent one by one, not read from a file, while
stream time is near the clock. What is imported or replayed may have coarse times,
where a basket is a burst and its equal lines are duplicates. A record says itself
whether it is live, so every fold of a log decides alike.

The last two count events with exponential decay, r <- r * exp(-dt / window) + 1, and
hold while r is over the limit: whoever goes on as fast isn't taught from again until
he stops. All that the rules remember is in hash tables of one size, in which the
quietest entry makes place for a new one. Entries lapse by themselves, so rows that
go to someone else need no clearing.
"""

from __future__ import annotations

from math import exp

import numpy as np
from numba import njit
from numpy.typing import NDArray

from headwater.config import DAY, HOUR
from headwater.config import Cleaning as Settings
from headwater.preprocess._columns import Columns
from headwater.types import NO_ROW, Bytes, Doubles, Flags, Floats, Ints, State

REASONS = ("unknown_type", "impossible_time", "duplicate", "burst", "hammered")

_LIVE = DAY
"""A stream further behind the clock is history that is being sent again."""

_WAYS = 8
"""Places that an entry may have in a table."""

_LAPSED = 50.0
"""Windows after which nothing is left of an entry, 2e-22 of it: its place is as good as free."""

_UNKNOWN_TYPE, _IMPOSSIBLE_TIME, _DUPLICATE, _BURST, _HAMMERED = range(1, 1 + len(REASONS))

_Keys = NDArray[np.uint64]


class Cleaning:
    """Finds the events that teach nothing; a pure fold of the events."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found = np.zeros(1 + len(REASONS), np.int64)
        self._acts, self._users, self._pairs = (_Table(settings.remembered) for _ in range(3))

    @property
    def counts(self) -> dict[str, int]:
        """Events found so far, by reason."""
        return {reason: int(n) for reason, n in zip(REASONS, self._found[1:], strict=True)}

    def find(
        self,
        events: Columns,
        users: Ints,
        items: Ints,
        weights: Floats,
    ) -> Flags:
        """(B,) True where an event's weight is to be 0.

        Args:
            events: B of them, in log order.
            users: (B,) rows, ``NO_ROW`` where the user has none yet: no rule counts them.
            items: (B,) rows, ``NO_ROW`` where an event names none.
            weights: (B,) the types' weights.
        """
        settings = self._settings
        types, times = events.types, events.times
        live = ~events.imported & (events.received - times <= _LIVE)
        live &= (weights > 0) & (items != NO_ROW)
        reasons = np.zeros(len(types), np.uint8)
        reasons[types == 0] = _UNKNOWN_TYPE
        if settings.max_age_days:
            reasons[live & (times - events.own_times > settings.max_age_days * DAY)] = (
                _IMPOSSIBLE_TIME
            )
        # Users without a row would be one user to these rules.
        _find(
            np.flatnonzero(live & (users != NO_ROW)),
            users,
            items,
            types,
            times,
            settings.duplicate_seconds,
            settings.burst_events,
            settings.burst_seconds,
            settings.hammered_events,
            settings.hammered_hours * HOUR,
            self._acts.arrays,
            self._users.arrays,
            self._pairs.arrays,
            reasons,
        )
        self._found += np.bincount(reasons, minlength=len(self._found))
        return reasons > 0

    def state(self) -> State:
        return {
            "found": self._found,
            **{f"{name}.{key}": v for name, t in self._tables() for key, v in t.state().items()},
        }

    def load(self, state: State) -> None:
        self._found = state["found"].copy()
        for name, table in self._tables():
            table.load({key: state[f"{name}.{key}"] for key in table.state()})

    def _tables(self) -> list[tuple[str, _Table]]:
        return [("acts", self._acts), ("users", self._users), ("pairs", self._pairs)]


class _Table:
    """Decayed counts by hashed key, set-associative: an entry has ``_WAYS`` places.

    The size is that asked for, or the next power of two.
    """

    def __init__(self, size: int) -> None:
        size = 1 << (size - 1).bit_length()
        self.arrays: tuple[_Keys, Doubles, Doubles] = (
            np.zeros(size, np.uint64),
            np.zeros(size, np.float64),  # counts as of their times
            np.zeros(size, np.float64),  # stream time of an entry's newest event
        )

    def state(self) -> State:
        return dict(zip(("keys", "counts", "times"), self.arrays, strict=True))

    def load(self, state: State) -> None:
        self.arrays = (state["keys"].copy(), state["counts"].copy(), state["times"].copy())


@njit(cache=True, nogil=True)
def _find(
    live: NDArray[np.int64],
    users: Ints,
    items: Ints,
    types: Bytes,
    times: Doubles,
    duplicate_seconds: float,
    burst_events: int,
    burst_seconds: float,
    hammered_events: int,
    hammered_seconds: float,
    acts: tuple[_Keys, Doubles, Doubles],
    by_user: tuple[_Keys, Doubles, Doubles],
    pairs: tuple[_Keys, Doubles, Doubles],
    reasons: Bytes,
) -> None:
    for b in live:
        user, item, now = np.uint64(users[b]), np.uint64(items[b]), times[b]
        pair = _mixed(user, item)
        reason = 0
        if hammered_events > 0 and _count(pairs, pair, now, hammered_seconds) > hammered_events:
            reason = _HAMMERED
        one = _mixed(user, np.uint64(0))
        if burst_events > 0 and _count(by_user, one, now, burst_seconds) > burst_events:
            reason = _BURST
        if duplicate_seconds > 0:
            act = _mixed(pair, np.uint64(types[b]))
            since = now - _last(acts, act, now, duplicate_seconds)
            if since <= duplicate_seconds:
                reason = _DUPLICATE
        if reasons[b] == 0:
            reasons[b] = reason


@njit(cache=True, nogil=True)
def _count(
    table: tuple[_Keys, Doubles, Doubles], key: np.uint64, now: float, window: float
) -> float:
    """Counts one event more; returns the decayed count with it."""
    _, counts, times = table
    place = _place(table, key, now, window)
    level: float = counts[place] * exp((times[place] - now) / window) + 1.0
    counts[place], times[place] = level, now
    return level


@njit(cache=True, nogil=True)
def _last(
    table: tuple[_Keys, Doubles, Doubles], key: np.uint64, now: float, window: float
) -> float:
    """When the key was last here, -inf where that isn't known; it is here now."""
    _, counts, times = table
    place = _place(table, key, now, window)
    before: float = times[place] if counts[place] > 0 else -np.inf
    counts[place], times[place] = 1.0, now
    return before


@njit(cache=True, nogil=True)
def _place(table: tuple[_Keys, Doubles, Doubles], key: np.uint64, now: float, window: float) -> int:
    """Where the key is, or from now on is: in the place of the quietest, with a count of 0."""
    keys, counts, times = table
    # By way of int64: numba makes a float of an unsigned and a signed integer.
    first = int(np.int64(key % np.uint64(len(keys) // _WAYS))) * _WAYS
    quietest, least = first, np.inf
    for place in range(first, first + _WAYS):
        if keys[place] == key and counts[place] > 0:
            return place
    for place in range(first, first + _WAYS):
        if counts[place] == 0 or now - times[place] > _LAPSED * window:
            quietest = place
            break
        left = counts[place] * exp((times[place] - now) / window)
        if left < least:
            quietest, least = place, left
    keys[quietest], counts[quietest] = key, 0.0
    return quietest


@njit(cache=True, nogil=True)
def _mixed(one: np.uint64, other: np.uint64) -> np.uint64:
    """64 bits of two numbers, by the finalizer of splitmix64 (Steele et al., OOPSLA 2014)."""
    z = one * np.uint64(0x9E3779B97F4A7C15) + other + np.uint64(0x632BE59BD9B4E019)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
