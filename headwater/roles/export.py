"""``headwater export``: the events log as a file that ``headwater import`` reads back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headwater.deploy import Snapshots
from headwater.errors import HeadwaterError
from headwater.ingest import EXPORT_KEY, JSON_COLUMNS
from headwater.log import EventsLog
from headwater.roles.bulk import existing_log
from headwater.types import Entry, Event, Item, ItemRemoval, User, UserRemoval

What = Literal["events", "items", "users"]

_READ = 1_000
"""Records read, and rows written, at a time: what is held in memory."""

_KINDS: dict[What, type[Event] | type[Item] | type[User]] = {
    "events": Event,
    "items": Item,
    "users": User,
}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")


def export(
    path: Path,
    data: Path,
    what: What,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes every event in order, or the newest state of every item or user that isn't removed.

    Of events, those that the log still holds; items and users that were set before it begins
    come from the newest snapshot, and stand first.

    The file is there as a whole, or not at all; an older one is replaced.

    Args:
        path: the extension tells the format, JSONL or Parquet.
        progress: called with the offsets looked at and those there are.

    Returns:
        How many were written.

    Raises:
        HeadwaterError: the extension isn't known, or the file can't be written.
        LogError: there is no log, or it can't be read.
    """
    if path.suffix not in _JSON_LINES + _PARQUET:
        raise HeadwaterError(
            f"{path}: the extension must be one of {', '.join(_JSON_LINES + _PARQUET)}"
        )
    part = path.with_name(f"{path.name}.part")
    try:
        with closing(existing_log(data)) as log:
            opened = _json_lines if path.suffix in _JSON_LINES else _parquet
            with opened(part, what) as write:
                written = 0
                for entries in _entries(log, data, what, progress):
                    write(entries)
                    written += len(entries)
        part.replace(path)
    except OSError as error:
        raise HeadwaterError(f"{path} can't be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return written


def _entries(
    log: EventsLog, data: Path, what: What, progress: Callable[[int, int], None]
) -> Iterator[list[Entry]]:
    after, end = log.start(), log.end()
    newest = None if what == "events" else _newest(log, what, after, end)
    if newest is not None and after > 0:
        yield [entry for entry in _folded(data, what) if _id(entry) not in newest]
    while after < end and (records := log.read(after, min(_READ, end - after))):
        after = records[-1].offset
        yield [
            record.entry
            for record in records
            if isinstance(record.entry, _KINDS[what])
            and (newest is None or newest[_id(record.entry)] == record.offset)
        ]
        progress(after, end)


def _folded(data: Path, what: What) -> Iterable[Entry]:
    """Items or users as the newest snapshot has them."""
    from headwater.preprocess import Catalogue, Profiles

    found = Snapshots(data / "snapshots", keep=1).newest()
    if found is None:
        raise HeadwaterError(
            f"the {what} that {data} was told of first are no longer in the log, and there is no "
            "snapshot that holds them; restore a backup, or export the events alone"
        )
    fold = Catalogue() if what == "items" else Profiles()
    prefix = f"preprocess.{'catalogue' if what == 'items' else 'profiles'}."
    fold.load({name.removeprefix(prefix): array for name, array in found[0].items()})
    return fold


def _newest(log: EventsLog, what: What, after: int, end: int) -> dict[str, int]:
    """The offset of the newest description of each id, or of its removal: no more is held."""
    kinds = (Item, ItemRemoval) if what == "items" else (User, UserRemoval)
    offsets: dict[str, int] = {}
    while after < end and (records := log.read(after, min(_READ, end - after))):
        after = records[-1].offset
        for record in records:
            if isinstance(record.entry, kinds):
                offsets[_id(record.entry)] = record.offset
    return offsets


def _id(entry: Entry) -> str:
    assert isinstance(entry, Item | ItemRemoval | User | UserRemoval)
    return entry.item_id if isinstance(entry, Item | ItemRemoval) else entry.user_id


class _Write(Protocol):
    def __call__(self, entries: Sequence[Entry], /) -> None: ...


@contextmanager
def _json_lines(path: Path, _: What) -> Iterator[_Write]:
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:

        def write(entries: Sequence[Entry]) -> None:
            file.write(encoder.encode_lines(entries))

        yield write


_STRINGS = (
    *("event_id", "source", "type", "user_id", "item_id", "session_id", "recommendation_id"),
    *("scenario", "surface", "title", "text", *JSON_COLUMNS),
)
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(_STRINGS, pa.string()),
    **dict.fromkeys(("timestamp", "value", "price", "published_at"), pa.float64()),
    **dict.fromkeys(("anonymous", "imported", "available"), pa.bool_()),
    **dict.fromkeys(("categories", "tags", "passed_over"), pa.list_(pa.string())),
    "position": pa.int64(),
}


@contextmanager
def _parquet(path: Path, what: What) -> Iterator[_Write]:
    kind = _KINDS[what]
    schema = pa.schema(
        [(name, _TYPES[name]) for name in kind.__struct_fields__],
        metadata={EXPORT_KEY: what.removesuffix("s").encode()},
    )
    with pq.ParquetWriter(path, schema) as writer:

        def write(entries: Sequence[Entry]) -> None:
            if not entries:
                return
            try:
                table = pa.Table.from_pylist([_row(entry) for entry in entries], schema)
            except UnicodeEncodeError:
                raise HeadwaterError(
                    f"{path}: Parquet can't hold a text that isn't valid UTF-8; export to JSONL"
                ) from None
            writer.write_table(table)

        yield write


def _row(entry: Entry) -> dict[str, Any]:
    row = msgspec.structs.asdict(entry)
    for name in JSON_COLUMNS:
        if row.get(name) is not None:
            row[name] = msgspec.json.encode(row[name]).decode()
    return row
