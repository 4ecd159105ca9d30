"""Stage 2, preprocess: records of the log become arrays; no string goes past here.

Ids get rows, events get their training weight and polarity, and every event is
set beside the exact history that its user had just before it. Both roles run
this same fold, so trainer and server agree on every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
from numba import njit

from headwater.config import DAY, Config
from headwater.log.chunks import Chunk, Entries, bounds, chunk
from headwater.preprocess._activity import Activity
from headwater.preprocess._admission import Admission
from headwater.preprocess._catalogue import Catalogue, Profiles
from headwater.preprocess._cleaning import Cleaning
from headwater.preprocess._columns import columns
from headwater.preprocess._histories import Histories
from headwater.preprocess._order import Groups, Moves, interleaved
from headwater.preprocess._parts import joined, taken
from headwater.preprocess._tokens import CATEGORY, tokens_of
from headwater.preprocess._vocabulary import Vocabulary
from headwater.types import (
    NO_ROW,
    Batch,
    CatalogueChanges,
    Contexts,
    Gone,
    Ints,
    Item,
    ItemRemoval,
    Longs,
    Record,
    Request,
    State,
    User,
    UserRemoval,
)

__all__ = [
    "CATEGORY",
    "Catalogue",
    "Histories",
    "Named",
    "Preprocessor",
    "Profiles",
    "Vocabulary",
    "joined",
    "taken",
]

_UNKNOWN_TYPE = 0


@dataclass(slots=True)
class _Said:
    """What the entries of a batch say that are no events."""

    described: list[int] = field(default_factory=list)  # item rows
    tokens: list[list[str]] = field(default_factory=list)  # of each of them
    token_rows: Ints = field(default_factory=lambda: np.zeros(0, np.int32))  # of all, end to end
    removed: list[int] = field(default_factory=list)  # item rows
    hidden: list[tuple[int, int]] = field(default_factory=list)  # events before it, user
    users: list[tuple[int, int, float]] = field(default_factory=list)  # row, offset, time
    items: list[tuple[int, int, float]] = field(default_factory=list)


class Named(NamedTuple):
    """Entries whose ids have their rows.

    Args:
        read: the entries.
        users: (E,) rows of their events.
        items: (E,) likewise.
        said: what the others say.
        n_users: rows that there were behind them.
        n_items: likewise.
    """

    read: Chunk
    users: Ints
    items: Ints
    said: _Said
    n_users: int
    n_items: int


class Preprocessor:
    """The fold from records to batches.

    Args:
        config: event types, history length, session gap, repeats.
        grouped: one user's events of equal timestamp are one group (a basket): each is
            set beside the history before the group, and the rows of one item in it are
            one target. For the protocol's ``--ties grouped``; a running group isn't part
            of the state.
    """

    def __init__(self, config: Config, *, grouped: bool = False) -> None:
        types = config.event_types
        self.type_names = ("", *types)
        self._codes = {name: code for code, name in enumerate(self.type_names)}
        weights = [0.0, *(kind.weight for kind in types.values())]
        polarities = [0, *(kind.polarity for kind in types.values())]
        repeats = [True, *(kind.repeats for kind in types.values())]
        if config.recommend.repeats is not None:
            repeats = [config.recommend.repeats] * len(repeats)
        self._weights = np.array(weights, np.float32)
        self._polarities = np.array(polarities, np.int8)
        self._consumes = np.array([not again for again in repeats], np.bool_)
        self.users = Vocabulary()
        self.items = Vocabulary()
        self.tokens = Vocabulary()
        self._tokens_per_item = config.content.tokens
        self.catalogue = Catalogue()
        self.profiles = Profiles()
        settings = config.preprocess
        self.histories = Histories(
            settings.history_length, settings.session_gap_minutes * 60.0, settings.consumed_per_user
        )
        self.cleaning = Cleaning(config.preprocess.cleaning)
        self._sweep_every = settings.sweep_events
        self._admitted_users = Admission(self.users, settings.admit_users_after)
        self._admitted_items = Admission(self.items, settings.admit_items_after)
        self._active_users = Activity(settings.max_users, _seconds(settings.user_idle_days))
        self._active_items = Activity(settings.max_items, _seconds(settings.item_idle_days))
        self.expired = {"users": 0, "items": 0}
        self.item_events = np.zeros(0, np.int64)  # per item row, events that named it so far
        self.total_events = 0
        self._groups = Groups() if grouped else None

    @property
    def consuming_types(self) -> np.ndarray:
        """(types,) per type code, whether such an event uses its item up."""
        return self._consumes

    def batch(self, entries: Entries) -> tuple[Batch, CatalogueChanges]:
        """One micro-batch, and what was said of items in it.

        Every event is folded into the histories; the contexts hold what was before it.
        """
        return self.arrange(self.name(entries))

    def name(self, entries: Entries) -> Named:
        """The half of ``batch`` that looks at ids and the catalogue; ``arrange`` is the other.

        What comes next may be named before this is arranged, but not before a sweep behind it.
        """
        said = _Said()
        read = chunk(entries)
        users, items = self._rows(read, said)
        return Named(read, users, items, said, len(self.users), len(self.items))

    def arrange(self, named: Named) -> tuple[Batch, CatalogueChanges]:
        """The half of ``batch`` that knows rows alone; what was named before is arranged."""
        read, users, items, said, n_users, n_items = named
        of = columns(read, self._codes)
        codes, times = of.types, of.times
        _note(self._active_users, users, of.offsets, times, said.users)
        _note(self._active_items, items, of.offsets, times, said.items)
        self.histories.grow(n_users)
        polarities = self._polarities[codes]
        targets = (items != NO_ROW) & (polarities > 0)
        weights = self._weights[codes]
        cleaned = self.cleaning.find(of, users, items, weights)
        weights[cleaned] = 0
        remembered = (users != NO_ROW) & (items != NO_ROW) & (polarities != 0)
        moves = Moves(
            users=users,
            items=items,
            types=codes,
            times=times,
            sessions=of.sessions,
            cleaned=cleaned,
            remembered=remembered,
            consumes=self._consumes[codes] & remembered,
            clearings=said.hidden,
        )
        steps = self._groups.order(moves, targets) if self._groups else interleaved(moves)
        contexts = self.histories.walk(steps)
        batch = Batch(
            offsets=of.offsets,
            items=items,
            types=codes,
            weights=weights,
            polarities=polarities,
            targets=targets,
            item_events_before=self._count(items, n_items),
            contexts=contexts,
            end=int(read.offsets[-1]) if len(read) else 0,
        )
        described = np.array(said.described, np.int32)
        removed = np.array(said.removed, np.int32)
        return batch, CatalogueChanges(described, _padded(said), removed)

    def sweep(self, entries: Entries) -> Gone | None:
        """Expires ids, where the entries pass a multiple of ``sweep_events`` in the log.

        Idle ids go, and beyond the maximum those that were named least recently; what the
        catalogue lists, holds back or was told of a user goes for want of room only. Rows
        are given to new ids from then on, so nothing may be left of them anywhere.

        Args:
            entries: the batch that was folded last.

        Returns:
            The rows; ``None`` where no sweep is due.
        """
        if not self.sweeps_behind(entries):
            return None
        _, _, now = bounds(entries)
        items = self._active_items.expired(self.items.in_use(), self.catalogue.known, now)
        users = self._active_users.expired(self.users.in_use(), self.profiles.listed, now)
        self.expired["users"] += len(users)
        self.expired["items"] += len(items)
        return self._let_go(items, users)

    def sweeps_behind(self, entries: Entries) -> bool:
        """Whether a sweep is due behind these entries."""
        if not len(entries):
            return False
        first, last, _ = bounds(entries)
        return (first - 1) // self._sweep_every != last // self._sweep_every

    def erase(self, user_id: str) -> Gone:
        """Lets go of a user, as if it had expired; of nobody where it isn't known."""
        rows = np.array(self.users.known([user_id]), np.int32)
        return self._let_go(np.zeros(0, np.int32), rows)

    def contexts(self, requests: Sequence[Request], now: float) -> Contexts:
        """What is known of each request; reads only, so an unknown user stays unknown."""
        users = self.users.find_rows([request.user_id for request in requests])
        contexts = self.histories.read(users, now)
        n = len(requests)
        if not any(request.session_items or request.exclude for request in requests):
            return contexts
        excluded = [
            contexts.excluded[contexts.excluded_starts[b] : contexts.excluded_starts[b + 1]]
            for b in range(n)
        ]
        view = self._codes.get("view", _UNKNOWN_TYPE)
        for b, request in enumerate(requests):
            if request.session_items:
                rows = self.items.known(request.session_items)
                self._append_session(contexts, b, rows, view, now)
                if self._consumes[view]:
                    excluded[b] = np.concatenate([excluded[b], np.array(rows, np.int32)])
            if request.exclude:
                rows = self.items.known(request.exclude)
                excluded[b] = np.concatenate([excluded[b], np.array(rows, np.int32)])
        contexts.excluded = np.concatenate([*excluded, np.zeros(0, np.int32)])
        contexts.excluded_starts = np.cumsum([0, *map(len, excluded)]).astype(np.int64)
        return contexts

    def active(self, n: int, now: float) -> Contexts:
        """The n users with the newest events, newest first, as they are at ``now``."""
        return self.histories.read(self.histories.newest(n), now)

    def item(self, item_id: str) -> Item | None:
        """The item as the catalogue has it."""
        return self.catalogue.get(self.items.find(item_id))

    def dimensions(self) -> dict[str, int]:
        """The dimension of the vectors of each name that an item of the catalogue has."""
        return self.catalogue.dimensions()

    def user(self, user_id: str) -> User | None:
        """The user as it was last set; ``None`` for one that only events name."""
        return self.profiles.get(self.users.find(user_id))

    def listed_items(self, after: int, n: int) -> tuple[list[Item], int | None]:
        """At most ``n`` items of the catalogue behind row ``after``, in order of first sighting.

        Returns:
            The items, and the row to go on behind; ``None`` at the end. A page may be short.
        """
        found, row = self.catalogue.page(after, n, len(self.items))
        return found, row if row + 1 < len(self.items) else None

    def listed_users(self, after: int, n: int) -> tuple[list[User], int | None]:
        """Likewise of users that were set."""
        found, row = self.profiles.page(after, n, len(self.users))
        return found, row if row + 1 < len(self.users) else None

    def state(self) -> State:
        state = {
            f"{name}.{key}": value
            for name, part in self._parts().items()
            for key, value in part.state().items()
        }
        state["item_events"] = self.item_events[: len(self.items)]
        state["total_events"] = np.array(self.total_events, np.int64)
        state["expired"] = np.array([*self.expired.values()], np.int64)
        return state

    def load(self, state: State) -> None:
        for name, part in self._parts().items():
            start = len(name) + 1
            part.load({key[start:]: v for key, v in state.items() if key.startswith(name + ".")})
        self.item_events = state["item_events"].copy()
        self.total_events = int(state["total_events"])
        self.expired = dict(zip(self.expired, state["expired"].tolist(), strict=True))

    def _parts(
        self,
    ) -> dict[str, Vocabulary | Catalogue | Profiles | Histories | Cleaning | Admission | Activity]:
        return {
            "users": self.users,
            "items": self.items,
            "tokens": self.tokens,
            "catalogue": self.catalogue,
            "profiles": self.profiles,
            "histories": self.histories,
            "cleaning": self.cleaning,
            "admitted_users": self._admitted_users,
            "admitted_items": self._admitted_items,
            "active_users": self._active_users,
            "active_items": self._active_items,
        }

    def _rows(self, read: Chunk, said: _Said) -> tuple[Ints, Ints]:
        """Users and items of the events; notes in ``said`` what the other entries say.

        Rows are given in log order, or they would depend on where batches end.
        """
        if not read.others:
            return self._admitted_users.rows(read.users), self._admitted_items.rows(read.items)
        users, items, done = [], [], 0
        for record, before in zip(read.others, read.events_before().tolist(), strict=True):
            if before > done:
                users.append(self._admitted_users.rows(read.users[done:before]))
                items.append(self._admitted_items.rows(read.items[done:before]))
                done = before
            self._note_entry(record, before, said)
        users.append(self._admitted_users.rows(read.users[done:]))
        items.append(self._admitted_items.rows(read.items[done:]))
        said.token_rows = self.tokens.rows(list(chain.from_iterable(said.tokens)))
        return np.concatenate(users), np.concatenate(items)

    def _note_entry(self, record: Record, before: int, said: _Said) -> None:
        """Takes in what is no event, and stands behind so many of the batch's events."""
        entry = record.entry
        if isinstance(entry, Item):
            row = self.items.row(entry.item_id)
            item = self.catalogue.fitted(entry)
            self.catalogue.put(row, item)
            said.items.append((row, record.offset, record.stream_time))
            said.described.append(row)
            said.tokens.append(tokens_of(item, self._tokens_per_item))
        elif isinstance(entry, ItemRemoval):
            row = self.items.row(entry.item_id)
            self.catalogue.remove(row)
            said.items.append((row, record.offset, record.stream_time))
            said.removed.append(row)
        elif isinstance(entry, User):
            row = self.users.row(entry.user_id)
            self.profiles.put(row, entry)
            said.users.append((row, record.offset, record.stream_time))
        elif isinstance(entry, UserRemoval):
            user = self.users.find(entry.user_id)
            if user != NO_ROW:
                self.profiles.remove(user)
                said.hidden.append((before, user))

    def _let_go(self, items: Ints, users: Ints) -> Gone:
        """Clears rows and takes their ids away."""
        for row in items.tolist():
            self.catalogue.forget(row)
        for row in users.tolist():
            self.profiles.remove(row)
        gone = np.zeros(len(self.items), np.bool_)
        gone[items] = True
        if self._groups:
            self._groups.forget(users, gone)
        self.item_events[items] = 0
        self.histories.forget(users, gone)
        self.items.release(items)
        self.users.release(users)
        return Gone(items, users)

    def _count(self, items: np.ndarray, n_items: int) -> np.ndarray:
        """Counts the items of a batch in order; returns each one's count before its event."""
        if n_items > len(self.item_events):
            grown = np.zeros(max(n_items, len(self.item_events) * 5 // 4), np.int64)
            grown[: len(self.item_events)] = self.item_events
            self.item_events = grown
        before = np.zeros(len(items), np.int64)
        _count_in_order(items, self.item_events, before)
        self.total_events += len(items)
        return before

    def _append_session(
        self, contexts: Contexts, b: int, rows: list[int], code: int, now: float
    ) -> None:
        contexts.history_lengths[b] += len(rows)
        contexts.session_lengths[b] += len(rows)
        rows = rows[-self.histories.length :]
        if not rows:
            return
        n = len(rows)
        for array, values in (
            (contexts.history_items, rows),
            (contexts.history_types, code),
            (contexts.history_times, now),
            (contexts.history_cleaned, False),
        ):
            array[b, :-n] = array[b, n:].copy()
            array[b, -n:] = values


def _note(
    active: Activity,
    rows: Ints,
    offsets: np.ndarray,
    times: np.ndarray,
    said: list[tuple[int, int, float]],
) -> None:
    """What named rows in a batch: its events, and entries that say something of an id."""
    active.note(rows, offsets, times)
    if said:
        of, at, when = zip(*said, strict=True)
        active.note(np.array(of, np.int32), np.array(at), np.array(when))


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY


def _padded(said: _Said) -> Ints:
    """The token rows of each item that is described, padded to one width."""
    lengths = np.array([len(found) for found in said.tokens], np.int64)
    tokens = np.full((len(lengths), int(lengths.max(initial=0))), NO_ROW, np.int32)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = said.token_rows
    return tokens


@njit(cache=True, nogil=True)
def _count_in_order(items: Ints, counts: Longs, before: Longs) -> None:
    for b in range(len(items)):
        if items[b] >= 0:
            before[b] = counts[items[b]]
            counts[items[b]] += 1
