"""What a block holds of its entries: events by the column, all else one by one.

A column in which every event has the default takes a byte, so an event costs little more than
its ids, and who only counts decodes the columns that it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from headwater.types import Doubles, Entry, Event

EVENTS, OTHERS, ROLLBACK, PROMOTION, RESUME = range(5)
"""Kinds of block."""

Columns = tuple[Sequence[Any] | None, ...]
"""Of events: a sequence by field, ``None`` where all have the default. Of other entries: in hex the
ids of those that have one (orders, and events that were erased), and the entries."""

FIELDS = Event.__struct_fields__
DEFAULTS: list[Any] = [
    () if field.name == "passed_over" else field.default for field in msgspec.structs.fields(Event)
]

_NIL = msgspec.msgpack.encode(None)
_STORED = {
    "event_id": list[str],
    "type": tuple[list[str], bytes],  # the names, and the place of each event's among them
    "user_id": list[str],
    "timestamp": bytes,  # float64
}
_decoders = {
    field.name: msgspec.msgpack.Decoder(_STORED.get(field.name, list[field.type] | None))  # type: ignore[name-defined]
    for field in msgspec.structs.fields(Event)
}
_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_others = msgspec.json.Decoder(list[tuple[str | None, Entry]]).decode
_ids = msgspec.json.Decoder(list[tuple[str | None, msgspec.Raw]]).decode


def columns(events: Sequence[Event]) -> Columns:
    """The columns of events, one or more."""
    whole = zip(*map(msgspec.structs.astuple, events), strict=True)
    return tuple(
        None if column.count(default) == len(column) else column
        for column, default in zip(whole, DEFAULTS, strict=True)
    )


def pack(kind: int, of: Columns) -> bytes:
    """Columns as they are stored."""
    if kind != EVENTS:
        return msgspec.json.encode(list(zip(*of, strict=True)))
    stored: dict[str, Any] = dict(zip(FIELDS, of, strict=True))
    codes = {name: code for code, name in enumerate(dict.fromkeys(stored["type"]))}
    stored["type"] = (list(codes), bytes(map(codes.__getitem__, stored["type"])))
    stored["timestamp"] = np.array(stored["timestamp"], "<f8").tobytes()
    return msgspec.msgpack.encode(list(stored.values()))


def unpack(kind: int, payload: bytes) -> Columns:
    """The columns that were stored."""
    if kind != EVENTS:
        return tuple(zip(*_others(payload), strict=True))
    stored = Stored(payload)
    names, codes = stored["type"]
    special = {
        "type": [names[code] for code in codes],
        "timestamp": numbers(stored["timestamp"]).tolist(),
    }
    return tuple(special[name] if name in special else stored[name] for name in FIELDS)


class Stored:
    """The columns of events, of which those that are asked for are decoded."""

    def __init__(self, payload: bytes) -> None:
        self._raws = dict(zip(FIELDS, _raws(payload), strict=True))

    def __getitem__(self, name: str) -> Any:
        return unpacked(name, self._raws[name])

    def packed(self, name: str, n: int) -> bytes:
        """A column of ``n`` strings as an array, also where none has one."""
        raw = bytes(self._raws[name])
        return msgspec.msgpack.encode([None] * n) if raw == _NIL else raw


def unpacked(name: str, stored: bytes) -> Any:
    """A column from its bytes."""
    return _decoders[name].decode(stored)


def ids(payload: bytes) -> list[str | None]:
    """The ids, in hex, of entries that are no events."""
    return [id for id, _ in _ids(payload)]


def numbers(stored: bytes) -> Doubles:
    """Numbers from their bytes."""
    return np.frombuffer(stored, "<f8")
