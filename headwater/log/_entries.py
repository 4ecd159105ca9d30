"""Entries as the logs store them: checked on the way in, so that reading never fails."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite
from typing import Any

from headwater.errors import LogError
from headwater.types import Entry, Event, Item, User

MAX_NESTING = 64
"""Deepest nesting of an event's context. Decoding recurses, and how deep it may depends on the
caller's stack: without a limit, an event that one thread could store would stop another's loop."""

DEAD_LETTERS_KEPT = 100_000
"""Newest dead letters that are kept: a client that only sends garbage must not fill the disk."""

ROLLBACKS = "headwater/rollback"
PROMOTIONS = "headwater/promotion"
"""Sources under which rollbacks and promotions stand in the index of event ids."""


def check(entries: Sequence[Entry], received_at: float, first: int = 0) -> None:
    """Refuses numbers that aren't finite: JSON has none, and no time is before or after NaN.

    Args:
        entries: of one call.
        received_at: seconds since 1970.
        first: place of the first of them in that call.

    Raises:
        LogError: names the entry and the field.
    """
    if not isfinite(received_at):
        raise LogError(f"received_at is {received_at!r}; give a finite number of seconds")
    for index, entry in enumerate(entries, first):
        if type(entry) is Event:
            if not isfinite(entry.timestamp):
                raise _not_finite(index, "timestamp", entry.timestamp)
            if entry.value is not None and not isfinite(entry.value):
                raise _not_finite(index, "value", entry.value)
        elif type(entry) is Item:
            _check_item(index, entry)
        elif type(entry) is User:
            _check_attributes(index, entry)


def entry_id(source: str, event_id: str) -> bytes:
    """What the index of ids holds: a hash, by which two sources may use the same id."""
    return blake2b(f"{len(source)}:{source}{event_id}".encode(), digest_size=16).digest()


def entry_ids(sources: Sequence[str] | None, event_ids: Sequence[str]) -> list[bytes]:
    """The same of many, ``None`` standing for no source at all."""
    if sources is not None:
        return list(map(entry_id, sources, event_ids))
    return [blake2b(f"0:{id}".encode(), digest_size=16).digest() for id in event_ids]


def erased_id(source: str, event_id: str) -> str:
    """What stands for the id of an erased event: equal for equal ids, and no id itself."""
    return entry_id(source, event_id).hex()


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


def check_nesting(context: dict[str, Any]) -> None:
    """Refuses a context that nests too deep by a ``ValueError``."""
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
    raise ValueError(f"its context nests deeper than {MAX_NESTING} levels; flatten it")


def _not_finite(index: int, field: str, value: float) -> LogError:
    return LogError(f"entries[{index}].{field} is {value!r}; give a finite number")
