"""Which impressions were ignored: a fold of the events log, bounded, in stream time.

An impression waits. Where its user acts on the item in time, it was no negative.
It was ignored where the user acted on something further down the same list instead
(what stands above a click has been seen: "click > skip above", Joachims et al.,
SIGIR 2005), or where nothing came for long enough. A client that sends no
impressions has those above a click from the event itself, where the server noted
them. Acting on the item later still takes the label back.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headwater.config import MINUTE, Config
from headwater.feedback._fold import ENTRY, GONE, IGNORED, TAUGHT, WAITING, fold
from headwater.types import (
    NO_ROW,
    Batch,
    Event,
    Gone,
    Labels,
    Record,
    State,
    UserRemoval,
)

_IMPRESSION = "impression"

_PER_STEP = 100
"""Labels of one training step at most: as many as a micro-batch has events, so that a step costs
at most half as much again as one of clicks alone with their replays."""

_Entries = NDArray[np.void]


_BACK_WEIGHT = 2.0
"""Of a label that is taken back, against what it weighed. As something wanted it pulls with 1 - p,
and it had pushed with up to 1: twice makes up for it while the item's share p is below a half."""


class Impressions:
    """The newest impressions in a ring, and per user a chain through it.

    Taken up is an impression of a user with a history, of an item that this user hasn't
    acted on within ``feedback.ignore_after_minutes`` before, once while it waits and
    once per list, and so many of a user in an hour. What is in a history stands beside
    the label; so an event of no history teaches nothing.

    Args:
        config: windows, caps, weight.
        type_names: of the type codes.
    """

    def __init__(self, config: Config, type_names: Sequence[str]) -> None:
        settings = config.feedback
        self._weight = settings.negative_weight
        self._patience = settings.ignore_after_minutes * MINUTE
        self._hourly = settings.negatives_per_user
        kinds = config.event_types
        self._wanted = np.array([n in kinds and kinds[n].polarity > 0 for n in type_names])
        self._impression = list(type_names).index(_IMPRESSION)
        length, n = config.preprocess.history_length, settings.impressions
        self._entries: _Entries = np.zeros(n, ENTRY)
        self._entries["user"] = NO_ROW
        self._items = np.full((n, length), NO_ROW, np.int32)
        self._types = np.zeros((n, length), np.uint8)
        self._gaps = np.zeros((n, length), np.uint8)
        self._added = 0  # every impression has a number; its place is that modulo n
        self._ripe = 0  # number of the oldest one whose time may not be over
        self._users = 0
        self._newest = np.zeros(0, np.int64)  # per user row, number of the newest, -1 for none
        self._hours = np.zeros(0, np.int64)
        self._taken_up = np.zeros(0, np.int32)  # of the user in that hour
        self._counts = np.zeros(2, np.int64)  # taught as ignored, taken back
        self._taken = np.zeros(0, np.int64), np.zeros(0, np.uint8)  # places, states before

    def observe(
        self,
        batch: Batch,
        records: Sequence[Record],
        item: Callable[[str], int],
        user: Callable[[str], int],
    ) -> None:
        """Folds the events of a batch, and what users were hidden in between.

        Args:
            batch: B events.
            records: those that it was made from.
            item: the row of an item's id, ``NO_ROW`` for an unknown one.
            user: likewise of a user's.
        """
        if not self._weight:
            return
        events: list[Event] = []
        hidden: list[tuple[int, int]] = []  # (events before it, user)
        for record in records:
            if isinstance(record.entry, Event):
                events.append(record.entry)
            elif isinstance(record.entry, UserRemoval):
                hidden.append((len(events), user(record.entry.user_id)))
        impressions = batch.types == self._impression
        over = [[item(id) for id in event.passed_over] for event in events]
        taking = bool(impressions.any()) or any(over)
        if not (taking or self._added):
            return
        n = len(events)
        contexts = batch.contexts
        self._grow(int(contexts.users.max(initial=NO_ROW)) + 1)
        gaps = np.zeros((n, self._gaps.shape[1]), np.uint8)
        if taking:
            # Here, so that an API that only counts clicks starts without torch.
            from headwater.model import gap_buckets

            gaps = gap_buckets(contexts.history_times, contexts.history_items, contexts.times)
        lists = np.fromiter((_hash(event.recommendation_id) for event in events), np.int64, n)
        positions = np.fromiter(
            (NO_ROW if e.position is None else e.position for e in events), np.int32, n
        )
        self._added, self._ripe = fold(
            contexts.users,
            batch.items,
            contexts.times,
            batch.polarities > 0,
            impressions,
            lists,
            positions,
            np.cumsum([0, *map(len, over)]),
            np.array([row for rows in over for row in rows], np.int32),
            np.array(hidden, np.int64).reshape(len(hidden), 2),
            contexts.history_items,
            contexts.history_types,
            contexts.history_times,
            gaps,
            self._wanted,
            self._patience,
            self._hourly,
            self._entries,
            self._items,
            self._types,
            self._gaps,
            self._newest,
            self._hours,
            self._taken_up,
            self._added,
            self._ripe,
        )

    def take(self) -> Labels:
        """The oldest labels that weren't taken yet, as many as one step may have."""
        n = len(self._entries)
        states = self._entries["state"][: self._added]
        places = np.flatnonzero(states >= IGNORED)
        places = places[np.argsort((places - self._added) % n)][:_PER_STEP]
        ignored = states[places] == IGNORED
        self._taken = places, states[places]
        self._entries["state"][places] = np.where(ignored, TAUGHT, GONE)
        self._counts += (int(ignored.sum()), int((~ignored).sum()))
        return Labels(
            history_items=self._items[places],
            history_types=self._types[places],
            history_gaps=self._gaps[places],
            items=self._entries["item"][places],
            weights=np.where(ignored, -self._weight, _BACK_WEIGHT * self._weight).astype(
                np.float32
            ),
        )

    def put_back(self) -> None:
        """Undoes the newest ``take``: its step was left."""
        places, states = self._taken
        self._entries["state"][places] = states
        ignored = states == IGNORED
        self._counts -= (int(ignored.sum()), int((~ignored).sum()))

    def forget(self, gone: Gone) -> None:
        """Drops every impression of items and users whose rows are gone."""
        if not self._added or not len(gone.items) + len(gone.users):
            return
        of_them = np.isin(self._entries["item"], gone.items)
        of_them |= np.isin(self._entries["user"], gone.users)
        self._entries["state"][of_them] = GONE
        users = gone.users[gone.users < self._users]
        self._newest[users] = -1
        self._hours[users] = self._taken_up[users] = 0

    def figures(self) -> dict[str, int]:
        """Labels taught since the start of the log, and impressions that wait to be decided."""
        waiting = int(np.count_nonzero(self._entries["state"] == WAITING))
        ignored, taken_back = (int(count) for count in self._counts)
        return {"ignored": ignored, "taken_back": taken_back, "waiting": waiting}

    def state(self) -> State:
        n = min(self._added, len(self._entries))
        order = np.arange(self._added - n, self._added) % len(self._entries)
        return {
            **{str(name): self._entries[name][order] for name in ENTRY.fields or ()},
            "history_items": self._items[order],
            "history_types": self._types[order],
            "history_gaps": self._gaps[order],
            "numbers": np.array([self._added, self._ripe], np.int64),
            "newest": self._newest[: self._users],
            "hours": self._hours[: self._users],
            "taken_up": self._taken_up[: self._users],
            "counts": self._counts.copy(),
        }

    def load(self, state: State) -> None:
        """Takes over a state; a ring that was set shorter since keeps the newest of it."""
        if not state:
            return  # From before impressions were remembered.
        self._added, self._ripe = (int(number) for number in state["numbers"])
        n = min(len(state["item"]), len(self._entries))
        places = np.arange(self._added - n, self._added) % len(self._entries)
        start = len(state["item"]) - n
        self._entries["state"] = GONE
        for name in ENTRY.fields or ():
            self._entries[name][places] = state[name][start:]
        self._items[places] = state["history_items"][start:]
        self._types[places] = state["history_types"][start:]
        self._gaps[places] = state["history_gaps"][start:]
        self._users = len(state["newest"])
        self._newest = state["newest"].copy()
        self._hours, self._taken_up = state["hours"].copy(), state["taken_up"].copy()
        self._counts = state["counts"].copy()

    def _grow(self, users: int) -> None:
        self._users = max(self._users, users)
        if users > len(self._newest):
            new = max(users * 5 // 4, 64) - len(self._newest)
            self._newest = np.pad(self._newest, (0, new), constant_values=-1)
            self._hours = np.pad(self._hours, (0, new))
            self._taken_up = np.pad(self._taken_up, (0, new))


def _hash(recommendation_id: str | None) -> int:
    """A stable 32-bit hash, 0 for none: only compared with the lists of the same user."""
    return 0 if recommendation_id is None else zlib.crc32(recommendation_id.encode()) or 1
