"""What is known of items and users beside events: titles, availability, attributes, removal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from typing import Generic, TypeVar

import msgspec
import numpy as np

from headwater.packing import pack_bytes, unpack_strings
from headwater.types import Flags, Ints, Item, State, User

_Described = TypeVar("_Described", Item, User)

_LOOKED = 50_000
"""Rows that one page looks at, at most: a long gap mustn't hold up those who wait behind it."""


class _Newest(Generic[_Described]):
    """The newest description per row."""

    _kind: type[_Described]

    def __init__(self) -> None:
        self._newest: dict[int, _Described] = {}

    def put(self, row: int, entry: _Described) -> None:
        self._newest[row] = entry

    def remove(self, row: int) -> None:
        self._newest.pop(row, None)

    def listed(self, rows: int) -> Flags:
        """(rows,) True where there is a description."""
        flags = np.zeros(rows, np.bool_)
        if self._newest:
            flags[np.fromiter(self._newest, np.int64)] = True
        return flags

    def lists(self, rows: Ints) -> Flags:
        """(R,) True for the rows that there is a description of."""
        return _among(rows, self._newest)

    def get(self, row: int) -> _Described | None:
        return self._newest.get(row)

    def __iter__(self) -> Iterator[_Described]:
        return iter(self._newest.values())

    def page(self, after: int, n: int, rows: int) -> tuple[list[_Described], int]:
        """At most ``n`` of those behind row ``after``, by row, and the last row looked at.

        Args:
            rows: how many rows there are; the page that looks at the last one is the last.
        """
        found: list[_Described] = []
        row = after
        for row in range(after + 1, min(rows, after + 1 + _LOOKED)):
            entry = self._newest.get(row)
            if entry is not None:
                found.append(entry)
            if len(found) == n:
                break
        return found, row

    def state(self) -> State:
        rows = sorted(self._newest)
        encode = msgspec.json.Encoder().encode
        text, offsets = pack_bytes([encode(self._newest[row]) for row in rows])
        return {"rows": np.array(rows, np.int64), "text": text, "offsets": offsets}

    def load(self, state: State) -> None:
        texts = unpack_strings(state["text"], state["offsets"])
        self._newest = {
            int(row): msgspec.json.decode(text, type=self._kind)
            for row, text in zip(state["rows"], texts, strict=True)
        }


class Profiles(_Newest[User]):
    """The newest ``User`` per row."""

    _kind = User


class Catalogue(_Newest[Item]):
    """The newest ``Item`` per row, and which rows must not be served.

    An item that was only named by events is servable and has no entry here.
    """

    _kind = Item

    def __init__(self) -> None:
        super().__init__()
        self._withheld: set[int] = set()
        self._vectors: dict[str, Counter[int]] = {}  # name -> dimension -> items that have it

    def put(self, row: int, entry: Item) -> None:
        self._count_vectors(self.get(row), -1)
        super().put(row, entry)
        self._count_vectors(entry, 1)
        if entry.available:
            self._withheld.discard(row)
        else:
            self._withheld.add(row)

    def remove(self, row: int) -> None:
        self._count_vectors(self.get(row), -1)
        super().remove(row)
        self._withheld.add(row)

    def dimensions(self) -> dict[str, int]:
        """The dimension of the vectors of each name, while an item has one."""
        return {name: next(iter(sizes)) for name, sizes in self._vectors.items()}

    def fitted(self, entry: Item) -> Item:
        """The item without vectors of another dimension than those of their name have here.

        They can't be compared; what comes over HTTP is refused for it, but files know nothing
        of the catalogue.
        """
        fitting = {
            name: vector
            for name, vector in entry.vectors.items()
            if len(vector) in self._vectors.get(name, (len(vector),))
        }
        if len(fitting) == len(entry.vectors):
            return entry
        return msgspec.structs.replace(entry, vectors=fitting)

    def is_removed(self, row: int) -> bool:
        return row in self._withheld and row not in self._newest

    def forget(self, row: int) -> None:
        """Leaves nothing of the row, not even that it must not be served."""
        self._count_vectors(self.get(row), -1)
        super().remove(row)
        self._withheld.discard(row)

    def title(self, row: int) -> str | None:
        item = self.get(row)
        return item.title if item else None

    def withheld(self, n_items: int) -> Flags:
        """(n_items,) True where the item is unavailable or removed."""
        flags = np.zeros(n_items, np.bool_)
        if self._withheld:
            flags[np.fromiter(self._withheld, np.int64)] = True
        return flags

    def known(self, n_items: int) -> Flags:
        """(n_items,) True where it lists the item or holds it back."""
        return self.listed(n_items) | self.withheld(n_items)

    def holds_back(self, rows: Ints) -> Flags:
        """(R,) likewise of given rows."""
        return _among(rows, self._withheld)

    def state(self) -> State:
        return {**super().state(), "withheld": np.array(sorted(self._withheld), np.int64)}

    def load(self, state: State) -> None:
        super().load(state)
        self._withheld = {int(row) for row in state["withheld"]}
        self._vectors = {}
        for item in self:
            self._count_vectors(item, 1)

    def _count_vectors(self, item: Item | None, by: int) -> None:
        for name, vector in item.vectors.items() if item else ():
            sizes = self._vectors.setdefault(name, Counter())
            sizes[len(vector)] += by
            if not sizes[len(vector)]:
                del sizes[len(vector)]
            if not sizes:
                del self._vectors[name]


def _among(rows: Ints, known: Container[int]) -> Flags:
    return np.fromiter((row in known for row in rows.tolist()), np.bool_, len(rows))
