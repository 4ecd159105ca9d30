"""Blocks: a row of the events log's file holds many entries.

Most of what an entry costs as a row of its own is the row: SQLite's step, its bindings, and a
message to encode and to decode. In a block all that comes once for many. The entries of a block
are of one kind and their offsets follow each other; what lies between two kinds ends a block,
and an order (a rollback, a promotion) is one by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, compress, groupby, repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from headwater.errors import LogError
from headwater.log import NO_TIME
from headwater.log._entries import (
    PROMOTIONS,
    ROLLBACKS,
    check,
    check_nesting,
    entry_id,
    entry_ids,
)
from headwater.log._payloads import (
    DEFAULTS,
    EVENTS,
    FIELDS,
    OTHERS,
    PROMOTION,
    RESUME,
    ROLLBACK,
    Columns,
    Stored,
    columns,
    ids,
    numbers,
    pack,
    unpack,
    unpacked,
)
from headwater.log.chunks import Chunk, Packed, Strings
from headwater.types import Blank, Doubles, Entry, Event, Promotion, Record, Resume, Rollback

MOST = 256
"""Entries of a block, as many as their types have codes. At 100 the row is already a small part of
what an event costs; more would have to be decoded by whoever reads one entry."""

_ID, _TIMESTAMP, _VALUE, _CONTEXT, _SOURCE = map(
    FIELDS.index, ("event_id", "timestamp", "value", "context", "source")
)
_KINDS: dict[type, int] = {
    Event: EVENTS,
    Rollback: ROLLBACK,
    Promotion: PROMOTION,
    Resume: RESUME,
}
_UNSTORABLE = (TypeError, ValueError, OverflowError, RecursionError)


class Part(NamedTuple):
    """Entries of one kind that follow each other in one call."""

    kind: int
    columns: Columns
    ids: Sequence[bytes | None]
    own_times: Doubles  # (n,) NO_TIME for what isn't an event
    received_at: float

    def only(self, wanted: Sequence[bool]) -> Part:
        """Those that are wanted."""
        return self._replace(
            columns=tuple(c if c is None else list(compress(c, wanted)) for c in self.columns),
            ids=list(compress(self.ids, wanted)),
            own_times=self.own_times[np.array(wanted, np.bool_)],
        )


class Block(NamedTuple):
    """A row of the table ``blocks``."""

    first: int
    n: int
    kind: int
    received: bytes  # float64, one for all of them or one for each
    times: bytes  # stream times, likewise
    payload: bytes


class Piece(NamedTuple):
    """Those entries of a block that stand from place ``start`` to before ``stop``."""

    block: Block
    start: int
    stop: int


def parts(entries: Sequence[Entry], received_at: float) -> list[Part]:
    """The entries of one call as they are to be stored, in order.

    Raises:
        LogError: an entry can't be stored; none of its call is.
    """
    check((), received_at)
    try:
        return _parts(entries, received_at)
    except _UNSTORABLE as error:
        check(entries, received_at)
        for index, entry in enumerate(entries):
            try:
                _parts([entry], received_at)
            except _UNSTORABLE as reason:
                raise LogError(f"entries[{index}] can't be stored: {reason}") from error
        raise


def blocks(accepted: Iterable[Part], first: int, newest: float) -> list[Block]:
    """What is to be written.

    Args:
        accepted: in order.
        first: offset of the first of them.
        newest: stream time of the entry before.
    """
    made: list[Block] = []
    for kind, of_kind in groupby(accepted, lambda part: part.kind):
        run = list(of_kind)
        joined, most = _joined(run), MOST if kind in (EVENTS, OTHERS) else 1
        received = np.repeat([p.received_at for p in run], [len(p.ids) for p in run])
        own_times = np.concatenate([[newest], *(p.own_times for p in run)])
        stream = np.maximum.accumulate(own_times)[1:]
        for start in range(0, len(stream), most):
            some = slice(start, start + most)
            piece = tuple(c if c is None else c[some] for c in joined)
            made.append(_block(first + start, kind, received[some], stream[some], piece))
        first, newest = first + len(stream), float(stream[-1])
    return made


def cut(piece: Piece) -> Block:
    """A block of its own."""
    block, start, stop = piece
    with _readable(block.first):
        of = tuple(c if c is None else c[start:stop] for c in unpack(block.kind, block.payload))
    return _block(block.first + start, block.kind, *times(piece), of)


def blanked(block: Block, offsets: Sequence[int]) -> list[Block]:
    """What takes a block's place when some of its entries are erased: ids stay, as hashes."""
    known, made = ids_of(block), []
    places = [offset - block.first for offset in offsets]
    for is_erased, of in groupby(range(block.n), set(places).__contains__):
        run = list(of)
        piece = Piece(block, run[0], run[-1] + 1)
        if is_erased:
            kept = [None if (id := known[place]) is None else id.hex() for place in run]
            blanks = (kept, [Blank()] * len(run))
            made.append(_block(block.first + run[0], OTHERS, *times(piece), blanks))
        else:
            made.append(cut(piece))
    return made


def ids_of(block: Block) -> list[bytes | None]:
    """By which its entries are known; ``None`` for one that may come again."""
    with _readable(block.first):
        if block.kind != EVENTS:
            return [None if id is None else bytes.fromhex(id) for id in ids(block.payload)]
        stored = Stored(block.payload)
        return [*entry_ids(stored["source"], stored["event_id"])]


def times(piece: Piece) -> tuple[Doubles, Doubles]:
    """When its entries were received, and their stream times."""
    block, start, stop = piece
    return _numbers(block.received, start, stop), _numbers(block.times, start, stop)


def records(piece: Piece) -> Iterator[Record]:
    """Its entries.

    Raises:
        LogError: they can't be read.
    """
    block, start, stop = piece
    with _readable(block.first):
        found = unpack(block.kind, block.payload)
    entries: Iterable[Entry]
    if block.kind == EVENTS:
        pairs = zip(found, DEFAULTS, strict=True)
        entries = map(Event, *(repeat(d) if c is None else c[start:stop] for c, d in pairs))
    else:
        entries = (found[1] or ())[start:stop]
    received, stream = times(piece)
    return map(
        Record,
        range(block.first + start, block.first + stop),
        received.tolist(),
        stream.tolist(),
        entries,
    )


def chunk(pieces: Sequence[Piece]) -> Chunk:
    """Their entries by the column.

    Raises:
        LogError: they can't be read.
    """
    if not pieces:
        return Chunk.of([])
    names: dict[str, int] = {}
    users: list[Packed] = []
    items: list[Packed] = []
    sessions: list[str | None] = []
    recommendations: list[str | None] = []
    types, own_times, imported, places = [], [], [], []
    others: list[Record] = []
    before = 0
    for piece in pieces:
        block, start, stop = piece
        n = stop - start
        if block.kind == EVENTS:
            with _readable(block.first):
                stored = Stored(block.payload)
                kinds, codes = stored["type"]
                code = np.array([names.setdefault(kind, len(names)) for kind in kinds], np.int32)
                types.append(code[np.frombuffer(codes, np.uint8)[start:stop]])
                own_times.append(numbers(stored["timestamp"])[start:stop])
                users.append(Packed(stored.packed("user_id", block.n), start, stop))
                items.append(Packed(stored.packed("item_id", block.n), start, stop))
                sessions += (stored["session_id"] or [None] * stop)[start:stop]
                named = stored["recommendation_id"] or [None] * stop
                recommendations += named[start:stop]
                flags = (stored["imported"] or [False] * stop)[start:stop]
            imported.append(np.array(flags, np.bool_))
            places.append(np.arange(before, before + n))
        else:
            others += records(piece)
        before += n
    received, stream = zip(*map(times, pieces), strict=True)
    first = pieces[0].block.first + pieces[0].start
    return Chunk(
        offsets=np.arange(first, first + before),
        received=np.concatenate(received),
        times=np.concatenate(stream),
        places=_joined_arrays(places, np.int64),
        users=Strings(users, partial(_decoded, "user_id", first)),
        items=Strings(items, partial(_decoded, "item_id", first)),
        types=_joined_arrays(types, np.int32),
        type_names=list(names),
        own_times=_joined_arrays(own_times, np.float64),
        sessions=sessions,
        recommendations=recommendations,
        imported=_joined_arrays(imported, np.bool_),
        others=others,
    )


def _parts(entries: Sequence[Entry], received_at: float) -> list[Part]:
    if set(map(type, entries)) == {Event}:
        return [_part_of_events(entries, received_at)]  # type: ignore[arg-type]
    made: list[Part] = []
    index = 0
    for kind, of_kind in groupby(entries, lambda entry: _KINDS.get(type(entry), OTHERS)):
        run: list[Any] = list(of_kind)
        if kind == EVENTS:
            made.append(_part_of_events(run, received_at))
        else:
            check(run, received_at, index)
            made.append(_part_of_others(kind, run, received_at))
        index += len(run)
    return made


def _part_of_events(events: Sequence[Event], received_at: float) -> Part:
    of = columns(events)
    timestamps = np.array(of[_TIMESTAMP], np.float64)
    values = np.array([value for value in of[_VALUE] or () if value is not None], np.float64)
    if not (np.isfinite(timestamps).all() and np.isfinite(values).all()):
        raise ValueError("a number isn't finite")
    for context in of[_CONTEXT] or ():
        if context is not None:
            check_nesting(context)
    known = entry_ids(of[_SOURCE], of[_ID] or ())
    # Only to see that it can be: what is stored doesn't hold the duplicates.
    pack(EVENTS, of)
    return Part(EVENTS, of, known, np.minimum(timestamps, received_at), received_at)


def _part_of_others(kind: int, entries: Sequence[Entry], received_at: float) -> Part:
    known = [_order_id(entry) for entry in entries]
    of = ([None if id is None else id.hex() for id in known], entries)
    pack(kind, of)
    return Part(kind, of, known, np.full(len(entries), NO_TIME), received_at)


def _order_id(entry: Entry) -> bytes | None:
    if isinstance(entry, Rollback):
        return entry_id(ROLLBACKS, entry.rollback_id)
    return entry_id(PROMOTIONS, entry.promotion_id) if isinstance(entry, Promotion) else None


def _joined(run: Sequence[Part]) -> Columns:
    """The columns of parts of one kind behind each other."""
    if len(run) == 1:
        return run[0].columns
    defaults = DEFAULTS if run[0].kind == EVENTS else [None, None]
    return tuple(
        None
        if all(c is None for c in of_field)
        else list(
            chain.from_iterable(
                [default] * len(part.ids) if c is None else c
                for c, part in zip(of_field, run, strict=True)
            )
        )
        for of_field, default in zip(
            zip(*(part.columns for part in run), strict=True), defaults, strict=True
        )
    )


def _block(first: int, kind: int, received: Doubles, times: Doubles, of: Columns) -> Block:
    return Block(first, len(times), kind, _bytes(received), _bytes(times), pack(kind, of))


def _bytes(values: Doubles) -> bytes:
    return np.array(values[:1] if (values == values[0]).all() else values, "<f8").tobytes()


def _numbers(stored: bytes, start: int, stop: int) -> Doubles:
    found = numbers(stored)
    return np.full(stop - start, found[0]) if len(found) == 1 else found[start:stop]


def _decoded(field: str, first: int, parts: Sequence[Packed]) -> list[Any]:
    with _readable(first):
        return [
            string
            for part in parts
            for string in unpacked(field, part.array)[part.start : part.stop]
        ]


def _joined_arrays(arrays: Sequence[NDArray[Any]], dtype: type) -> Any:
    return np.concatenate([np.zeros(0, dtype), *arrays])


@contextmanager
def _readable(first: int) -> Iterator[None]:
    try:
        yield
    except msgspec.MsgspecError as error:
        raise LogError(
            f"the entries from offset {first} on can't be read: {error}; a newer version of "
            "Headwater may have written them"
        ) from error
