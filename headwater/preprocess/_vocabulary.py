"""Ids to rows: the one place where strings become integers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import cast

import numpy as np

from headwater.packing import pack_strings, unpack_strings
from headwater.types import NO_ROW, Flags, Ints, State

_NEW = NO_ROW - 1
"""Stands for the row that an id hasn't got yet."""


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
        self._rows: dict[str, int] = {}
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
        row = self._rows.get(id)
        if row is None:
            row = self._rows[id] = self._next(id)
        return row

    def rows(self, ids: Sequence[str | None]) -> Ints:
        """(n,) the row of each id, in this order; ``NO_ROW`` where there is no id.

        >>> Vocabulary().rows(["a", None, "b", "a"]).tolist()
        [0, -1, 1, 0]
        """
        get = cast("Callable[[str | None, int], int]", self._rows.get)
        found = np.fromiter(map(get, ids, repeat(_NEW)), np.int32, len(ids))
        for place in np.flatnonzero(found == _NEW).tolist():
            id = ids[place]
            found[place] = NO_ROW if id is None else self.row(id)
        return found

    def find(self, id: str) -> int:
        """The row of ``id``, ``NO_ROW`` when it has none. Never adds it."""
        return self._rows.get(id, NO_ROW)

    def id(self, row: int) -> str:
        return self._ids[row]

    def known(self, ids: Iterable[str]) -> list[int]:
        """The rows of those of ``ids`` that are known, in order."""
        rows = (self.find(id) for id in ids)
        return [row for row in rows if row != NO_ROW]

    def release(self, rows: Ints) -> None:
        """Forgets the ids of rows; those that are free already stay so."""
        gone = rows[self.in_use()[rows]]
        for row in gone.tolist():
            del self._rows[self._ids[row]]
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
        used = np.flatnonzero(self._used).tolist()
        self._rows = {self._ids[row]: row for row in used}
        if len(self._rows) != len(used):
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
