"""Ids of entries to rows, and what entries that are no events say of items and users."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np

from headwater.config import Config
from headwater.log.chunks import Chunk, Entries, chunk
from headwater.preprocess._admission import Admission
from headwater.preprocess._catalogue import Catalogue, Profiles
from headwater.preprocess._tokens import tokens_of
from headwater.preprocess._vocabulary import Vocabulary
from headwater.types import (
    NO_ROW,
    CatalogueChanges,
    Ints,
    Item,
    ItemRemoval,
    Record,
    User,
    UserRemoval,
)


@dataclass(slots=True)
class Said:
    """What the entries of a batch say that are no events."""

    described: list[int] = field(default_factory=list)  # item rows
    tokens: list[list[str]] = field(default_factory=list)  # of each of them
    token_rows: Ints = field(default_factory=lambda: np.zeros(0, np.int32))  # of all, end to end
    removed: list[int] = field(default_factory=list)  # item rows
    hidden: list[tuple[int, int]] = field(default_factory=list)  # events before it, user
    users: list[tuple[int, int, float]] = field(default_factory=list)  # row, offset, time
    items: list[tuple[int, int, float]] = field(default_factory=list)

    def changes(self) -> CatalogueChanges:
        """What was said of items."""
        lengths = np.array([len(found) for found in self.tokens], np.int64)
        tokens = np.full((len(lengths), int(lengths.max(initial=0))), NO_ROW, np.int32)
        tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = self.token_rows
        return CatalogueChanges(
            np.array(self.described, np.int32), tokens, np.array(self.removed, np.int32)
        )


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
    said: Said
    n_users: int
    n_items: int


class Naming:
    """Knows every id, and what was set of items and users.

    Args:
        config: how many tokens an item has, and from which sighting on an id gets a row.
    """

    def __init__(self, config: Config) -> None:
        self.users = Vocabulary()
        self.items = Vocabulary()
        self.tokens = Vocabulary()
        self.catalogue = Catalogue()
        self.profiles = Profiles()
        self.admitted_users = Admission(self.users, config.preprocess.admit_users_after)
        self.admitted_items = Admission(self.items, config.preprocess.admit_items_after)
        self._tokens_per_item = config.content.tokens

    def name(self, entries: Entries) -> Named:
        """Gives rows to ids, in log order, or they would depend on where batches end."""
        said = Said()
        read = chunk(entries)
        users, items = self._rows(read, said)
        return Named(read, users, items, said, len(self.users), len(self.items))

    def release(self, items: Ints, users: Ints) -> None:
        """Takes the ids of rows away, and what was set of them."""
        for row in items.tolist():
            self.catalogue.forget(row)
        for row in users.tolist():
            self.profiles.remove(row)
        self.items.release(items)
        self.users.release(users)

    def _rows(self, read: Chunk, said: Said) -> tuple[Ints, Ints]:
        """Users and items of the events; notes in ``said`` what the other entries say."""
        if not read.others:
            return self.admitted_users.rows(read.users), self.admitted_items.rows(read.items)
        users, items, done = [], [], 0
        for record, before in zip(read.others, read.events_before().tolist(), strict=True):
            if before > done:
                users.append(self.admitted_users.rows(read.users[done:before]))
                items.append(self.admitted_items.rows(read.items[done:before]))
                done = before
            self._note_entry(record, before, said)
        users.append(self.admitted_users.rows(read.users[done:]))
        items.append(self.admitted_items.rows(read.items[done:]))
        said.token_rows = self.tokens.rows(list(chain.from_iterable(said.tokens)))
        return np.concatenate(users), np.concatenate(items)

    def _note_entry(self, record: Record, before: int, said: Said) -> None:
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
