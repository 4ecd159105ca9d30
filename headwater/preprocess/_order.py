"""In which order the events of a batch read the histories and enter them.

Every event reads its user's history as it was just before; it enters at once, or where a user's
simultaneous events are one group (a basket), once the group is over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from headwater.preprocess._histories import Steps
from headwater.types import NO_ROW, Bytes, Doubles, Flags, Ints, Longs


@dataclass(slots=True)
class Moves:
    """B events in log order, as far as histories go, and the users cleared between them."""

    users: Ints  # (B,)
    items: Ints  # (B,)
    types: Bytes  # (B,)
    times: Doubles  # (B,)
    sessions: Longs  # (B,) hash of the client's session id, 0 for none
    cleaned: Flags  # (B,)
    remembered: Flags  # (B,) False: the event only reads
    consumes: Flags  # (B,) of those that are remembered, which use their item up
    clearings: list[tuple[int, int]]  # so many of the events before it, user


def interleaved(moves: Moves) -> Steps:
    """A read and a push per event."""
    reads, of = _interleave(moves.remembered)
    steps = Steps(
        reads=reads,
        users=moves.users[of],
        items=moves.items[of],
        types=moves.types[of],
        times=moves.times[of],
        sessions=moves.sessions[of],
        cleaned=moves.cleaned[of],
        consumes=moves.consumes[of],
        clears=np.zeros(len(of), np.bool_),
    )
    places = [before + int(moves.remembered[:before].sum()) for before, _ in moves.clearings]
    return _with_clearings(steps, places, moves)


@njit(cache=True, nogil=True)
def _interleave(remembered: Flags) -> tuple[Flags, Longs]:
    """Of each step whether it reads, and the event that it is of."""
    n = len(remembered)
    reads, of = np.zeros(2 * n, np.bool_), np.empty(2 * n, np.int64)
    filled = 0
    for b in range(n):
        reads[filled] = True
        of[filled] = b
        filled += 1
        if remembered[b]:
            of[filled] = b
            filled += 1
    return reads[:filled], of[:filled]


_Step = tuple[bool, int, int, int, float, int, bool, bool]


class _Group:
    """A running group of one user's simultaneous events."""

    __slots__ = ("pushes", "targets", "time")

    def __init__(self, time: float) -> None:
        self.time = time
        self.pushes: list[_Step] = []
        self.targets: set[int] = set()

    def forget(self, items: Flags) -> None:
        """Takes out what names an item that is flagged."""
        self.pushes = [push for push in self.pushes if not items[push[2]]]
        self.targets = {item for item in self.targets if not items[item]}


class Groups:
    """The running groups of all users; they may go on in the next batch."""

    def __init__(self) -> None:
        self._running: dict[int, _Group] = {}

    def order(self, moves: Moves, targets: Flags) -> Steps:
        """Like ``interleaved``, but a push waits until its group is over.

        Clears ``targets`` of the second and later rows of one item in a group.
        """
        steps: list[_Step] = []
        places: list[int] = []
        waiting = list(moves.clearings)
        for b in range(len(moves.users) + 1):
            while waiting and waiting[0][0] == b:
                # What the group still holds back is a part of the history that goes.
                self._running.pop(waiting.pop(0)[1], None)
                places.append(len(steps))
            if b == len(moves.users):
                break
            user, time = int(moves.users[b]), float(moves.times[b])
            if user == NO_ROW:
                # Whoever it is has no history yet that an event could be grouped in.
                steps.append((True, NO_ROW, NO_ROW, 0, time, 0, False, False))
                continue
            group = self._running.get(user)
            if group is None or group.time != time:
                if group is not None:
                    steps.extend(group.pushes)
                group = self._running[user] = _Group(time)
            item = int(moves.items[b])
            event = (
                user,
                item,
                int(moves.types[b]),
                time,
                int(moves.sessions[b]),
                bool(moves.cleaned[b]),
                bool(moves.consumes[b]),
            )
            steps.append((True, *event))
            if moves.remembered[b]:
                group.pushes.append((False, *event))
            if targets[b]:
                targets[b] = item not in group.targets
                group.targets.add(item)
        columns = list(zip(*steps, strict=True)) if steps else [()] * 8
        ordered = Steps(
            reads=np.array(columns[0], np.bool_),
            users=np.array(columns[1], np.int32),
            items=np.array(columns[2], np.int32),
            types=np.array(columns[3], np.uint8),
            times=np.array(columns[4], np.float64),
            sessions=np.array(columns[5], np.int64),
            cleaned=np.array(columns[6], np.bool_),
            consumes=np.array(columns[7], np.bool_),
            clears=np.zeros(len(steps), np.bool_),
        )
        return _with_clearings(ordered, places, moves)

    def forget(self, users: Ints, items: Flags) -> None:
        """Ends the groups of ``users``, and takes flagged items out of the others."""
        for user in users.tolist():
            self._running.pop(user, None)
        for group in self._running.values():
            group.forget(items)


def _with_clearings(steps: Steps, places: list[int], moves: Moves) -> Steps:
    """The steps, with the user of the k-th clearing cleared before step ``places[k]``."""
    if not places:
        return steps
    users = [user for _, user in moves.clearings]
    return Steps(
        reads=np.insert(steps.reads, places, False),
        users=np.insert(steps.users, places, users),
        items=np.insert(steps.items, places, NO_ROW),
        types=np.insert(steps.types, places, 0),
        times=np.insert(steps.times, places, 0.0),
        sessions=np.insert(steps.sessions, places, 0),
        cleaned=np.insert(steps.cleaned, places, False),
        consumes=np.insert(steps.consumes, places, False),
        clears=np.insert(steps.clears, places, True),
    )
