"""Preprocessing the slow, plain way: a list of events per user, looked through for every event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from headwater.config import Config
from headwater.types import (
    Batch,
    Contexts,
    Entry,
    Event,
    Item,
    ItemRemoval,
    Record,
    User,
    UserRemoval,
)


def records(entries: Iterable[Entry], times: Iterable[float], after: int = 0) -> list[Record]:
    """Entries as the log holds them, from offset ``after`` + 1 on."""
    return [
        Record(offset=offset, received_at=2e9, stream_time=time, entry=entry)
        for offset, (entry, time) in enumerate(zip(entries, times, strict=True), after + 1)
    ]


def views(rows: Iterable[tuple[Any, Any, float]], type: str = "view") -> list[Record]:
    """Records of (user, item, time)."""
    events = [
        Event(f"e{n}", type, str(user), time, item_id=str(item))
        for n, (user, item, time) in enumerate(rows)
    ]
    return records(events, [event.timestamp for event in events])


def cut(stream: Sequence[Record], ends: Iterable[int]) -> list[Sequence[Record]]:
    """The stream in pieces that end before the given places; none is empty."""
    places = sorted({0, *(end for end in ends if 0 < end < len(stream)), len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


@dataclass
class Remembered:
    item: str
    type: str
    time: float
    session: str | None


@dataclass
class Running:
    """A group of one user's simultaneous events that may go on."""

    time: float
    events: list[Remembered] = field(default_factory=list)
    targets: set[str] = field(default_factory=set)


class Plain:
    """What ``Preprocessor`` should say of each event, with ids in place of rows."""

    def __init__(self, config: Config, grouped: bool = False) -> None:
        self.types = config.event_types
        self.repeats = config.recommend.repeats
        self.length = config.preprocess.history_length
        self.gap = config.preprocess.session_gap_minutes * 60.0
        self.grouped = grouped
        self.histories: dict[str, list[Remembered]] = {}
        self.named: list[str] = []
        self.groups: dict[str, Running] = {}

    def batch(self, stream: Sequence[Record]) -> list[dict[str, Any]]:
        said = []
        for record in stream:
            if isinstance(record.entry, Event):
                said.append(self._event(record, record.entry))
            elif isinstance(record.entry, UserRemoval):
                self.histories.pop(record.entry.user_id, None)
                self.groups.pop(record.entry.user_id, None)
        return said

    def _event(self, record: Record, event: Event) -> dict[str, Any]:
        kind = self.types.get(event.type)
        polarity = kind.polarity if kind else 0
        item, time = event.item_id, record.stream_time
        group = self.groups.get(event.user_id)
        if group is None or group.time != time:
            if group is not None:
                self.histories.setdefault(event.user_id, []).extend(group.events)
            group = self.groups[event.user_id] = Running(time)
        target = item is not None and polarity > 0
        if self.grouped and target:
            assert item is not None
            target = item not in group.targets
            group.targets.add(item)
        said = {
            "offset": record.offset,
            "item": item,
            "type": event.type if kind else "",
            "weight": kind.weight if kind else 0.0,
            "polarity": polarity,
            "target": target,
            "item_events_before": self.named.count(item) if item is not None else 0,
            **self.context(event.user_id, time, event.session_id),
        }
        if item is not None:
            self.named.append(item)
            if polarity:
                seen = Remembered(item, event.type, time, event.session_id)
                if self.grouped:
                    group.events.append(seen)
                else:
                    self.histories.setdefault(event.user_id, []).append(seen)
        return said

    def context(self, user: str | None, time: float, session: str | None) -> dict[str, Any]:
        history = self.histories.get(user, []) if user is not None else []
        return {
            "user": user,
            "time": time,
            "history": [(e.item, e.type, e.time) for e in history[-self.length :]],
            "history_length": len(history),
            "session_length": self._session(history, time, session),
            "excluded": {e.item for e in history if not self._again(e.type)},
        }

    def _session(self, history: list[Remembered], time: float, session: str | None) -> int:
        """Events back to the first pause or change of id, seen from ``time`` and ``session``."""
        n = 0
        for event in reversed(history):
            if time - event.time > self.gap or session not in (None, event.session):
                break
            n += 1
            time, session = event.time, event.session
        return n

    def _again(self, type: str) -> bool:
        return self.types[type].repeats if self.repeats is None else self.repeats


def words(
    contexts: Contexts, users: Sequence[str], items: Sequence[str], types: Sequence[str]
) -> list[dict[str, Any]]:
    """Contexts in the words of ``Plain.context``."""
    said = []
    for b in range(len(contexts)):
        filled = np.flatnonzero(contexts.history_items[b] >= 0)
        length = contexts.history_items.shape[1]
        assert filled.tolist() == list(range(length - len(filled), length)), "right-aligned"
        start, stop = contexts.excluded_starts[b : b + 2]
        user = int(contexts.users[b])
        said.append(
            {
                "user": users[user] if user >= 0 else None,
                "time": float(contexts.times[b]),
                "history": [
                    (
                        items[contexts.history_items[b, column]],
                        types[contexts.history_types[b, column]],
                        float(contexts.history_times[b, column]),
                    )
                    for column in filled
                ],
                "history_length": int(contexts.history_lengths[b]),
                "session_length": int(contexts.session_lengths[b]),
                "excluded": {items[row] for row in contexts.excluded[start:stop]},
            }
        )
    return said


def batch_words(
    batch: Batch, users: Sequence[str], items: Sequence[str], types: Sequence[str]
) -> list[dict[str, Any]]:
    """A batch in the words of ``Plain.batch``."""
    return [
        {
            "offset": int(batch.offsets[b]),
            "item": items[batch.items[b]] if batch.items[b] >= 0 else None,
            "type": types[batch.types[b]],
            "weight": float(batch.weights[b]),
            "polarity": int(batch.polarities[b]),
            "target": bool(batch.targets[b]),
            "item_events_before": int(batch.item_events_before[b]),
            **context,
        }
        for b, context in enumerate(words(batch.contexts, users, items, types))
    ]


def catalogue_after(stream: Sequence[Record]) -> tuple[dict[str, Item], set[str]]:
    """The listed items and those withheld, after the entries of a stream."""
    listed: dict[str, Item] = {}
    withheld: set[str] = set()
    for record in stream:
        entry = record.entry
        if isinstance(entry, Item):
            listed[entry.item_id] = entry
            (withheld.discard if entry.available else withheld.add)(entry.item_id)
        elif isinstance(entry, ItemRemoval):
            listed.pop(entry.item_id, None)
            withheld.add(entry.item_id)
    return listed, withheld


def users_after(stream: Sequence[Record]) -> dict[str, User]:
    """The users that are set, after the entries of a stream."""
    known: dict[str, User] = {}
    for record in stream:
        if isinstance(record.entry, User):
            known[record.entry.user_id] = record.entry
        elif isinstance(record.entry, UserRemoval):
            known.pop(record.entry.user_id, None)
    return known
