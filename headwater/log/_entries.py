"""Entries as the logs store them: checked on the way in, so that reading never fails."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite
from typing import Any

import msgspec

from headwater.errors import LogError
from headwater.types import Blank, Entry, Event, Item, Promotion, Rollback, User

MAX_NESTING = 64
"""Deepest nesting of an event's context. Decoding recurses, and how deep it may depends on the
caller's stack: without a limit, an event that one thread could store would stop another's loop."""

DEAD_LETTERS_KEPT = 100_000
"""Newest dead letters that are kept: a client that only sends garbage must not fill the disk."""

Row = tuple[bytes | None, str | None, str | None, float, float, bytes]
"""entry_id, source, event_id (None for what isn't an event), received_at, own time, payload."""

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)

BLANK = _encode(Blank())
"""The payload of an erased entry."""

NO_TIME = 0.0
"""Own time of an entry that isn't an event: it must not move the stream time, or a catalogue that
goes in before its history would turn all of that history into now."""


ROLLBACKS = "headwater/rollback"
PROMOTIONS = "headwater/promotion"
"""Sources under which rollbacks and promotions stand in the index of event ids."""

ORDERS = frozenset({ROLLBACKS, PROMOTIONS})


def check(entries: Sequence[Entry], received_at: float) -> None:
    """Refuses numbers that aren't finite: JSON has none, and no time is before or after NaN.

    Raises:
        LogError: names the entry and the field.
    """
    if not isfinite(received_at):
        raise LogError(f"received_at is {received_at!r}; give a finite number of seconds")
    for index, entry in enumerate(entries):
        if type(entry) is Event:
            if not isfinite(entry.timestamp):
                raise _not_finite(index, "timestamp", entry.timestamp)
            if entry.value is not None and not isfinite(entry.value):
                raise _not_finite(index, "value", entry.value)
        elif type(entry) is Item:
            _check_item(index, entry)
        elif type(entry) is User:
            _check_attributes(index, entry)


def encode(entries: Sequence[Entry], received_at: float) -> list[Row]:
    """Rows to insert, in order.

    Raises:
        LogError: an entry can't be stored; none of its call is.
    """
    check(entries, received_at)
    rows: list[Row] = []
    for index, entry in enumerate(entries):
        try:
            payload = _encode(entry)
            if type(entry) is Event:
                source, event_id = entry.source, entry.event_id
                id = entry_id(source, event_id)
                own_time = min(entry.timestamp, received_at)
                rows.append((id, source, event_id, received_at, own_time, payload))
                if entry.context is not None:
                    _check_nesting(index, entry.context, payload)
            elif type(entry) is Rollback:
                id = entry_id(ROLLBACKS, entry.rollback_id)
                rows.append((id, ROLLBACKS, entry.rollback_id, received_at, NO_TIME, payload))
            elif type(entry) is Promotion:
                id = entry_id(PROMOTIONS, entry.promotion_id)
                rows.append((id, PROMOTIONS, entry.promotion_id, received_at, NO_TIME, payload))
            else:
                rows.append((None, None, None, received_at, NO_TIME, payload))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise LogError(f"entries[{index}] can't be stored as JSON: {error}") from error
    return rows


def entry_id(source: str | None, event_id: str) -> bytes:
    """What the index of ids holds, by the columns of an entry, erased ones too."""
    if source is None:
        return bytes.fromhex(event_id)
    return blake2b(_encode((source, event_id)), digest_size=16).digest()


def erased_id(source: str, event_id: str) -> str:
    """What stands for the id of an erased event: equal for equal ids, and no id itself."""
    return entry_id(source, event_id).hex()


def decode(offset: int, payload: bytes) -> Entry:
    """The entry that was stored at ``offset``."""
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise LogError(
            f"the entry at offset {offset} can't be read: {error}; a newer version of Headwater "
            "may have written it"
        ) from error


def _check_item(index: int, item: Item) -> None:
    for name in ("price", "published_at"):
        number = getattr(item, name)
        if number is not None and not isfinite(number):
            raise _not_finite(index, name, number)
    _check_attributes(index, item)
    for name, vector in item.vectors.items():
        for value in vector:
            if not isfinite(value):
                raise _not_finite(index, f"vectors.{name}", value)


def _check_attributes(index: int, entry: Item | User) -> None:
    for name, value in entry.attributes.items():
        if isinstance(value, float) and not isfinite(value):
            raise _not_finite(index, f"attributes.{name}", value)


def _check_nesting(index: int, context: dict[str, Any], payload: bytes) -> None:
    if payload.count(b"{") + payload.count(b"[") <= MAX_NESTING:
        return
    level: list[Any] = [context]
    for _ in range(MAX_NESTING):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list | tuple)
        ]
        if not level:
            return
    raise LogError(f"entries[{index}].context nests deeper than {MAX_NESTING} levels; flatten it")


def _not_finite(index: int, field: str, value: float) -> LogError:
    return LogError(f"entries[{index}].{field} is {value!r}; give a finite number")
