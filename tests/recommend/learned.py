"""A small system that has learned the checkerboard, through the loop that serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headwater.config import Config
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Fold, Learner
from headwater.testing import checkerboard, checkerboard_items
from headwater.types import Entry, Event, Request
from tests.model.arrays import small

NOW = 1e9 + 1e5
"""A little after the newest event of the streams here."""


def learner(entries: Sequence[Entry], config: Config | None = None) -> Learner:
    """A learner that has learned the entries."""
    events = MemoryEventsLog()
    events.append(entries, 2e9)
    found = Learner(config or small(), events, MemoryUpdatesLog(), None)
    while found.step():
        pass
    return found


def learned(n: int = 400, **sections: Any) -> Fold:
    return learner([*checkerboard_items(), *checkerboard(n)], small(**sections)).fold


def ratings(n: int) -> list[Event]:
    """The checkerboard with ratings in place of views: items are used up."""
    return [
        Event(event.event_id, "rating", event.user_id, event.timestamp, event.item_id)
        for event in checkerboard(n)
    ]


def requests() -> list[Request]:
    """A bit of everything that may be asked."""
    return [
        Request(10, "u0"),
        Request(10, "u1", session_items=("i3", "i5", "no such item")),
        Request(10),
        Request(10, "nobody", exclude=frozenset({"i0", "i1", "no such item"})),
        Request(10, session_items=("i8", "i10", "i12"), exclude=frozenset({"i8"})),
        Request(10, "u7", session_items=tuple(f"i{n}" for n in range(25))),
    ]


def numbers(fold: Fold, rows: np.ndarray) -> list[int]:
    """The items of a list by the number in their id, places past the end left out."""
    return [int(fold.preprocess.items.id(row)[1:]) for row in rows.tolist() if row >= 0]
