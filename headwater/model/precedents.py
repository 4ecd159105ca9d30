"""The precedents expert: who else was in this place, and what did they do around it?

Nearest neighbours among other people's recent events, sequence and time aware (STAN, Garg et
al., SIGIR 2019; session kNN, Jannach and Ludewig, RecSys 2017), made online. An event x of
somebody else on the item that the user had d events ago is a *precedent* of weight

    w(x) = a ** (d - 1) / (n_x + 1) ** r

with n_x the events of its item so far. Its person v resembles the user by
sim(v) = sum of w over the precedents that are v's, and what v did p events after it is
proposed with sim(v) * w(x) * b ** (p - 1), what v did p events before it with c times that:

    s(i) = sum_x sim(v_x) * w(x) * (sum_p b ** (p - 1) [after] + c * sum_p b ** (p - 1) [before])

Associations count pairs one by one; a precedent asks for the same person behind several of
them, and so foretells longer stretches: a list that many go through, a session that others had.

The newest events are a ring. Each is chained to the same person's events before and after it,
and to the event before it on the same item, so that nothing is ever searched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from headwater.config import Precedents as Settings
from headwater.model._opinion import SparseOpinion, emptied
from headwater.types import NO_ROW, Batch, Contexts, Floats, Ints, Longs, State

_NEWER = 0.75
"""a: an event of the history weighs so much of the one after it."""
_NEARER = 0.8
"""b: an event weighs so much of the one that is a step nearer to the precedent."""
_BACKWARD = 0.7
"""c: what came before a precedent, against what came after it."""
_RARITY = 0.25
"""r: sharing a rare item says more."""

_NONE = -1
"""The number of no event."""


class Precedents:
    """The newest events of everybody, chained by person and by item; a pure fold of the events.

    Args:
        settings: events kept, window, occurrences, reach.
    """

    name = "precedents"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.n_items = 0
        self._n_users = 0
        self._counted = np.zeros(1, np.int64)  # events so far: the number of the next one
        self._item = np.full(0, NO_ROW, np.int32)
        self._user = np.full(0, NO_ROW, np.int32)
        self._chains = np.full((0, 3), _NONE, np.int64)
        self._newest_of_item = np.full(0, _NONE, np.int64)
        self._events_of_item = np.zeros(0, np.float32)
        self._newest_of_user = np.full(0, _NONE, np.int64)
        # Scratch of a walk, kept because a request must not cost more as users and items do.
        self._totals = np.zeros(0, np.float32)
        self._touched = np.zeros(0, np.int32)
        self._likeness = np.zeros(0, np.float32)

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._events_of_item):
            size = max(n_items, 2 * len(self._events_of_item), 1024)
            self._newest_of_item = _grown(self._newest_of_item, size, _NONE)
            self._events_of_item = _grown(self._events_of_item, size, 0)
            self._totals = np.zeros(size, np.float32)
            self._touched = np.zeros(size, np.int32)
        self.n_items = max(self.n_items, n_items)

    def learn(self, batch: Batch) -> None:
        """Appends the wanted events of a batch, in order."""
        wanted = (batch.items != NO_ROW) & (batch.polarities > 0) & (batch.weights > 0)
        wanted &= batch.contexts.users != NO_ROW
        users = batch.contexts.users[wanted]
        self._room_for(int(users.max(initial=-1)) + 1, int(wanted.sum()))
        _append(
            batch.items[wanted],
            users,
            self._counted,
            self._item,
            self._user,
            self._chains,
            self._newest_of_item,
            self._events_of_item,
            self._newest_of_user,
        )

    def weigh(self, contexts: Contexts) -> SparseOpinion:
        """The scores s(i) of every item that some precedent proposes."""
        return SparseOpinion(contexts, *_weigh(*self._asked(contexts)))

    def sources(self, contexts: Contexts, rows: Ints) -> Ints:
        """(B, C) for each candidate, the history item whose precedents it comes from most;
        ``NO_ROW`` where none of them leads to it.
        """
        out = np.full(rows.shape, NO_ROW, np.int32)
        _source(rows, out, *self._asked(contexts))
        return out

    def forget(self, rows: Ints) -> None:
        """Clears the events of items, and what they led to."""
        if not len(rows):
            return
        self._item[np.isin(self._item, rows)] = NO_ROW
        self._newest_of_item[rows] = _NONE
        self._events_of_item[rows] = 0

    def forget_users(self, users: Ints) -> None:
        """Makes users' events nobody's: no precedents, and not the past of who has the row next."""
        known = users[users < self._n_users]
        self._user[np.isin(self._user, known)] = NO_ROW
        self._newest_of_user[known] = _NONE

    def state(self) -> State:
        kept = min(int(self._counted[0]), len(self._item))
        return {
            "counted": self._counted,
            "item": self._item[:kept],
            "user": self._user[:kept],
            "chains": self._chains[:kept],
            "newest_of_item": self._newest_of_item[: self.n_items],
            "events_of_item": self._events_of_item[: self.n_items],
            "newest_of_user": self._newest_of_user[: self._n_users],
        }

    def load(self, state: State) -> None:
        for name, value in state.items():
            setattr(self, "_" + name, value.copy())
        n = self.n_items = len(self._newest_of_item)
        self._n_users = len(self._newest_of_user)
        self._totals = np.zeros(n, np.float32)
        self._touched = np.zeros(n, np.int32)
        self._likeness = np.zeros(self._n_users, np.float32)

    def _room_for(self, n_users: int, events: int) -> None:
        if n_users > len(self._newest_of_user):
            size = max(n_users, 2 * len(self._newest_of_user), 1024)
            self._newest_of_user = _grown(self._newest_of_user, size, _NONE)
            self._likeness = np.zeros(size, np.float32)
        self._n_users = max(self._n_users, n_users)
        wanted = min(int(self._counted[0]) + events, self.settings.events)
        if wanted > len(self._item):
            # Not a ring yet: an event's number is its place for as long as the arrays grow.
            size = min(max(wanted, 2 * len(self._item), 1024), self.settings.events)
            self._item = _grown(self._item, size, NO_ROW)
            self._user = _grown(self._user, size, NO_ROW)
            self._chains = _grown(self._chains, size, _NONE)

    def _asked(self, contexts: Contexts) -> Any:
        """What every kernel is given, in the order of its first arguments."""
        settings = self.settings
        return (
            contexts.users,
            contexts.history_items,
            min(settings.window, contexts.history_items.shape[1]),
            settings.occurrences,
            settings.reach,
            self._counted,
            self._item,
            self._user,
            self._chains,
            self._newest_of_item,
            self._events_of_item,
            self._likeness,
            self._totals,
            self._touched,
        )


def _grown(array: np.ndarray, size: int, fill: int) -> np.ndarray:
    grown = np.full((size, *array.shape[1:]), fill, array.dtype)
    grown[: len(array)] = array
    return grown


# Columns of the chains: the numbers of the events next to an event, by person and by item.
_AFTER, _BEFORE, _SAME_ITEM = 0, 1, 2


@njit(cache=True, nogil=True)
def _append(
    items: Ints,
    users: Ints,
    counted: Longs,
    ring_item: Ints,
    ring_user: Ints,
    chains: Longs,
    newest_of_item: Longs,
    events_of_item: Floats,
    newest_of_user: Longs,
) -> None:
    size = len(ring_item)
    for b in range(len(items)):
        item, user, number = items[b], users[b], counted[0]
        place = number % size
        last = newest_of_user[user]
        ring_item[place] = item
        ring_user[place] = user
        chains[place, _AFTER] = _NONE
        chains[place, _BEFORE] = last
        chains[place, _SAME_ITEM] = newest_of_item[item]
        if last > number - size:
            chains[last % size, _AFTER] = number
        newest_of_user[user] = number
        newest_of_item[item] = number
        events_of_item[item] += 1
        counted[0] = number + 1


@njit(cache=True, nogil=True)
def _weight(distance: int, events: float) -> float:
    weight: float = _NEWER ** (distance - 1) / (events + 1.0) ** _RARITY
    return weight


@njit(cache=True, nogil=True)
def _liken(
    user: int,
    history: Ints,
    window: int,
    occurrences: int,
    counted: Longs,
    ring_user: Ints,
    chains: Longs,
    newest_of_item: Longs,
    events_of_item: Floats,
    likeness: Floats,
    clear: bool,
) -> None:
    """Adds up sim(v) in ``likeness``, or clears what an earlier call added."""
    length, size = len(history), len(ring_user)
    oldest = counted[0] - size
    for distance in range(1, window + 1):
        item = history[length - distance]
        if item < 0:
            break
        weight = np.float32(_weight(distance, events_of_item[item]))
        number = newest_of_item[item]
        for _ in range(occurrences):
            if number < 0 or number < oldest:
                break
            other = ring_user[number % size]
            if other >= 0 and other != user:
                likeness[other] = 0 if clear else likeness[other] + weight
            number = chains[number % size, _SAME_ITEM]


@njit(cache=True, nogil=True)
def _propose(
    distance: int,
    user: int,
    history: Ints,
    occurrences: int,
    reach: int,
    counted: Longs,
    ring_item: Ints,
    ring_user: Ints,
    chains: Longs,
    newest_of_item: Longs,
    events_of_item: Floats,
    likeness: Floats,
    totals: Floats,
    touched: Ints,
    n_touched: int,
) -> int:
    """Adds to ``totals`` what the precedents of one event of the history propose.

    Returns how many items have a total now, listed in ``touched``.
    """
    size = len(ring_item)
    oldest = counted[0] - size
    item = history[len(history) - distance]
    weight = _weight(distance, events_of_item[item])
    number = newest_of_item[item]
    for _ in range(occurrences):
        if number < 0 or number < oldest:
            break
        place = number % size
        other = ring_user[place]
        if other >= 0 and other != user:
            for way in (_AFTER, _BEFORE):
                share = likeness[other] * weight * (1.0 if way == _AFTER else _BACKWARD)
                neighbour = chains[place, way]
                for _ in range(reach):
                    if neighbour < 0 or neighbour < oldest:
                        break
                    proposed = ring_item[neighbour % size]
                    gain = np.float32(share)
                    if proposed >= 0 and gain > 0:
                        if totals[proposed] == 0:
                            touched[n_touched] = proposed
                            n_touched += 1
                        totals[proposed] += gain
                    share *= _NEARER
                    neighbour = chains[neighbour % size, way]
        number = chains[place, _SAME_ITEM]
    return n_touched


@njit(cache=True, nogil=True)
def _weigh(
    users: Ints,
    history_items: Ints,
    window: int,
    occurrences: int,
    reach: int,
    counted: Longs,
    ring_item: Ints,
    ring_user: Ints,
    chains: Longs,
    newest_of_item: Longs,
    events_of_item: Floats,
    likeness: Floats,
    totals: Floats,
    touched: Ints,
) -> tuple[Longs, Ints, Floats]:
    batch, length = history_items.shape
    starts = np.zeros(batch + 1, np.int64)
    rows, values = np.empty(64 * batch, np.int32), np.empty(64 * batch, np.float32)
    filled = 0
    for b in range(batch):
        if not len(ring_item):
            break
        _liken(
            users[b],
            history_items[b],
            window,
            occurrences,
            counted,
            ring_user,
            chains,
            newest_of_item,
            events_of_item,
            likeness,
            False,
        )
        n_touched = 0
        for distance in range(1, window + 1):
            if history_items[b, length - distance] < 0:
                break
            n_touched = _propose(
                distance,
                users[b],
                history_items[b],
                occurrences,
                reach,
                counted,
                ring_item,
                ring_user,
                chains,
                newest_of_item,
                events_of_item,
                likeness,
                totals,
                touched,
                n_touched,
            )
        _liken(
            users[b],
            history_items[b],
            window,
            occurrences,
            counted,
            ring_user,
            chains,
            newest_of_item,
            events_of_item,
            likeness,
            True,
        )
        rows, values, filled = emptied(totals, touched, n_touched, rows, values, filled)
        starts[b + 1] = filled
    return starts, rows[:filled], values[:filled]


@njit(cache=True, nogil=True)
def _source(
    rows: Ints,
    out: Ints,
    users: Ints,
    history_items: Ints,
    window: int,
    occurrences: int,
    reach: int,
    counted: Longs,
    ring_item: Ints,
    ring_user: Ints,
    chains: Longs,
    newest_of_item: Longs,
    events_of_item: Floats,
    likeness: Floats,
    totals: Floats,
    touched: Ints,
) -> None:
    batch, length = history_items.shape
    most = np.zeros(rows.shape[1], np.float32)
    for b in range(batch):
        if not len(ring_item):
            break
        most[:] = 0
        _liken(
            users[b],
            history_items[b],
            window,
            occurrences,
            counted,
            ring_user,
            chains,
            newest_of_item,
            events_of_item,
            likeness,
            False,
        )
        for distance in range(1, window + 1):
            if history_items[b, length - distance] < 0:
                break
            n_touched = _propose(
                distance,
                users[b],
                history_items[b],
                occurrences,
                reach,
                counted,
                ring_item,
                ring_user,
                chains,
                newest_of_item,
                events_of_item,
                likeness,
                totals,
                touched,
                0,
            )
            for c in range(rows.shape[1]):
                if rows[b, c] >= 0 and totals[rows[b, c]] > most[c]:
                    most[c] = totals[rows[b, c]]
                    out[b, c] = history_items[b, length - distance]
            for t in range(n_touched):
                totals[touched[t]] = 0
        _liken(
            users[b],
            history_items[b],
            window,
            occurrences,
            counted,
            ring_user,
            chains,
            newest_of_item,
            events_of_item,
            likeness,
            True,
        )
