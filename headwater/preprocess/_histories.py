"""What each user did: a window of it as fixed-width rings, and which items are used up.

Python objects per user or per event would cost more than everything else here,
so the state is a few arrays and one numba kernel walks a batch in log order:
it *reads* a user's history just before an event and *pushes* the event after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from headwater.types import NO_ROW, Bytes, Contexts, Doubles, Flags, Floats, Ints, Longs, State

_Array = TypeVar("_Array", bound=NDArray[Any])

# Items, types and gaps of the rings, counts, newest times, counts and hashes of sessions; heads,
# lengths, links and nodes of the chains.
_Kept = tuple[Ints, Bytes, Floats, Ints, Doubles, Ints, Longs, Ints, Ints, Ints, Ints]

# Items, types, times and flags of the histories, their lengths and those of the sessions, where
# exclusions begin, and these.
_Places = tuple[Ints, Bytes, Doubles, Flags, Longs, Ints, Longs, Ints]


@dataclass(slots=True)
class Steps:
    """Reads, pushes and clearings in the order in which they happen; S of them.

    A read fills the next row of the contexts; a push appends to the user's
    history; a clearing leaves the user as one that was never seen. ``users`` may
    be ``NO_ROW`` for reads only.
    """

    reads: Flags  # (S,) True: read, False: push or clear
    users: Ints  # (S,)
    items: Ints  # (S,)
    types: Bytes  # (S,)
    times: Doubles  # (S,)
    sessions: Longs  # (S,) hash of the client's session id, 0 for none
    cleaned: Flags  # (S,) pushes: the event teaches nothing
    consumes: Flags  # (S,) pushes: the item is not to be recommended to the user again
    clears: Flags  # (S,) True: clear


class Histories:
    """Windows of L events per user, and per user a chain of the items that are used up.

    The chain is a linked list in one pool: ``heads[user]`` is its newest node,
    ``links[node]`` the one before. Nodes beyond the newest ``consumed`` of a user are
    never read; ``forget`` takes them, and those of what is forgotten, out of the pool.

    Of an event's time the gap to the user's event before is kept, in half the bytes and to
    7 digits, and the time of the newest event. A gap isn't below 0: its sign says whether the
    event was cleaned.

    Args:
        length: L.
        session_gap: seconds; a longer pause starts a new session.
        consumed: used-up items that count per user, the newest.
    """

    def __init__(self, length: int, session_gap: float, consumed: int) -> None:
        self.length = length
        self.session_gap = session_gap
        self.consumed = consumed
        self._users = 0
        self._items = np.zeros((0, length), np.int32)
        self._types = np.zeros((0, length), np.uint8)
        self._gaps = np.zeros((0, length), np.float32)
        self._counts = np.zeros(0, np.int32)
        self._last_times = np.zeros(0, np.float64)
        self._session_counts = np.zeros(0, np.int32)
        self._session_hashes = np.zeros(0, np.int64)
        self._heads = np.zeros(0, np.int32)
        self._consumed_counts = np.zeros(0, np.int32)
        self._links = np.zeros(0, np.int32)
        self._nodes = np.zeros(0, np.int32)
        self._used = 0

    def grow(self, users: int) -> None:
        """Makes room for ``users`` users."""
        if users > len(self._counts):
            size = max(users, len(self._counts) * 5 // 4, 64)
            self._items = _grown(self._items, size)
            self._types = _grown(self._types, size)
            self._gaps = _grown(self._gaps, size)
            self._counts = _grown(self._counts, size)
            self._last_times = _grown(self._last_times, size)
            self._session_counts = _grown(self._session_counts, size)
            self._session_hashes = _grown(self._session_hashes, size)
            self._heads = _grown(self._heads, size)
            self._consumed_counts = _grown(self._consumed_counts, size)
        # Only now: what nobody has written to takes no memory.
        self._items[self._users : users] = NO_ROW
        self._heads[self._users : users] = NO_ROW
        self._users = max(self._users, users)

    def walk(self, steps: Steps) -> Contexts:
        """Does the steps in order and returns the contexts of the reads."""
        reads = int(np.count_nonzero(steps.reads))
        pushes = len(steps.reads) - reads
        if self._used + pushes > len(self._nodes):
            size = max(self._used + pushes, len(self._nodes) * 5 // 4, 1024)
            self._links = _grown(self._links, size)
            self._nodes = _grown(self._nodes, size)
        contexts = self._empty(
            steps.users[steps.reads], steps.times[steps.reads], self._excluded_limit(steps)
        )
        self._used = _walk(
            steps.reads,
            steps.users,
            steps.items,
            steps.types,
            steps.times,
            steps.sessions,
            steps.cleaned,
            steps.consumes,
            steps.clears,
            self.session_gap,
            self.consumed,
            self._kept(),
            self._used,
            _places(contexts),
        )
        contexts.excluded = contexts.excluded[: contexts.excluded_starts[-1]]
        return contexts

    def read(self, users: Ints, now: float) -> Contexts:
        """The contexts of users (``NO_ROW`` among them) as they are, for requests at ``now``."""
        limit = int(self._consumed_counts[users[users != NO_ROW]].sum())
        contexts = self._empty(users, np.full(len(users), now), limit)
        _read(users, now, self.session_gap, self._kept(), _places(contexts))
        return contexts

    def newest(self, n: int) -> Ints:
        """The n users whose last events are newest, newest first, users of a moment by row."""
        users = np.flatnonzero(self._counts[: self._users])
        if len(users) > n:
            times = self._last_times[users]
            users = users[times >= np.partition(times, -n)[-n]]
        order = np.lexsort((users, -self._last_times[users]))[:n]
        return users[order].astype(np.int32)

    def forget(self, users: Ints, items: Flags) -> None:
        """Clears users, and takes items out of everybody's window and chain.

        Args:
            users: rows that are from now on as if they had never been seen.
            items: (N,) True for the rows of items that go.
        """
        self._items[users] = NO_ROW
        self._types[users] = 0
        self._gaps[users] = 0.0
        self._last_times[users] = 0.0
        for counts in (self._counts, self._session_counts, self._session_hashes):
            counts[users] = 0
        self._heads[users] = NO_ROW
        self._consumed_counts[users] = 0
        if items.any():
            _clear(self._items[: self._users], items)
        counted = int(self._consumed_counts[: self._users].sum())
        if items.any() or self._used > 2 * counted:
            self._used = _compact(
                self._heads[: self._users],
                self._consumed_counts[: self._users],
                self._links,
                self._nodes,
                self._used,
                items,
            )

    def _kept(self) -> _Kept:
        """All that is kept of users, for the kernels."""
        return (
            self._items,
            self._types,
            self._gaps,
            self._counts,
            self._last_times,
            self._session_counts,
            self._session_hashes,
            self._heads,
            self._consumed_counts,
            self._links,
            self._nodes,
        )

    def _empty(self, users: Ints, times: Doubles, excluded: int) -> Contexts:
        """Contexts to be filled, with room for so many exclusions."""
        n = len(users)
        return Contexts(
            users=users,
            times=times,
            history_items=np.full((n, self.length), NO_ROW, np.int32),
            history_types=np.zeros((n, self.length), np.uint8),
            history_times=np.zeros((n, self.length), np.float64),
            history_cleaned=np.zeros((n, self.length), np.bool_),
            history_lengths=np.zeros(n, np.int64),
            session_lengths=np.zeros(n, np.int32),
            excluded_starts=np.zeros(n + 1, np.int64),
            excluded=np.zeros(excluded, np.int32),
        )

    def _excluded_limit(self, steps: Steps) -> int:
        """An upper bound of the exclusions that the reads will list."""
        known = steps.users != NO_ROW
        reads, pushes = steps.reads[known], steps.consumes[known] & ~steps.reads[known]
        if not pushes.any():
            return int(self._consumed_counts[steps.users[known]].sum())
        users, of_step = np.unique(steps.users[known], return_inverse=True)
        limits = self._consumed_counts[users] + np.bincount(of_step[pushes], minlength=len(users))
        return int(limits[of_step[reads]].sum())

    def state(self) -> State:
        users, used = self._users, self._used
        return {
            "items": self._items[:users],
            "types": self._types[:users],
            "gaps": self._gaps[:users],
            "counts": self._counts[:users],
            "last_times": self._last_times[:users],
            "session_counts": self._session_counts[:users],
            "session_hashes": self._session_hashes[:users],
            "heads": self._heads[:users],
            "consumed_counts": self._consumed_counts[:users],
            "links": self._links[:used],
            "nodes": self._nodes[:used],
        }

    def load(self, state: State) -> None:
        self._items, self._types = state["items"].copy(), state["types"].copy()
        self._gaps = state["gaps"].copy()
        self._counts = state["counts"].copy()
        self._last_times = state["last_times"].copy()
        self._session_counts = state["session_counts"].copy()
        self._session_hashes = state["session_hashes"].copy()
        self._heads = state["heads"].copy()
        self._consumed_counts = state["consumed_counts"].copy()
        self._links, self._nodes = state["links"].copy(), state["nodes"].copy()
        self._users, self._used = len(self._counts), len(self._nodes)


def _grown(array: _Array, size: int) -> _Array:
    grown = np.zeros((size, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown  # type: ignore[return-value]


def _places(contexts: Contexts) -> _Places:
    """Where the kernels write what they read."""
    return (
        contexts.history_items,
        contexts.history_types,
        contexts.history_times,
        contexts.history_cleaned,
        contexts.history_lengths,
        contexts.session_lengths,
        contexts.excluded_starts,
        contexts.excluded,
    )


@njit(cache=True, nogil=True)
def _read_one(user: int, is_new: bool, kept: _Kept, row: int, filled: int, places: _Places) -> int:
    """Writes a user's history to a row of contexts, what is used up behind the ``filled`` ones.

    Args:
        is_new: whether a session begins, of which nothing is there yet.

    Returns:
        How many exclusions are listed now.
    """
    items, types, gaps, counts, last_times, session_counts, _, heads, consumed, links, nodes = kept
    out_items, out_types, out_times, out_cleaned, lengths, sessions, starts, excluded = places
    length, count = items.shape[1], counts[user]
    column = length - 1
    place, time = count % length, last_times[user]
    for _ in range(min(count, length)):
        place = (place if place > 0 else length) - 1
        gap = gaps[user, place]
        if items[user, place] >= 0:
            out_items[row, column] = items[user, place]
            out_types[row, column] = types[user, place]
            out_times[row, column] = time
            out_cleaned[row, column] = np.signbit(gap)
            column -= 1
        time -= abs(gap)
    lengths[row] = count
    sessions[row] = 0 if is_new else session_counts[user]
    node = heads[user]
    for _ in range(consumed[user]):
        excluded[filled] = nodes[node]
        filled += 1
        node = links[node]
    starts[row + 1] = filled
    return filled


@njit(cache=True, nogil=True)
def _read(users: Ints, now: float, session_gap: float, kept: _Kept, places: _Places) -> None:
    _, _, _, counts, last_times, _, _, _, _, _, _ = kept
    starts = places[6]
    filled = 0
    for row in range(len(users)):
        user = users[row]
        if user < 0:
            starts[row + 1] = filled
            continue
        is_new = counts[user] == 0 or now - last_times[user] > session_gap
        filled = _read_one(user, is_new, kept, row, filled, places)


@njit(cache=True, nogil=True)
def _walk(
    reads: Flags,
    users: Ints,
    items: Ints,
    types: Bytes,
    times: Doubles,
    sessions: Longs,
    cleaned: Flags,
    consumes: Flags,
    clears: Flags,
    session_gap: float,
    consumed: int,
    kept: _Kept,
    used: int,
    places: _Places,
) -> int:
    ring_items, ring_types, ring_gaps, counts, last_times = kept[:5]
    session_counts, session_hashes, heads, consumed_counts, links, nodes = kept[5:]
    out_starts = places[6]
    length = ring_items.shape[1]
    row = 0
    filled = 0
    for step in range(len(reads)):
        user = users[step]
        if user < 0:
            row += 1
            out_starts[row] = filled
            continue
        if clears[step]:
            node = heads[user]
            while node >= 0:
                nodes[node] = NO_ROW
                node = links[node]
            heads[user] = NO_ROW
            consumed_counts[user] = 0
            ring_items[user] = NO_ROW
            ring_types[user] = 0
            ring_gaps[user] = 0.0
            counts[user] = 0
            last_times[user] = 0.0
            session_counts[user] = 0
            session_hashes[user] = 0
            continue
        count = counts[user]
        fresh = (
            count == 0
            or times[step] - last_times[user] > session_gap
            or (sessions[step] != 0 and sessions[step] != session_hashes[user])
        )
        if reads[step]:
            filled = _read_one(user, fresh, kept, row, filled, places)
            row += 1
        else:
            place = count % length
            ring_items[user, place] = items[step]
            ring_types[user, place] = types[step]
            gap = np.float32(times[step] - last_times[user] if count else 0.0)
            ring_gaps[user, place] = -gap if cleaned[step] else gap
            counts[user] = count + 1
            session_counts[user] = 1 if fresh else session_counts[user] + 1
            session_hashes[user] = sessions[step]
            last_times[user] = times[step]
            if consumes[step]:
                nodes[used] = items[step]
                links[used] = heads[user]
                heads[user] = used
                consumed_counts[user] = min(consumed_counts[user] + 1, consumed)
                used += 1
    return used


@njit(cache=True, nogil=True)
def _clear(ring_items: Ints, gone: Flags) -> None:
    for user in range(ring_items.shape[0]):
        for place in range(ring_items.shape[1]):
            item = ring_items[user, place]
            if item >= 0 and gone[item]:
                ring_items[user, place] = NO_ROW


@njit(cache=True, nogil=True)
def _compact(
    heads: Ints, consumed_counts: Ints, links: Ints, nodes: Ints, used: int, gone: Flags
) -> int:
    """Leaves the nodes that are read and not gone, in their order; returns how many."""
    kept = np.zeros(used, np.bool_)
    for user in range(len(heads)):
        node, newer, n = heads[user], NO_ROW, 0
        heads[user] = NO_ROW
        for _ in range(consumed_counts[user]):
            older = links[node]
            if not gone[nodes[node]]:
                kept[node] = True
                n += 1
                if newer < 0:
                    heads[user] = node
                else:
                    links[newer] = node
                links[node] = NO_ROW
                newer = node
            node = older
        consumed_counts[user] = n
    places = np.cumsum(kept) - 1
    for node in range(used):
        if kept[node]:
            place = places[node]
            nodes[place] = nodes[node]
            links[place] = places[links[node]] if links[node] >= 0 else NO_ROW
    for user in range(len(heads)):
        if heads[user] >= 0:
            heads[user] = places[heads[user]]
    return int(kept.sum())
