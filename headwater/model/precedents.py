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
and to the event before it on the same item, so that nothing is ever searched. What is known of an
event stands together, for each step along a chain waits for memory.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.config import Precedents as Settings
from headwater.model._opinion import Scratch, SparseOpinion, emptied
from headwater.types import NO_ROW, Batch, Contexts, Doubles, Floats, Ints, Longs, State

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
        self._keep(0)
        self._newest_of_item = np.full(0, _NONE, np.int64)
        self._events_of_item = np.zeros(0, np.float32)
        self._newest_of_user = np.full(0, _NONE, np.int64)
        self._scratch = Scratch()
        self._likeness = np.zeros(0, np.float32)

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._events_of_item):
            size = max(n_items, len(self._events_of_item) * 5 // 4, 1024)
            self._newest_of_item = _grown(self._newest_of_item, size, _NONE)
            self._events_of_item = _grown(self._events_of_item, size, 0)
            self._scratch = Scratch(size)
        self.n_items = max(self.n_items, n_items)

    def learn(self, batch: Batch) -> None:
        """Appends the wanted events of a batch, in order."""
        wanted = batch.wanted & (batch.contexts.users != NO_ROW)
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
        settings, scratch = self.settings, self._scratch
        found = _weigh(
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
            scratch.totals,
            scratch.parts,
            scratch.most,
            scratch.sources,
            scratch.touched,
        )
        return SparseOpinion(contexts, *found, scratch)

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
        if not len(known):
            return
        self._user[np.isin(self._user, known)] = NO_ROW
        self._newest_of_user[known] = _NONE

    def state(self) -> State:
        kept = min(int(self._counted[0]), len(self._item))
        return {
            "counted": self._counted,
            "item": self._item[:kept].copy(),
            "user": self._user[:kept].copy(),
            "chains": self._chains[:kept].copy(),
            "newest_of_item": self._newest_of_item[: self.n_items],
            "events_of_item": self._events_of_item[: self.n_items],
            "newest_of_user": self._newest_of_user[: self._n_users],
        }

    def load(self, state: State) -> None:
        """Takes the newest events over; the ring may have been of another size."""
        counted, known = int(state["counted"][0]), len(state["item"])
        # Room that was made since is that of events that are lost: chains end there.
        size = min(counted, self.settings.events)
        numbers = np.arange(counted - min(size, known), counted)
        self._keep(size)
        for name in ("item", "user", "chains"):
            getattr(self, "_" + name)[numbers % size] = state[name][numbers % known]
        for name in ("counted", "newest_of_item", "events_of_item", "newest_of_user"):
            setattr(self, "_" + name, state[name].copy())
        n = self.n_items = len(self._newest_of_item)
        self._n_users = len(self._newest_of_user)
        self._scratch = Scratch(n)
        self._likeness = np.zeros(self._n_users, np.float32)

    def _room_for(self, n_users: int, events: int) -> None:
        if n_users > len(self._newest_of_user):
            size = max(n_users, len(self._newest_of_user) * 5 // 4, 1024)
            self._newest_of_user = _grown(self._newest_of_user, size, _NONE)
            self._likeness = np.zeros(size, np.float32)
        self._n_users = max(self._n_users, n_users)
        wanted = min(int(self._counted[0]) + events, self.settings.events)
        if wanted > len(self._item):
            # Not a ring yet: an event's number is its place for as long as the arrays grow.
            size = min(max(wanted, 2 * len(self._item), 1024), self.settings.events)
            self._keep(size, self._item, self._user, self._chains)

    def _keep(self, size: int, *known: np.ndarray) -> None:
        """Makes the ring one of ``size`` events that begins with known items, users and chains."""
        ring = _aligned(size)
        # Views: an event is one row of the ring.
        self._item, self._user = ring[:, 0], ring[:, 1]
        self._chains = ring[:, 2:].view(np.int64)
        columns: tuple[np.ndarray, ...] = (self._item, self._user, self._chains)
        for column, of in zip(columns, known, strict=False):
            column[: len(of)] = of


_WIDTH, _LINE = 8, 16
"""Numbers of 4 bytes that an event takes, and that a cache line holds."""


def _aligned(size: int) -> Ints:
    """(size, _WIDTH) of -1, of which no row lies in two cache lines."""
    room = np.full(size * _WIDTH + _LINE, NO_ROW, np.int32)
    start = -(room.ctypes.data // room.itemsize) % _LINE
    return room[start : start + size * _WIDTH].reshape(size, _WIDTH)


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
def _find(
    user: int,
    history: Ints,
    weights: Doubles,
    occurrences: int,
    counted: Longs,
    ring_user: Ints,
    chains: Longs,
    newest_of_item: Longs,
    likeness: Floats,
    found: Longs,
    n_found: Longs,
) -> None:
    """Lists the places of the precedents of each event, and adds up sim(v) in ``likeness``.

    The chains are followed side by side: each step waits for memory, and so they wait together.

    Args:
        weights: (W,) of each event of the history, the newest first.
        found: (W, occurrences).
        n_found: (W,).
    """
    window, size = len(weights), len(ring_user)
    oldest = counted[0] - size
    # The place of a number that is still in the ring; a division each would take longest of all.
    newer = counted[0] - counted[0] % size
    numbers = np.empty(window, np.int64)
    for d in range(window):
        numbers[d] = newest_of_item[history[len(history) - 1 - d]]
        n_found[d] = 0
    for _ in range(occurrences):
        for d in range(window):
            number = numbers[d]
            if number < 0 or number < oldest:
                continue
            place = number - newer if number >= newer else number - newer + size
            other = ring_user[place]
            if other >= 0 and other != user:
                likeness[other] += np.float32(weights[d])
                found[d, n_found[d]] = place
                n_found[d] += 1
            numbers[d] = chains[place, _SAME_ITEM]


@njit(cache=True, nogil=True)
def _propose(
    weight: float,
    found: Longs,
    reach: int,
    counted: Longs,
    ring_item: Ints,
    ring_user: Ints,
    chains: Longs,
    likeness: Floats,
    totals: Floats,
    touched: Ints,
    walks: Longs,
    shares: Doubles,
) -> int:
    """Adds to ``totals`` what the precedents of one event of the history propose.

    Returns how many items have a total now, listed in ``touched``. All precedents are walked away
    from side by side, as in ``_find``, and no branch depends on what a step reads until all have
    read it: half of the guesses are wrong, and behind a wrong one nothing waits for the memory.
    """
    size = len(ring_item)
    first = max(counted[0] - size, 0)
    newer = counted[0] - counted[0] % size
    items = np.empty(len(found), np.int32)
    n_touched = 0
    for way in (_AFTER, _BEFORE):
        n_walks = len(found)
        for k in range(n_walks):
            share = likeness[ring_user[found[k]]] * weight
            shares[k] = share * (1.0 if way == _AFTER else _BACKWARD)
            walks[k] = found[k]
        for _ in range(reach):
            left = 0
            for k in range(n_walks):
                number = chains[walks[k], way]
                place = number - newer
                walks[left] = place + (size & (place >> 63))  # size where it is below 0
                shares[left] = shares[k]
                left += 1 if number >= first else 0
            n_walks = left
            for k in range(n_walks):
                items[k] = ring_item[walks[k]]
            for k in range(n_walks):
                proposed, gain = items[k], np.float32(shares[k])
                if proposed >= 0 and gain > 0:
                    total = totals[proposed]
                    touched[n_touched] = proposed
                    n_touched += 1 if total == 0 else 0
                    totals[proposed] = total + gain
                shares[k] *= _NEARER
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
    parts: Floats,
    most: Floats,
    of_source: Ints,
    touched: Ints,
) -> tuple[Longs, Ints, Floats, Ints]:
    batch, length = history_items.shape
    starts = np.zeros(batch + 1, np.int64)
    rows, values = np.empty(64 * batch, np.int32), np.empty(64 * batch, np.float32)
    sources = np.empty(64 * batch, np.int32)
    found = np.empty((window, occurrences), np.int64)
    n_found = np.zeros(window, np.int64)
    weights = np.empty(window, np.float64)
    walks, shares = np.empty(occurrences, np.int64), np.empty(occurrences, np.float64)
    filled = 0
    for b in range(batch):
        if not len(ring_item):
            break
        history = history_items[b]
        n = 0
        while n < window and history[length - 1 - n] >= 0:
            weights[n] = _weight(n + 1, events_of_item[history[length - 1 - n]])
            n += 1
        _find(
            users[b],
            history,
            weights[:n],
            occurrences,
            counted,
            ring_user,
            chains,
            newest_of_item,
            likeness,
            found,
            n_found,
        )
        n_touched = 0
        for d in range(n):
            n_parts = _propose(
                weights[d],
                found[d, : n_found[d]],
                reach,
                counted,
                ring_item,
                ring_user,
                chains,
                likeness,
                parts,
                touched[n_touched:],
                walks,
                shares,
            )
            n_before = n_touched
            for t in range(n_before, n_before + n_parts):
                item = touched[t]
                total, part, largest = totals[item], parts[item], most[item]
                touched[n_touched] = item
                n_touched += 1 if total == 0 else 0
                totals[item] = total + part
                most[item] = max(part, largest)
                source = of_source[item]
                of_source[item] = history[length - 1 - d] if part > largest else source
                parts[item] = 0
        for d in range(n):
            for k in range(n_found[d]):
                likeness[ring_user[found[d, k]]] = 0
        rows, values, sources, filled = emptied(
            totals, most, of_source, touched, n_touched, rows, values, sources, filled
        )
        starts[b + 1] = filled
    return starts, rows[:filled], values[:filled], sources[:filled]
