"""Files of interactions -> columns, in time order: what replay and import read."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import polars as pl

from headwater.config import DEFAULT_EVENT_TYPES
from headwater.errors import UnreadableFile
from headwater.ingest._broken import FAULT, json_ids
from headwater.ingest._columns import absent, id_text, number, ordering, seconds
from headwater.ingest._events import MAX_TYPE_LENGTH
from headwater.ingest._exported import is_exported
from headwater.ingest._fields import ANONYMOUS, MAX_FLOAT32, MAX_ID_LENGTH
from headwater.ingest._tables import (
    Table,
    assign,
    is_json_lines,
    listed,
    open_table,
    opened_lines,
    readable,
    require,
)
from headwater.log import MAX_AHEAD
from headwater.types import Doubles, Event, Ints, Longs

_FIELDS: dict[str, tuple[str, ...]] = {
    "user_id": ("userId",),
    "item_id": ("movieId",),
    "timestamp": (),
    "event": (),
    "value": ("rating",),
    "session_id": ("basket_id",),
    "recommendation_id": (),
    "anonymous_id": (),
}

_IDS = ("user_id", "item_id", "event", "session_id", "recommendation_id")


@dataclass
class Interactions:
    """N interactions by timestamp, ties in file order, without an object per row.

    ``index`` is a row's 0-based place in the file as read. ``skipped`` counts,
    by reason, the rows that can't be used, and ``first_skipped`` says which was the
    first, from 1; ``warnings`` are sentences for whoever reads the file.
    """

    path: Path
    user_codes: Ints  # (N,)
    user_ids: list[str]
    item_codes: Ints  # (N,)
    item_ids: list[str]
    timestamps: Doubles  # (N,) seconds since 1970
    type_codes: Ints  # (N,)
    type_names: list[str]
    values: Doubles  # (N,) nan where there is none
    session_codes: Ints  # (N,) -1 where there is none
    session_ids: list[str]
    recommendation_codes: Ints  # (N,) -1 where there is none
    recommendation_ids: list[str]
    index: Longs  # (N,)
    columns: dict[str, str]  # field -> the column it was read from
    skipped: dict[str, int]
    first_skipped: dict[str, int]
    warnings: list[str]

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def source(self) -> str:
        """Scopes the rows' event ids: the same for the same bytes read as the same fields."""
        digest = blake2b(repr(sorted(self.columns.items())).encode(), digest_size=8)
        with readable(self.path), self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return f"file:{digest.hexdigest()}"

    def events(self, start: int = 0, stop: int | None = None) -> list[Event]:
        """Rows ``start`` to ``stop`` as events; a file that is imported twice counts once."""
        rows = slice(start, stop)
        source = self.source
        return [
            Event(
                event_id=str(index),
                type=self.type_names[type_code],
                user_id=self.user_ids[user_code],
                timestamp=timestamp,
                item_id=self.item_ids[item_code],
                value=None if value != value else value,
                session_id=self.session_ids[session] if session >= 0 else None,
                recommendation_id=(
                    self.recommendation_ids[recommendation] if recommendation >= 0 else None
                ),
                anonymous=self.user_ids[user_code].startswith(ANONYMOUS),
                source=source,
                imported=True,
            )
            for (
                index,
                type_code,
                user_code,
                item_code,
                timestamp,
                value,
                session,
                recommendation,
            ) in zip(
                self.index[rows].tolist(),
                self.type_codes[rows].tolist(),
                self.user_codes[rows].tolist(),
                self.item_codes[rows].tolist(),
                self.timestamps[rows].tolist(),
                self.values[rows].tolist(),
                self.session_codes[rows].tolist(),
                self.recommendation_codes[rows].tolist(),
                strict=True,
            )
        ]


def read_interactions(
    path: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
    event_types: Collection[str] = DEFAULT_EVENT_TYPES.keys(),
    received_at: float | None = None,
    order: str | None = None,
) -> Interactions:
    """Reads Parquet, CSV, TSV, JSONL, a RecBole ``.inter`` file, or MovieLens' ratings.

    Columns: ``user_id``, ``item_id``, ``timestamp``, and optionally ``event``,
    ``value`` (or ``rating``), ``session_id`` (or ``basket_id``),
    ``recommendation_id``, and ``anonymous_id`` for rows without a user. A file with
    sessions and no users has a user per session. Without ``event``, rows are ratings
    where there is a value column, else views. Rows that can't be used are skipped and
    counted: by the wire's rules, a time that lies ahead of the clock among them.

    Args:
        path: the extension tells the format.
        mapping: field -> column, over names and aliases.
        limit: keeps the first so many, in order.
        event_types: the known ones; others are kept, with a warning.
        received_at: the clock; now by default.
        order: a column of numbers, in whose order the rows come instead of in that of time; in
            a file without times, their places in it are the times.

    Raises:
        UnreadableFile: the file isn't there, is corrupt, lacks a column or has no row to use; the
            message says what would help.
        InvalidInput: ``mapping`` names no field.
    """
    now = time.time() if received_at is None else received_at
    exported = not mapping and is_exported(path)
    wanted = {*_FIELDS, *(alias for names in _FIELDS.values() for alias in names)}
    named = {*(mapping or {}).values(), *([] if order is None else [order])}
    table = open_table(path, sorted({*wanted, *named, "type"}))
    if exported and "type" in table.columns:
        mapping = {"event": "type"}
    found = {
        field: columns[0]
        for field, columns in assign(path, list(table.columns), _FIELDS, mapping).items()
    }
    if found.keys().isdisjoint(("user_id", "anonymous_id")) and "session_id" in found:
        found["user_id"] = found["session_id"]
    needed: tuple[str, ...] = ("item_id", "timestamp")
    if "anonymous_id" not in found:
        needed = ("user_id", *needed)
    if order is not None:
        if order not in table.columns:
            raise UnreadableFile(
                f"{path} has no column {order}, which --order names; "
                f"columns: {', '.join(table.columns)}"
            )
        found["order"] = order
        needed = needed[:-1]
    require(path, list(table.columns), found, *needed, otherwise=_otherwise(found))
    with readable(path):
        rows = _read(table, found, now)
    refused = (
        rows.filter(pl.col("reason").is_not_null())
        .group_by("reason")
        .agg(n=pl.len(), first=pl.col("index").min() + 1)
        .sort("n", "first", descending=[True, False])
    )
    skipped = dict(refused.select("reason", "n").iter_rows())
    first = dict(refused.select("reason", "first").iter_rows())
    kept = rows.filter(pl.col("reason").is_null())
    if len(rows) and not len(kept):
        raise UnreadableFile(f"{path} has no row to use ({listed(skipped)})")
    kept = kept.sort("timestamp" if order is None else "order", maintain_order=True)
    wanted_rows = kept if limit is None else kept.head(limit)
    read = _coded(path, wanted_rows, found, skipped, first, event_types)
    if "event" not in found and "type" in table.columns:
        read.warnings.append("column type isn't used; --map event=type takes it for the event")
    return read


def _otherwise(found: Collection[str]) -> str:
    """What a file may be that has ids of one kind and no times."""
    if "timestamp" in found or ("user_id" in found) == ("item_id" in found):
        return ""
    kind = "items" if "item_id" in found else "users"
    return f"; a file of {kind} goes in with `headwater import --{kind}`"


def _read(table: Table, found: Mapping[str, str], now: float) -> pl.DataFrame:
    """Every row of the file: its fields, parsed, and the reason why it can't be used, if any."""
    path, raw = table.path, table.read(found)
    if is_json_lines(path):
        with opened_lines(path) as lines:
            of_ids = {field: found[field] for field in (*_IDS, "anonymous_id") if field in found}
            raw = json_ids(lines, raw, of_ids)
    raw, types = raw.with_row_index("index"), raw.schema
    nothing = pl.lit(None)
    parsed = {
        field: id_text(field, types[field], path) if field in found else nothing.cast(pl.String)
        for field in _IDS
    }
    if "anonymous_id" in found:
        # As on the wire: an event without a user may still be of somebody.
        nobody = ANONYMOUS + id_text("anonymous_id", types["anonymous_id"], path)
        parsed["user_id"] = pl.coalesce(parsed["user_id"], nobody)
    if "event" not in found:
        parsed["event"] = pl.lit("rating" if "value" in found else "view")
    parsed["value"] = parsed["order"] = nothing.cast(pl.Float64)
    unreadable = dict.fromkeys(("timestamp", "value", "order"), pl.lit(False))
    for field, read in (("value", number), ("order", ordering), ("timestamp", seconds)):
        if field in found:
            parsed[field] = read(field, types[field], path)
            unreadable[field] = ~absent(field, types[field])
    if "timestamp" not in found:
        parsed["timestamp"] = parsed["order"].rank("dense").cast(pl.Float64)
    rows = raw.select(
        pl.col("index").cast(pl.Int64),
        pl.col(FAULT),
        **parsed,
        **{
            f"{field} unreadable": parsed[field].is_null() & given
            for field, given in unreadable.items()
        },
    )
    return rows.with_columns(reason=_reason(now, found.get("order")))


def _reason(now: float, by: str | None) -> pl.Expr:
    """The first thing that is wrong with a row, in words that don't depend on its values."""
    timestamp, value, event = pl.col("timestamp"), pl.col("value"), pl.col("event")
    wrong: list[tuple[pl.Expr, str]] = []
    if by is not None:
        wrong += [
            (pl.col("order unreadable"), f"{by} is not a number"),
            (pl.col("order").is_null(), f"{by} is missing"),
            (pl.col("order").is_infinite(), f"{by} is not finite"),
        ]
    for field in ("user_id", "item_id"):
        wrong.append((pl.col(field).is_null(), f"{field} is missing"))
    for field in ("user_id", "item_id", "session_id", "recommendation_id"):
        length = pl.col(field).str.len_chars()
        wrong.append((length > MAX_ID_LENGTH, f"{field} is longer than {MAX_ID_LENGTH} characters"))
    wrong += [
        (event.is_null(), "event is missing"),
        (
            event.str.len_chars() > MAX_TYPE_LENGTH,
            f"event is longer than {MAX_TYPE_LENGTH} characters",
        ),
        (pl.col("timestamp unreadable"), "timestamp is not a time"),
        (timestamp.is_null(), "timestamp is missing"),
        (timestamp < 0, "timestamp is before 1970"),
        (timestamp > now + MAX_AHEAD, "timestamp is in the future"),
        (pl.col("value unreadable"), "value is not a number"),
        (value.is_infinite(), "value is not finite"),
        (value.abs() > MAX_FLOAT32, "value is not finite in single precision"),
    ]
    reasons = (pl.when(is_wrong).then(pl.lit(reason)) for is_wrong, reason in wrong)
    return pl.coalesce(pl.col(FAULT), *reasons)


def _coded(
    path: Path,
    rows: pl.DataFrame,
    found: dict[str, str],
    skipped: dict[str, int],
    first_skipped: dict[str, int],
    event_types: Collection[str],
) -> Interactions:
    codes: dict[str, Ints] = {}
    names: dict[str, list[str]] = {}
    for field in _IDS:
        codes[field], names[field] = _codes(rows[field])
    unknown = [
        f"event type {name} is unknown: {int((codes['event'] == code).sum())} events are kept with "
        f"weight 0; [events.{name}] in the settings gives it one"
        for code, name in enumerate(names["event"])
        if name not in event_types
    ]
    return Interactions(
        path=path,
        user_codes=codes["user_id"],
        user_ids=names["user_id"],
        item_codes=codes["item_id"],
        item_ids=names["item_id"],
        timestamps=rows["timestamp"].to_numpy(writable=True),
        type_codes=codes["event"],
        type_names=names["event"],
        values=rows["value"].fill_null(math.nan).to_numpy(writable=True),
        session_codes=codes["session_id"],
        session_ids=names["session_id"],
        recommendation_codes=codes["recommendation_id"],
        recommendation_ids=names["recommendation_id"],
        index=rows["index"].to_numpy(writable=True),
        columns=found,
        skipped=skipped,
        first_skipped=first_skipped,
        warnings=unknown,
    )


def _codes(texts: pl.Series) -> tuple[Ints, list[str]]:
    """Codes in order of first appearance, -1 for null, and the text of each code."""
    names = texts.drop_nulls().unique(maintain_order=True)
    codes = texts.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1)
    return codes.to_numpy(writable=True), names.to_list()
