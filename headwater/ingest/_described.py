"""Files of items or users: some columns have a field of their own, every other is an attribute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from headwater.errors import InvalidInput, UnreadableFile
from headwater.ingest._broken import FAULT, NOT_JSON
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

NESTED = ("attributes", "vectors")
"""Columns whose names are the attributes, or the vectors, of a row."""

_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"

T = TypeVar("T")

Row = dict[str, Any]


def described_rows(
    path: Path,
    fields: Mapping[str, tuple[str, ...]],
    mapping: Mapping[str, str] | None,
    column: Callable[[str, pl.DataType, str, Table], pl.Expr],
) -> tuple[Iterable[Row], dict[str, list[str]]]:
    """The rows of a file, column -> value, and the columns of each field.

    Args:
        path: the extension tells the format.
        fields: each field with its aliases; the first one is the id, and must be there.
        mapping: field -> column, over names and aliases.
        column: how a column of a type is read that holds a field.

    Raises:
        UnreadableFile: the file isn't there, is corrupt, or has no column of ids.
        InvalidInput: ``mapping`` names no field.
    """
    if is_json_lines(path):
        return _json_rows(path, fields, mapping)
    return _table_rows(path, fields, mapping, column)


_OF_EVENTS = (("user_id", "userId"), ("item_id", "movieId"), ("timestamp",))


def _refuse_events(
    path: Path,
    columns: Sequence[str],
    fields: Mapping[str, tuple[str, ...]],
    mapping: Mapping[str, str] | None,
) -> None:
    """Raises ``UnreadableFile`` for a file of events: of all that name an id the last would be what
    is known of it. Who names the id's column has looked.
    """
    id_field = next(iter(fields))
    if id_field in (mapping or {}):
        return
    if all(any(name in columns for name in names) for names in _OF_EVENTS):
        raise UnreadableFile(
            f"{path} has users, items and times, so it holds events: import it without --items and "
            f"--users; if it doesn't, --map {id_field}=COLUMN says which column the id is"
        )


def checked_rows(
    path: Path, rows: Iterable[Row], check: Callable[[Row], T]
) -> tuple[list[T], dict[str, int], dict[str, int]]:
    """What ``check`` makes of every row, how many it refused, by reason, and which was the first
    of these, from 1.

    Raises:
        UnreadableFile: it refused all.
    """
    found: list[T] = []
    skipped: Counter[str] = Counter()
    first: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        fault = row.pop(FAULT, None)
        try:
            if not fault:
                found.append(check(row))
        except InvalidInput as error:
            fault = str(error)
        if fault:
            skipped[fault] += 1
            first.setdefault(fault, number)
    if skipped and not found:
        raise UnreadableFile(f"{path} has no row to use ({listed(skipped)})")
    return found, dict(skipped), first


def _json_rows(
    path: Path, fields: Mapping[str, tuple[str, ...]], mapping: Mapping[str, str] | None
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    rows = [{FAULT: NOT_JSON} if row is None else row for row in json_lines(path)]
    columns = list(dict.fromkeys(name for row in rows for name in row if name != FAULT))
    _refuse_events(path, columns, fields, mapping)
    found = assign(path, columns, fields, mapping)
    require(path, columns, found, next(iter(fields)))
    return rows, found


def _table_rows(
    path: Path,
    fields: Mapping[str, tuple[str, ...]],
    mapping: Mapping[str, str] | None,
    column: Callable[[str, pl.DataType, str, Table], pl.Expr],
) -> tuple[Iterator[dict[str, Any]], dict[str, list[str]]]:
    table = open_table(path, ())
    _refuse_events(path, list(table.columns), fields, mapping)
    found = assign(path, list(table.columns), fields, mapping)
    require(path, list(table.columns), found, next(iter(fields)))
    field_of = {name: field for field, names in found.items() for name in names}
    with readable(path):
        names = list(table.columns)
        raw = table.read({name: name for name in names})
        others = [name for name in names if name not in field_of]
        # What a header calls a token is one, whatever it is written with: a postcode is no number.
        guessed = [name for name in others if table.kinds.get(name, "float") == "float"]
        numeric = _numeric(raw, guessed, table)
        parsed = {
            name: column(name, dtype, field_of[name], table)
            if name in field_of
            else _attribute(name, dtype, name in numeric, table.kinds.get(name))
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


def words(name: str) -> pl.Expr:
    """A column of texts, each a list of what stands between its spaces; null where it is empty."""
    column = pl.col(name).str.strip_chars()
    return pl.when(column != "").then(column.str.split(" "))


def _attribute(name: str, dtype: pl.DataType, numeric: bool, kind: str | None) -> pl.Expr | None:
    """A column without a field of its own; none for types that neither attribute nor vector has."""
    column = pl.col(name)
    if kind == "token_seq":
        return words(name)
    if kind == "float_seq":
        return words(name).cast(pl.List(pl.Float64()), strict=False)
    if dtype.is_numeric() or numeric:
        number = column.cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number)
    if isinstance(dtype, pl.List | pl.Array):
        inner: pl.DataType = pl.Float64() if dtype.inner.is_numeric() else pl.String()
        return column.cast(pl.List(inner))
    if dtype == pl.Boolean or name in NESTED:
        return column
    if dtype.is_temporal() or dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum):
        return column.cast(pl.String)
    return None
