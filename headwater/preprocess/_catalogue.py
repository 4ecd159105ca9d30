"""What is known of items beside events: titles, availability, removal."""

from __future__ import annotations

import msgspec
import numpy as np

from headwater.packing import pack_strings, unpack_strings
from headwater.types import Flags, Item, State


class Catalogue:
    """The newest ``Item`` per row, and which rows must not be served.

    An item that was only named by events is servable and has no entry here.
    """

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._withheld: set[int] = set()

    def put(self, row: int, item: Item) -> None:
        self._items[row] = item
        if item.available:
            self._withheld.discard(row)
        else:
            self._withheld.add(row)

    def remove(self, row: int) -> None:
        self._items.pop(row, None)
        self._withheld.add(row)

    def get(self, row: int) -> Item | None:
        return self._items.get(row)

    def title(self, row: int) -> str | None:
        item = self._items.get(row)
        return item.title if item else None

    def withheld(self, n_items: int) -> Flags:
        """(n_items,) True where the item is unavailable or removed."""
        flags = np.zeros(n_items, np.bool_)
        if self._withheld:
            flags[np.fromiter(self._withheld, np.int64)] = True
        return flags

    def listed(self, n_items: int) -> Flags:
        """(n_items,) True where the catalogue has an item, seen in events or not."""
        flags = np.zeros(n_items, np.bool_)
        if self._items:
            flags[np.fromiter(self._items, np.int64)] = True
        return flags

    def state(self) -> State:
        rows = sorted(self._items)
        text, offsets = pack_strings(
            [msgspec.json.encode(self._items[row]).decode() for row in rows]
        )
        return {
            "rows": np.array(rows, np.int64),
            "text": text,
            "offsets": offsets,
            "withheld": np.array(sorted(self._withheld), np.int64),
        }

    def load(self, state: State) -> None:
        texts = unpack_strings(state["text"], state["offsets"])
        self._items = {
            int(row): msgspec.json.decode(text, type=Item)
            for row, text in zip(state["rows"], texts, strict=True)
        }
        self._withheld = {int(row) for row in state["withheld"]}
