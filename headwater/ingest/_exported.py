"""Files that ``headwater export`` wrote -> the entries that they were written from.

A line of JSONL is an entry as the log holds it; a Parquet file has a column per field, with
those that have no fixed shape as JSON. What is read is checked by the wire's rules, as it may
have been edited.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from headwater.config import EventType
from headwater.errors import InvalidInput, UnreadableFile
from headwater.ingest._events import WireEvent, checked_event
from headwater.ingest._fields import Identifier, convert, identifier
from headwater.ingest._items import WireItem, checked_item
from headwater.ingest._tables import is_json_lines, is_parquet, opened_lines, readable
from headwater.ingest._users import WireUser, checked_user
from headwater.types import MAX_PASSED_OVER, Entry, ItemRemoval

EXPORT_KEY = b"headwater.export"
"""In a Parquet file's metadata: which kind of entry its rows are."""

JSON_COLUMNS = ("context", "attributes", "vectors")
"""Columns that hold JSON."""

KINDS = ("event", "item", "item_removal", "user")

_LOOKED = 100
"""Lines among which the first good one tells whether the file is an export."""


class _StoredEvent(WireEvent):
    """What a client may send, and what the server added to it."""

    passed_over: tuple[Identifier, ...] = ()


def is_exported(path: Path) -> bool:
    """Whether a file is one that ``headwater export`` wrote.

    Raises:
        UnreadableFile: the file isn't there, or can't be read.
    """
    if is_parquet(path):
        with readable(path):
            return EXPORT_KEY in (_parquet(path).schema_arrow.metadata or {})
    if is_json_lines(path):
        with readable(path), opened_lines(path) as lines:
            for _, line in zip(range(_LOOKED), lines, strict=False):
                try:
                    return msgspec.json.decode(line, type=dict[str, Any]).get("entry") in KINDS
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
    return False


def read_exported(
    path: Path, event_types: Mapping[str, EventType]
) -> Iterator[Entry | InvalidInput]:
    """The entries of a file in its order, and in place of a bad one what is wrong with it.

    Raises:
        UnreadableFile: the file isn't there, or is corrupt.
    """
    now = time.time()
    rows = _parquet_rows(path) if is_parquet(path) else _json_rows(path)
    dimensions: dict[str, int] = {}
    for row in rows:
        if isinstance(row, InvalidInput):
            yield row
            continue
        try:
            yield _entry(row, event_types, now, dimensions)
        except InvalidInput as error:
            yield error


def exported_rows(path: Path) -> int:
    """How many rows there are, for a progress bar."""
    with readable(path):
        if is_parquet(path):
            return int(_parquet(path).metadata.num_rows)
        with opened_lines(path) as lines:
            return sum(1 for _ in lines)


def _json_rows(path: Path) -> Iterator[dict[str, Any] | InvalidInput]:
    with readable(path), opened_lines(path) as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield InvalidInput("line", "is not a JSON object")


def _parquet_rows(path: Path) -> Iterator[dict[str, Any] | InvalidInput]:
    with readable(path):
        file = _parquet(path)
        kind = (file.schema_arrow.metadata or {})[EXPORT_KEY].decode()
        for batch in file.iter_batches(1_000):
            for row in batch.to_pylist():
                given = {name: value for name, value in row.items() if value is not None}
                try:
                    for name in JSON_COLUMNS:
                        if name in given:
                            given[name] = msgspec.json.decode(given[name])
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
                    yield InvalidInput(name, "is not JSON")
                    continue
                yield {"entry": kind, **given}


def _parquet(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except ValueError as error:  # pyarrow's own errors are ValueErrors
        raise UnreadableFile(f"{path} can't be read: {error}") from None


def _entry(
    row: dict[str, Any],
    event_types: Mapping[str, EventType],
    now: float,
    dimensions: dict[str, int],
) -> Entry:
    kind = row.pop("entry", None)
    if kind == "item":
        return checked_item(convert(row, WireItem, "item"), None, dimensions)
    if kind == "item_removal":
        return ItemRemoval(checked_item(convert(row, WireItem, "item"), None, {}).item_id)
    if kind == "user":
        return checked_user(convert(row, WireUser, "user"), None)
    if kind != "event":
        raise InvalidInput("entry", f"must be one of {', '.join(KINDS)}")
    row.pop("anonymous", None)  # the user's id says so
    row.pop("imported", None)
    source = row.pop("source", "")
    if not isinstance(source, str):
        raise InvalidInput("source", "must be a string")
    sent = convert(row, _StoredEvent, "event")
    event = checked_event(sent, now, event_types, source)
    items = [identifier(item, "passed_over") for item in sent.passed_over[:MAX_PASSED_OVER]]
    return msgspec.structs.replace(event, imported=True, passed_over=tuple(items))
