"""The fold from records of the log to batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from headwater.config import DAY, Config
from headwater.log.chunks import Entries, bounds
from headwater.packing import part_of
from headwater.preprocess._activity import Activity
from headwater.preprocess._admission import Admission
from headwater.preprocess._catalogue import Catalogue, Profiles
from headwater.preprocess._cleaning import Cleaning
from headwater.preprocess._columns import columns
from headwater.preprocess._histories import Histories
from headwater.preprocess._naming import Named, Naming
from headwater.preprocess._order import Groups, Moves, interleaved
from headwater.preprocess._requests import contexts_of
from headwater.preprocess._vocabulary import Vocabulary
from headwater.types import (
    NO_ROW,
    Batch,
    CatalogueChanges,
    Contexts,
    Gone,
    Ints,
    Item,
    Longs,
    Request,
    State,
    User,
)

_UNKNOWN_TYPE = 0


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
        self._naming = naming = Naming(config)
        self.users, self.items, self.tokens = naming.users, naming.items, naming.tokens
        self.catalogue, self.profiles = naming.catalogue, naming.profiles
        settings = config.preprocess
        self.histories = Histories(
            settings.history_length, settings.session_gap_minutes * 60.0, settings.consumed_per_user
        )
        self.cleaning = Cleaning(config.preprocess.cleaning)
        self._sweep_every = settings.sweep_events
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
        return self._naming.name(entries)

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
        return batch, said.changes()

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
        viewed = self._codes.get("view", _UNKNOWN_TYPE)
        return contexts_of(
            requests,
            now,
            self.users,
            self.items,
            self.histories,
            viewed,
            consumes=bool(self._consumes[viewed]),
        )

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
            part.load(part_of(state, f"{name}."))
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
            "admitted_users": self._naming.admitted_users,
            "admitted_items": self._naming.admitted_items,
            "active_users": self._active_users,
            "active_items": self._active_items,
        }

    def _let_go(self, items: Ints, users: Ints) -> Gone:
        """Clears rows and takes their ids away."""
        gone = np.zeros(len(self.items), np.bool_)
        gone[items] = True
        if self._groups:
            self._groups.forget(users, gone)
        self.item_events[items] = 0
        self.histories.forget(users, gone)
        self._naming.release(items, users)
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


@njit(cache=True, nogil=True)
def _count_in_order(items: Ints, counts: Longs, before: Longs) -> None:
    for b in range(len(items)):
        if items[b] >= 0:
            before[b] = counts[items[b]]
            counts[items[b]] += 1
