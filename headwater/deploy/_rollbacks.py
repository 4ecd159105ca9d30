"""Orders to roll back, from what an operator or an alarm says; and what such an order set aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import uuid4

import msgspec

from headwater.errors import InvalidInput
from headwater.log import EventsLog
from headwater.types import Event, Record, Rollback, UserRemoval, Version

_READ = 1_000
"""Entries looked at together."""


def rollback_to(
    versions: Sequence[Version], to: int | None, *, through: int, by: str, why: str
) -> Rollback:
    """A rollback to a kept version, which sets aside what came since, to offset ``through``.

    Args:
        versions: as ``Versions.listed`` gives them.
        to: a number; ``None`` for the newest one.
        through: the last event to pass over.
        by: who wants it.
        why: for the audit trail.

    Raises:
        InvalidInput: there is no such version, or its state isn't kept.
    """
    kept = {version.number: version for version in versions if version.state in ("live", "kept")}
    if not kept:
        raise InvalidInput("to", "can't be met: no version is kept yet")
    number = max(kept) if to is None else to
    if number not in kept:
        numbers = ", ".join(str(one) for one in sorted(kept))
        raise InvalidInput("to", f"is {number}, which isn't kept; choose one of {numbers}")
    first = kept[number].offset + 1
    return Rollback(uuid4().hex, number, first, max(through, first - 1), by, why)


def set_aside(events: EventsLog, order: Rollback) -> Iterator[list[Event]]:
    """The events that a rollback alone has set aside, a thousand entries at a time, to be appended
    again: from then on it is as if they had come now.

    Each has an id of its own that depends on its place, so that it counts once, however often it is
    appended, and says that it is history. What another rollback has set aside too is left out,
    and so is what the log no longer holds, and whose user was removed since.

    Raises:
        Dropped: the log begins later by now.
    """
    others = [
        (other.first, other.through)
        for record in events.rollbacks(0)
        if isinstance(other := record.entry, Rollback) and other.rollback_id != order.rollback_id
    ]
    removed = {
        record.entry.user_id: record.offset
        for record in _between(events, order.first, events.end())
        if isinstance(record.entry, UserRemoval)
    }
    found: list[Event] = []
    for record in _between(events, order.first, order.through):
        event, at = record.entry, record.offset
        if not isinstance(event, Event) or removed.get(event.user_id, 0) > at:
            continue
        if any(first <= at <= through for first, through in others):
            continue
        named = {"source": f"rollback {order.rollback_id}", "event_id": str(at), "imported": True}
        found.append(msgspec.structs.replace(event, **named))
        if len(found) == _READ:
            yield found
            found = []
    if found:
        yield found


def _between(events: EventsLog, first: int, through: int) -> Iterator[Record]:
    after = first - 1
    while records := events.read(after, min(_READ, through - after)):
        yield from records
        after = records[-1].offset
        if after >= through:
            return
