"""Ids to rows: the one place where strings become integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from headwater.packing import pack_strings, unpack_strings
from headwater.preprocess._index import NEW, Index
from headwater.types import NO_ROW, Flags, Ints, State

_FEW = 4
"""Ids that are sooner looked up one by one than written into one array for all."""


class Vocabulary:
    """Row numbers in order of first sighting, so that every fold of one log agrees on them.

    A row that was released is given to a new id before the table grows, the lowest first.

    >>> words = Vocabulary()
    >>> words.row("a"), words.row("b"), words.row("a"), words.find("c"), words.id(1)
    (0, 1, 0, -1, 'b')
    >>> words.release(np.array([0]))
    >>> words.find("a"), words.row("c"), words.row("a"), len(words)
    (-1, 0, 2, 3)
    """

    def __init__(self) -> None:
        self._index = Index()
        self._ids: list[str] = []
        self._free = np.zeros(0, np.int32)  # released rows, descending: the last is the next
        self._n_free = 0
        self._used = np.zeros(0, np.bool_)

    def __len__(self) -> int:
        """How many rows there are, free ones too: what a table over them needs room for."""
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        """The id of every row; that of a free one is empty."""
        return iter(self._ids)

    @property
    def n_known(self) -> int:
        """How many ids have a row."""
        return len(self._ids) - self._n_free

    def in_use(self) -> Flags:
        """(N,) whether each row is some id's; a view, not to be written to."""
        return self._used[: len(self._ids)]

    def row(self, id: str) -> int:
        """The row of ``id``, a new one at first sight."""
        row = self.find(id)
        if row == NO_ROW:
            row = self._next(id)
            self._index.add(id, row)
        return row

    def rows(self, ids: Sequence[str | None]) -> Ints:
        """(n,) the row of each id, new ones at first sight, in this order.

        ``NO_ROW`` where there is no id.

        >>> Vocabulary().rows(["a", None, "b", "a"]).tolist()
        [0, -1, 1, 0]
        """
        found, hashes = self._index.look_up(ids)
        places = np.flatnonzero(found == NEW)
        if len(places):
            new: dict[str, int] = {}
            first = np.zeros(len(places), np.bool_)
            for k, place in enumerate(places.tolist()):
                id = ids[place]
                assert id is not None
                first[k] = id not in new
                found[place] = new[id] if id in new else new.setdefault(id, self._next(id))
            self._index.put(found[places[first]], hashes[places[first]])
        return found

    def find(self, id: str) -> int:
        """The row of ``id``, ``NO_ROW`` when it has none. Never adds it."""
        return self._index.find(id)

    def find_rows(self, ids: Sequence[str | None]) -> Ints:
        """(n,) the row of each id, ``NO_ROW`` when it has none or there is none. Adds nothing."""
        if len(ids) <= _FEW:
            few = [NO_ROW if id is None else self.find(id) for id in ids]
            return np.array(few, np.int32)
        found, _ = self._index.look_up(ids)
        return np.maximum(found, NO_ROW)

    def id(self, row: int) -> str:
        return self._ids[row]

    def known(self, ids: Iterable[str]) -> list[int]:
        """The rows of those of ``ids`` that are known, in order."""
        return [row for row in self.find_rows([*ids]).tolist() if row != NO_ROW]

    def release(self, rows: Ints) -> None:
        """Forgets the ids of rows; those that are free already stay so."""
        gone = rows[self.in_use()[rows]]
        self._index.remove(gone)
        for row in gone.tolist():
            self._ids[row] = ""
        self._used[gone] = False
        free = np.sort(np.concatenate([self._free[: self._n_free], gone]))
        self._free, self._n_free = free[::-1].astype(np.int32), len(free)

    def state(self) -> State:
        text, offsets = pack_strings(self._ids)
        return {"text": text, "offsets": offsets, "free": self._free[: self._n_free]}

    def load(self, state: State) -> None:
        self._ids = unpack_strings(state["text"], state["offsets"])
        self._free, self._n_free = state["free"].copy(), len(state["free"])
        self._used = np.ones(len(self._ids), np.bool_)
        self._used[self._free] = False
        used = np.flatnonzero(self._used).astype(np.int32)
        self._index = Index()
        _, hashes = self._index.look_up([self._ids[row] for row in used.tolist()])
        if not self._index.put(used, hashes):
            raise ValueError("a vocabulary holds an id twice")

    def _next(self, id: str) -> int:
        if self._n_free:
            self._n_free -= 1
            row = int(self._free[self._n_free])
            self._ids[row] = id
        else:
            row = len(self._ids)
            self._ids.append(id)
            if row >= len(self._used):
                self._used = np.pad(self._used, (0, max(len(self._used), 1024)))
        self._used[row] = True
        return row
