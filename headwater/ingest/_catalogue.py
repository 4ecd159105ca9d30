"""Files of items -> ``Item``: the catalogue that replay and import read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from headwater.errors import InvalidInput, UnreadableFile
from headwater.ingest import _columns
from headwater.ingest._broken import FAULT, NOT_JSON
from headwater.ingest._fields import convert
from headwater.ingest._items import WireItem, checked_item
from headwater.ingest._tables import (
    Table,
    assign,
    is_json_lines,
    json_lines,
    listed,
    open_table,
    readable,
    require,
)
from headwater.types import Item

_FIELDS: dict[str, tuple[str, ...]] = {
    "item_id": ("movieId",),
    "title": (),
    "categories": ("genres", "category", "department"),
    "tags": (),
    "price": (),
    "text": (),
    "published_at": (),
    "available": (),
}
_LABELS = ("categories", "tags")
_NESTED = ("attributes", "vectors")

_NO_GENRES = "(no genres listed)"
"""What MovieLens writes in place of none."""

_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_NO = ("false", "f", "no", "n", "0")


@dataclass
class Items:
    """The items of a file in its order, and how many rows couldn't be used, by reason."""

    items: list[Item]
    skipped: dict[str, int]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def read_items(path: Path, *, mapping: Mapping[str, str] | None = None) -> Items:
    """Reads Parquet, CSV, TSV, JSONL, a RecBole ``.item`` file, or MovieLens' films.

    Columns: ``item_id``, and optionally ``title``, ``categories`` (or ``genres``,
    ``category``, ``department``: all that are there), ``tags``, ``price``, ``text``,
    ``published_at``, ``available``. Categories and tags are lists, or texts
    separated by ``|``. Lists of numbers become vectors, every other column an
    attribute. A line of JSONL may also be an item as it is on the wire.

    Args:
        path: the extension tells the format.
        mapping: field -> column, over names and aliases.

    Raises:
        UnreadableFile: the file isn't there, is corrupt, has no column of item ids or no row to
            use; the message says what would help.
        InvalidInput: ``mapping`` names no field.
    """
    rows, found = _json_rows(path, mapping) if is_json_lines(path) else _table_rows(path, mapping)
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    for row in rows:
        if fault := row.pop(FAULT, None):
            skipped[fault] += 1
            continue
        try:
            items.append(checked_item(convert(_wire_form(row, found), WireItem, "item"), None))
        except InvalidInput as error:
            skipped[str(error)] += 1
    if skipped and not items:
        raise UnreadableFile(f"{path} has no row to use ({listed(skipped)})")
    return Items(items, dict(skipped))


def _json_rows(
    path: Path, mapping: Mapping[str, str] | None
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    rows = [{FAULT: NOT_JSON} if row is None else row for row in json_lines(path)]
    columns = list(dict.fromkeys(name for row in rows for name in row if name != FAULT))
    found = assign(path, columns, _FIELDS, mapping)
    require(path, columns, found, "item_id")
    return rows, found


def _table_rows(
    path: Path, mapping: Mapping[str, str] | None
) -> tuple[Iterator[dict[str, Any]], dict[str, list[str]]]:
    table = open_table(path, ())
    found = assign(path, list(table.columns), _FIELDS, mapping)
    require(path, list(table.columns), found, "item_id")
    field_of = {name: field for field, names in found.items() for name in names}
    with readable(path):
        names = list(table.columns)
        raw = table.read({name: name for name in names})
        numeric = _numeric(raw, [name for name in names if name not in field_of], table)
        parsed = {
            name: _field(name, dtype, field_of[name], table)
            if name in field_of
            else _attribute(name, dtype, name in numeric)
            for name, dtype in raw.schema.items()
            if name != FAULT
        }
        known = {name: values for name, values in parsed.items() if values is not None}
        return raw.select(FAULT, **known).iter_rows(named=True), found


def _numeric(raw: pl.DataFrame, names: Sequence[str], table: Table) -> frozenset[str]:
    """The columns of text that hold numbers only, written as one writes numbers."""
    if not table.textual or not names:
        return frozenset()
    given = pl.col(names)
    tests = raw.select(pl.when(given != "").then(given).str.contains(_NUMBER).all())
    return frozenset(name for name, all_numbers in tests.row(0, named=True).items() if all_numbers)


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
    if field in _LABELS and name in table.sequences:
        return column.str.split(" ")
    if field in _LABELS and isinstance(dtype, pl.List | pl.Array):
        return column.cast(pl.List(pl.String))
    return _columns.id_text(name, dtype, table.path)


def _attribute(name: str, dtype: pl.DataType, numeric: bool) -> pl.Expr | None:
    """A column without a field of its own; none for types that neither attribute nor vector has."""
    column = pl.col(name)
    if dtype.is_numeric() or numeric:
        number = column.cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number)
    if isinstance(dtype, pl.List | pl.Array):
        inner: pl.DataType = pl.Float64() if dtype.inner.is_numeric() else pl.String()
        return column.cast(pl.List(inner))
    if dtype == pl.Boolean or name in _NESTED:
        return column
    if dtype.is_temporal() or dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum):
        return column.cast(pl.String)
    return None


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
        if name in _NESTED and isinstance(value, dict):
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
