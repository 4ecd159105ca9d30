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
- ``overactive``: a user who makes up much of what is learned within a window.
- ``pushed``: an item by the repeats of a few users.
- ``flooded``: an item that so many of the newest taught events name already, whoever sends it.

All but the first are for *live* events: sent one by one, not read from a file, while
stream time is near the clock. What is imported or replayed may have coarse times,
where a basket is a burst and its equal lines are duplicates. A record says itself
whether it is live, so every fold of a log decides alike.

``burst``, ``hammered`` and ``overactive`` count events with exponential decay,
r <- r * exp(-dt / window) + 1, and hold while r is over the limit: whoever goes on as
fast isn't taught from again until he stops.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.config import DAY, HOUR
from headwater.config import Cleaning as Settings
from headwater.preprocess._columns import Columns
from headwater.preprocess._decayed import DecayedCounts, Table, count, last, mixed
from headwater.preprocess._flood import Flood
from headwater.preprocess._influence import Influence, Kept, events_of, is_pushed
from headwater.types import NO_ROW, Bytes, Doubles, Flags, Floats, Ints, Longs, State

REASONS = (
    "unknown_type",
    "impossible_time",
    "duplicate",
    "burst",
    "hammered",
    "overactive",
    "pushed",
    "flooded",
)

_LIVE = DAY
"""A stream further behind the clock is history that is being sent again."""

(
    _UNKNOWN_TYPE,
    _IMPOSSIBLE_TIME,
    _DUPLICATE,
    _BURST,
    _HAMMERED,
    _OVERACTIVE,
    _PUSHED,
    _FLOODED,
) = range(1, 1 + len(REASONS))


class Cleaning:
    """Finds the events that teach nothing; a pure fold of the events."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found = np.zeros(1 + len(REASONS), np.int64)
        self._acts, self._users, self._pairs = (
            DecayedCounts(settings.remembered) for _ in range(3)
        )
        self._influence = Influence(settings.remembered)
        self._flood = Flood(settings.remembered)

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
            settings.influence_days * DAY,
            settings.influence_events,
            settings.pushed_times,
            self._influence.arrays,
            reasons,
        )
        if settings.flooded_share:
            self._flood.find(np.flatnonzero(live), items, settings.flooded_share, reasons, _FLOODED)
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

    def _tables(self) -> list[tuple[str, DecayedCounts | Influence | Flood]]:
        return [
            ("acts", self._acts),
            ("users", self._users),
            ("pairs", self._pairs),
            ("influence", self._influence),
            ("flood", self._flood),
        ]


@njit(cache=True, nogil=True)
def _find(
    live: Longs,
    users: Ints,
    items: Ints,
    types: Bytes,
    times: Doubles,
    duplicate_seconds: float,
    burst_events: int,
    burst_seconds: float,
    hammered_events: int,
    hammered_seconds: float,
    acts: Table,
    by_user: Table,
    pairs: Table,
    influence_seconds: float,
    influence_events: int,
    pushed_times: float,
    influence: Kept,
    reasons: Bytes,
) -> None:
    for b in live:
        user, item, now = np.uint64(users[b]), np.uint64(items[b]), times[b]
        pair = mixed(user, item)
        reason = 0
        if hammered_events > 0 and count(pairs, pair, now, hammered_seconds) > hammered_events:
            reason = _HAMMERED
        one = mixed(user, np.uint64(0))
        if burst_events > 0 and count(by_user, one, now, burst_seconds) > burst_events:
            reason = _BURST
        if duplicate_seconds > 0:
            act = mixed(pair, np.uint64(types[b]))
            since = now - last(acts, act, now, duplicate_seconds)
            if since <= duplicate_seconds:
                reason = _DUPLICATE
        if reasons[b] == 0:
            reasons[b] = reason
        events = events_of(influence, user, now, influence_seconds)
        if influence_events > 0 and events > influence_events and reasons[b] == 0:
            reasons[b] = _OVERACTIVE
        if pushed_times > 0 and is_pushed(
            influence, user, item, now, influence_seconds, pushed_times, reasons[b] == 0
        ):
            reasons[b] = _PUSHED
