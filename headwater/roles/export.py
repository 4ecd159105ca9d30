"""``headwater export``: the events log as a file that ``headwater import`` reads back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headwater.deploy import Snapshots
from headwater.errors import HeadwaterError
from headwater.ingest import EXPORT_KEY, JSON_COLUMNS
from headwater.log import EventsLog
from headwater.roles.bulk import existing_log
from headwater.types import (
    Entry,
    Event,
    Item,
    ItemRemoval,
    Record,
    Rollback,
    User,
    UserRemoval,
)

if TYPE_CHECKING:
    from headwater.preprocess import Catalogue, Profiles, Vocabulary

    Loaded = TypeVar("Loaded", Catalogue, Profiles, Vocabulary)

Progress = Callable[[int, int], None]
What = Literal["events", "items", "users"]

_MOST = 1_000
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
    progress: Progress = lambda done, total: None,
) -> int:
    """Writes every event that counts, in order, or the newest state of every item or user.

    Of events, those that the log still holds, without what a rollback has set aside and what a
    user did before it was removed. Items and users that were set before the log begins come from
    the newest snapshot, and stand first. A removed user is left out; a removed item is written as
    its removal, as events may name it still.

    The file is there as a whole, or not at all; an older one is replaced.

    Args:
        path: the extension tells the format, JSONL or Parquet.
        progress: called with the offsets looked at and those there are.

    Returns:
        How many were written, removals aside.

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
            events = what == "events"
            found = _events(log, progress) if events else _described(log, data, what, progress)
            with opened(part, what) as write:
                written = 0
                for entries in found:
                    write(entries)
                    written += sum(isinstance(entry, _KINDS[what]) for entry in entries)
        part.replace(path)
    except OSError as error:
        raise HeadwaterError(f"{path} can't be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return written


def _events(log: EventsLog, progress: Progress) -> Iterator[list[Entry]]:
    after, end = log.start(), log.end()
    removed = _newest(log, (UserRemoval,), after, end)
    orders = [order.entry for order in log.rollbacks(0)]
    aside = [(order.first, order.through) for order in orders if isinstance(order, Rollback)]
    for records in _read(log, after, end, progress):
        yield [
            event
            for record in records
            if isinstance(event := record.entry, Event)
            and removed.get(event.user_id, 0) < record.offset
            and not any(first <= record.offset <= through for first, through in aside)
        ]


def _described(log: EventsLog, data: Path, what: What, progress: Progress) -> Iterator[list[Entry]]:
    after, end = log.start(), log.end()
    kinds = (Item, ItemRemoval) if what == "items" else (User, UserRemoval)
    newest = _newest(log, kinds, after, end)
    if after > 0:
        yield [entry for entry in _folded(data, what) if _id(entry) not in newest]
    for records in _read(log, after, end, progress):
        yield [
            entry
            for record in records
            if isinstance(entry := record.entry, Item | ItemRemoval | User)
            and newest.get(_id(entry)) == record.offset
        ]


def _read(log: EventsLog, after: int, end: int, progress: Progress) -> Iterator[list[Record]]:
    while after < end and (records := log.read(after, min(_MOST, end - after))):
        after = records[-1].offset
        yield records
        progress(after, end)


def _folded(data: Path, what: What) -> Iterator[Entry]:
    """Items, and which are removed, or users, as the newest snapshot has them."""
    from headwater.preprocess import Catalogue, Profiles, Vocabulary

    found = Snapshots(data / "snapshots", keep=1).newest()
    if found is None:
        raise HeadwaterError(
            f"the {what} that {data} was told of first are no longer in the log, and there is no "
            "snapshot that holds them; restore a backup, or export the events alone"
        )

    state, _ = found

    def loaded(part: Loaded, name: str) -> Loaded:
        prefix = f"preprocess.{name}."
        part.load({name.removeprefix(prefix): array for name, array in state.items()})
        return part

    if what == "users":
        yield from loaded(Profiles(), "profiles")
        return
    catalogue, ids = loaded(Catalogue(), "catalogue"), loaded(Vocabulary(), "items")
    yield from catalogue
    yield from (ItemRemoval(id) for row, id in enumerate(ids) if catalogue.is_removed(row))


def _newest(log: EventsLog, kinds: tuple[type[Entry], ...], after: int, end: int) -> dict[str, int]:
    """The offset of the newest entry of these kinds that names each id: no more is held."""
    offsets: dict[str, int] = {}
    while after < end and len(read := log.chunk(after, min(_MOST, end - after))):
        after = int(read.offsets[-1])
        for record in read.others:
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
    *("scenario", "surface", "title", "text", "entry", *JSON_COLUMNS),
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
    names = kind.__struct_fields__
    if kind is Item:
        names += ("entry",)  # that of a removal; null elsewhere, as the metadata says the kind
    schema = pa.schema(
        [(name, _TYPES[name]) for name in names],
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
    if isinstance(entry, ItemRemoval):
        row["entry"] = ItemRemoval.__struct_config__.tag
    for name in JSON_COLUMNS:
        if row.get(name) is not None:
            row[name] = msgspec.json.encode(row[name]).decode()
    return row
