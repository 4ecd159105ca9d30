"""Ids to rows: the one place where strings become integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headwater.packing import pack_strings, unpack_strings
from headwater.types import NO_ROW, State


class Vocabulary:
    """Row numbers in order of first sighting, so that every fold of one log agrees on them.

    >>> words = Vocabulary()
    >>> words.row("a"), words.row("b"), words.row("a"), words.find("c"), words.id(1)
    (0, 1, 0, -1, 'b')
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def row(self, id: str) -> int:
        """The row of ``id``, a new one at first sight."""
        row = self._rows.get(id)
        if row is None:
            row = self._rows[id] = len(self._ids)
            self._ids.append(id)
        return row

    def find(self, id: str) -> int:
        """The row of ``id``, ``NO_ROW`` when it was never seen. Never adds it."""
        return self._rows.get(id, NO_ROW)

    def id(self, row: int) -> str:
        return self._ids[row]

    def known(self, ids: Iterable[str]) -> list[int]:
        """The rows of those of ``ids`` that are known, in order."""
        rows = (self.find(id) for id in ids)
        return [row for row in rows if row != NO_ROW]

    def erase(self, row: int) -> None:
        """Puts an id in the place of the row's own that tells nothing of it."""
        del self._rows[self._ids[row]]
        id = f"\0{row}"
        while id in self._rows:
            id += "\0"
        self._rows[id] = row
        self._ids[row] = id

    def state(self) -> State:
        text, offsets = pack_strings(self._ids)
        return {"text": text, "offsets": offsets}

    def load(self, state: State) -> None:
        self._ids = unpack_strings(state["text"], state["offsets"])
        self._rows = {id: row for row, id in enumerate(self._ids)}
        if len(self._rows) != len(self._ids):
            raise ValueError("a vocabulary holds an id twice")
