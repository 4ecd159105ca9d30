"""What becomes of impressions, event by event: the kernel over a ring of them.

Every impression has a number, in order; its place in a ring of n is that modulo n.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from headwater.types import NO_ROW, Bytes, Doubles, Flags, Ints, Longs

GONE, WAITING, TAUGHT, IGNORED, BACK = range(5)
"""States of an impression: of no more use; not decided; taught as ignored; to be taught so; to be
taken back. The last two are labels to be taken."""

ENTRY = np.dtype(
    [
        ("user", np.int32),
        ("item", np.int32),
        ("time", np.float64),
        ("list", np.int64),  # hash of the recommendation_id, 0 for none
        ("position", np.int32),  # NO_ROW for none
        ("state", np.uint8),
        ("before", np.int64),  # number of the same user's impression before it, -1 for none
    ]
)

_HOUR = 3600.0


@njit(cache=True, nogil=True)
def fold(
    users: Ints,
    items: Ints,
    times: Doubles,
    wanted: Flags,
    impressions: Flags,
    lists: Longs,
    positions: Ints,
    over_starts: Longs,
    over: Ints,
    hidden: Longs,
    history_items: Ints,
    history_types: Bytes,
    history_times: Doubles,
    history_gaps: Bytes,
    wanted_types: Flags,
    patience: float,
    hourly: int,
    entries: Any,
    kept_items: Ints,
    kept_types: Bytes,
    kept_gaps: Bytes,
    newest: Longs,
    hours: Longs,
    taken_up: Ints,
    added: int,
    ripe: int,
) -> tuple[int, int]:
    """Folds B events; returns ``added`` and ``ripe`` as they are then.

    Args:
        users, items, times, wanted, impressions, lists, positions: (B,) of the events.
        over_starts, over: in CSR form, the items that each event passed over.
        hidden: (H, 2) users that were hidden, each behind the events before it.
        history_items, history_types, history_times, history_gaps: (B, L) before each event.
        wanted_types: (types,) whether an event of that type says wanted.
        patience: seconds after which an impression was ignored.
        hourly: impressions of a user that are taken up in an hour.
        entries, kept_items, kept_types, kept_gaps: the ring, and the history beside each.
        newest, hours, taken_up: per user, number of the newest impression, -1 for none; the
            hour in which the last one was taken up, and how many were in it.
        added: impressions taken up so far.
        ripe: number of the oldest one whose time may not be over.
    """
    n = len(entries)
    hiding = 0
    for b in range(len(users) + 1):
        while hiding < len(hidden) and hidden[hiding, 0] == b:
            user = hidden[hiding, 1]
            if 0 <= user < len(newest):
                for place in _of_user(entries, newest[user], user, added):
                    entries["state"][place] = GONE
                    kept_items[place] = NO_ROW
                newest[user] = -1
            hiding += 1
        if b == len(users):
            break
        user, now = users[b], times[b]
        while ripe < added and entries["time"][ripe % n] + patience < now:
            if entries["state"][ripe % n] == WAITING:
                entries["state"][ripe % n] = IGNORED
            ripe += 1
        if items[b] == NO_ROW or user == NO_ROW:
            continue
        if wanted[b]:
            mine = _of_user(entries, newest[user], user, added)
            _act(entries, mine, items[b], lists[b], positions[b])
        first, last = over_starts[b], over_starts[b + 1]
        for c in range(1 if impressions[b] else last - first if wanted[b] else 0):
            item = items[b] if impressions[b] else over[first + c]
            full = added >= n and entries["state"][added % n] == WAITING
            if full or item == NO_ROW or (wanted[b] and item == items[b]):
                continue
            mine = _of_user(entries, newest[user], user, added)
            if wanted[b] and _pass(entries, mine, item):
                continue
            since = now - patience
            if (
                history_items[b, -1] == NO_ROW
                or _known(entries, mine, item, lists[b])
                or _acted(
                    history_items[b], history_types[b], history_times[b], wanted_types, item, since
                )
            ):
                continue
            hour = int(now // _HOUR)
            if hours[user] != hour:
                hours[user], taken_up[user] = hour, 0
            if taken_up[user] >= hourly:
                continue
            taken_up[user] += 1
            place = added % n
            entries["user"][place] = user
            entries["item"][place] = item
            entries["time"][place] = now
            entries["list"][place] = lists[b]
            entries["position"][place] = positions[b] if impressions[b] else NO_ROW
            entries["state"][place] = WAITING if impressions[b] else IGNORED
            entries["before"][place] = newest[user]
            kept_items[place] = history_items[b]
            kept_types[place] = history_types[b]
            kept_gaps[place] = history_gaps[b]
            newest[user] = added
            added += 1
            ripe = max(ripe, added - n)
    return added, ripe


@njit(cache=True, nogil=True)
def _of_user(entries: Any, newest: int, user: int, added: int) -> Longs:
    """Places of a user's impressions that the ring still holds, newest first."""
    n = len(entries)
    oldest = max(added - n, 0)
    found = 0
    number = newest
    while number >= oldest and entries["user"][number % n] == user:
        found += 1
        number = entries["before"][number % n]
    places = np.empty(found, np.int64)
    number = newest
    for k in range(found):
        places[k] = number % n
        number = entries["before"][number % n]
    return places


@njit(cache=True, nogil=True)
def _act(entries: Any, mine: Longs, item: int, list_: int, position: int) -> None:
    """The user acted on an item, at a position of a list where these are known."""
    for place in mine:
        if entries["item"][place] == item:
            state = entries["state"][place]
            entries["state"][place] = BACK if state in (TAUGHT, BACK) else GONE
            if list_ != 0 and entries["list"][place] == list_ and position == NO_ROW:
                position = entries["position"][place]
    if list_ == 0:
        return
    for place in mine:
        above = NO_ROW < entries["position"][place] < position
        if above and entries["list"][place] == list_ and entries["state"][place] == WAITING:
            entries["state"][place] = IGNORED


@njit(cache=True, nogil=True)
def _pass(entries: Any, mine: Longs, item: int) -> bool:
    """Decides the user's waiting impression of an item that was passed over; False without one."""
    for place in mine:
        if entries["item"][place] == item and entries["state"][place] == WAITING:
            entries["state"][place] = IGNORED
            return True
    return False


@njit(cache=True, nogil=True)
def _known(entries: Any, mine: Longs, item: int, list_: int) -> bool:
    """Whether the item is among the user's impressions: it waits, or it was in the same list."""
    for place in mine:
        if entries["item"][place] == item and (
            entries["state"][place] == WAITING or (list_ != 0 and entries["list"][place] == list_)
        ):
            return True
    return False


@njit(cache=True, nogil=True)
def _acted(
    items: Ints, types: Bytes, times: Doubles, wanted_types: Flags, item: int, since: float
) -> bool:
    """Whether a history says that the item was wanted since then."""
    for column in range(len(items)):
        if items[column] == item and times[column] >= since and wanted_types[types[column]]:
            return True
    return False
