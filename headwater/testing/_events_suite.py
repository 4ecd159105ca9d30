"""How the suites of an events log open it, and what they append."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headwater.log import EventsLog
from headwater.types import DeadLetter, Event, Record


class Suite(ABC):
    """Tests of an events log, which ``open`` gives them."""

    @abstractmethod
    def open(self, folder: Path) -> EventsLog:
        """An empty log, or, where the backend keeps it, the one that is in ``folder``."""


def view(event_id: str, timestamp: float = 100.0, source: str = "") -> Event:
    """A view with this id."""
    return Event(
        event_id=event_id,
        type="view",
        user_id="u1",
        item_id="i1",
        timestamp=timestamp,
        source=source,
    )


def ids_of(records: Sequence[Record]) -> list[str]:
    return [record.entry.event_id for record in records if isinstance(record.entry, Event)]


def dead_letter(number: int) -> DeadLetter:
    return DeadLetter(
        received_at=float(number),
        source="web",
        body=f'{{"number": {number}, "é": "\\u0000"}}',
        field="timestamp",
        reason="is not a time",
    )


def numbered(number: int) -> DeadLetter:
    """The same, as a log keeps it that has kept ``number`` of them."""
    return msgspec.structs.replace(dead_letter(number), number=number)
