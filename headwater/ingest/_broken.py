"""Files of text with lines that can't be taken apart: slowly, line by line, so that only those
are lost. polars, which reads good files in a tenth of the time, gives up at the first one.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import polars as pl

FAULT = "headwater:fault"
"""The column that says why a line can't be taken apart; null where it can."""

RAGGED = "row has another number of fields than the header"
UNQUOTED = "row has a quote that isn't closed, or stands within a field"
NOT_UTF8 = "row is not UTF-8"
NOT_JSON = "line is not a JSON object"

_NO_ID = r"^(?:[\[{]|true$|false$|-?[0-9]+\.[0-9]+$|-?[0-9.]+e[+-]?[0-9]+$)"
"""What lists, objects, booleans and numbers that aren't whole are like, as text."""

_QUOTED_LINES = 50
"""Lines that a quoted field may go on for; an unclosed quote must not swallow the file."""


def separated(lines: Iterable[bytes], separator: str, quoted: bool) -> pl.DataFrame:
    """Separated values under a header, as text; short rows lack their last fields."""
    rows = _rows(iter(lines), separator, quoted)
    first = next(rows, [])
    header = [] if isinstance(first, str) else first
    columns: list[list[str | None]] = [[] for _ in header]
    faults: list[str | None] = []
    for row in rows:
        fault = row if isinstance(row, str) else RAGGED if len(row) > len(header) else None
        values = [] if isinstance(row, str) or fault else row
        faults.append(fault)
        for place, column in enumerate(columns):
            column.append(values[place] or None if place < len(values) else None)
    named = dict(zip(header, columns, strict=True))
    return _frame(named, faults)


def json_lines(rows: Iterable[dict[str, Any] | None], wanted: Sequence[str]) -> pl.DataFrame:
    """The wanted fields of JSON objects, as text; ``None`` stands for a line that is none."""
    columns: dict[str, list[str | None]] = {name: [] for name in wanted}
    faults: list[str | None] = []
    for row in rows:
        faults.append(NOT_JSON if row is None else None)
        for name, column in columns.items():
            value = None if row is None else row.get(name)
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # as polars writes it
            if value is not None and not isinstance(value, str):
                value = msgspec.json.encode(value).decode()
            column.append(value)
    return _frame(columns, faults)


def json_ids(lines: Iterable[bytes], rows: pl.DataFrame, fields: Mapping[str, str]) -> pl.DataFrame:
    """The rows of a file of JSON, with a fault where an id is neither an integer nor a string.

    As text such an id can't be told from a string; lines that hold one or the other are taken
    apart again, and no others.

    Args:
        lines: of the file.
        rows: as they were read, as text.
        fields: those that hold ids -> the column in the file.
    """
    odd = pl.any_horizontal(pl.col(field).str.contains(_NO_ID) for field in fields)
    places = set(rows.select(odd.fill_null(False).arg_true()).to_series())
    faults: dict[int, str] = {}
    filled = (line for line in lines if line.strip()) if places else ()
    for place, line in enumerate(filled):
        if place not in places:
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # said already
        for field, column in fields.items():
            value = row.get(column)
            is_id = value is None or type(value) in (int, str)
            if not is_id and not (isinstance(value, float) and value.is_integer()):
                faults.setdefault(place, f"{field} is neither an integer nor a string")
    return rows.with_columns(rows[FAULT].scatter([*faults], [*faults.values()]))


def _frame(columns: dict[str, list[str | None]], faults: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {**columns, FAULT: faults}, schema=dict.fromkeys((*columns, FAULT), pl.String)
    )


def _rows(lines: Iterator[bytes], separator: str, quoted: bool) -> Iterator[list[str] | str]:
    """The fields of each row, the header's first, or what is wrong with it."""
    waiting: deque[bytes] = deque()

    def line() -> bytes | None:
        return waiting.popleft() if waiting else next(lines, None)

    while (first := line()) is not None:
        taken = [first]
        while quoted and b"".join(taken).count(b'"') % 2 and len(taken) < _QUOTED_LINES:
            following = line()
            if following is None:
                break
            taken.append(following)
        row = _fields(b"".join(taken), separator, quoted)
        if len(taken) > 1 and isinstance(row, str):
            # The quote was none: what follows it are rows of their own.
            waiting.extendleft(reversed(taken[1:]))
            row = _fields(first, separator, quoted)
        yield row


def _fields(row: bytes, separator: str, quoted: bool) -> list[str] | str:
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    try:
        text = row.decode("utf-8").rstrip("\r\n")
        return next(csv.reader([text], delimiter=separator, quoting=quoting, strict=True), [])
    except UnicodeDecodeError:
        return NOT_UTF8
    except csv.Error:
        return UNQUOTED
