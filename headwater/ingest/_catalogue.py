"""Files of items -> ``Item``: the catalogue that replay and import read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from headwater.errors import InvalidInput
from headwater.ingest import _columns
from headwater.ingest._described import NESTED, checked_rows, described_rows, words
from headwater.ingest._fields import convert
from headwater.ingest._items import WireItem, checked_item
from headwater.ingest._tables import Table
from headwater.types import Item

_FIELDS: dict[str, tuple[str, ...]] = {
    "item_id": ("movieId",),
    "title": ("movie_title",),
    "categories": ("genres", "genre", "category", "department", "class"),
    "tags": (),
    "price": (),
    "text": (),
    "published_at": (),
    "available": (),
}
_LABELS = ("categories", "tags")

_NO_GENRES = "(no genres listed)"
"""What MovieLens writes in place of none."""

_NO = ("false", "f", "no", "n", "0")


@dataclass
class Items:
    """The items of a file in its order; by reason, how many rows couldn't be used, and which was
    the first of these, from 1.
    """

    items: list[Item]
    skipped: dict[str, int]
    first_skipped: dict[str, int]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def read_items(path: Path, *, mapping: Mapping[str, str] | None = None) -> Items:
    """Reads Parquet, CSV, TSV, JSONL, a RecBole ``.item`` file, or MovieLens' films.

    Columns: ``item_id``, and optionally ``title`` (or ``movie_title``),
    ``categories`` (or ``genres``, ``genre``, ``category``, ``department``, ``class``:
    all that are there), ``tags``, ``price``, ``text``, ``published_at``,
    ``available``. Categories and tags are lists, or texts separated by ``|``. Lists
    of numbers become vectors, as many numbers as in the first one of the column; every
    other column an attribute. A line of JSONL may also be an item as it is on the wire.

    Args:
        path: the extension tells the format.
        mapping: field -> column, over names and aliases.

    Raises:
        UnreadableFile: the file isn't there, is corrupt, has no column of item ids or no row to
            use; the message says what would help.
        InvalidInput: ``mapping`` names no field.
    """
    rows, found = described_rows(path, _FIELDS, mapping, _field)
    dimensions: dict[str, int] = {}

    def item(row: Mapping[str, Any]) -> Item:
        if row.get("entry") == "item_removal":
            raise InvalidInput("item_id", "is that of a removed item")
        return checked_item(convert(_wire_form(row, found), WireItem, "item"), None, dimensions)

    return Items(*checked_rows(path, rows, item))


def _field(name: str, dtype: pl.DataType, field: str, table: Table) -> pl.Expr:
    column = pl.col(name)
    if field in ("price", "published_at"):
        read = _columns.number if field == "price" else _columns.seconds
        value = read(name, dtype, table.path)
        # What is there and can't be read becomes nan, which is refused by name with its row.
        unreadable = value.is_null() & ~_columns.absent(name, dtype)
        return pl.when(unreadable).then(pl.lit(math.nan)).otherwise(value)
    if field == "available":
        if dtype.is_numeric():
            return column != 0
        text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
        return column if dtype == pl.Boolean else ~text.is_in(_NO)
    if field in _LABELS and table.kinds.get(name) == "token_seq":
        return words(name)
    if field in _LABELS and isinstance(dtype, pl.List | pl.Array):
        return column.cast(pl.List(pl.String))
    return _columns.id_text(name, dtype, table.path)


def _wire_form(row: Mapping[str, Any], found: Mapping[str, list[str]]) -> dict[str, Any]:
    """The row as an item on the wire, what has no field of its own among the attributes."""
    sent: dict[str, Any] = {
        field: _labels([row.get(name) for name in names]) if field in _LABELS else row.get(names[0])
        for field, names in found.items()
    }
    used = {name for names in found.values() for name in names}
    attributes: dict[str, Any] = {}
    vectors: dict[str, Any] = {}
    for name, value in row.items():
        if name in used or value is None or value == "" or value == []:
            continue
        if name in NESTED and isinstance(value, dict):
            (attributes if name == "attributes" else vectors).update(value)
        elif isinstance(value, list) and not any(isinstance(one, str) for one in value):
            vectors[name] = value
        elif not isinstance(value, dict):
            attributes[name] = value
    return {**sent, "attributes": attributes, "vectors": vectors}


def _labels(values: Sequence[Any]) -> list[Any]:
    labels: list[Any] = []
    for value in values:
        if value == _NO_GENRES:
            continue
        if isinstance(value, str):
            labels += value.split("|")
        elif isinstance(value, list):
            labels += value
        elif value is not None:
            labels.append(str(value))
    return labels
