"""Entries read from the events log by the column, for folds that look at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import NamedTuple, TypeAlias, TypeVar, overload

import numpy as np

from headwater.types import Doubles, Event, Flags, Ints, Longs, Record

_Text = TypeVar("_Text", bound=str | None)


class Packed(NamedTuple):
    """Strings of an array in MessagePack, nil for none: from place ``start`` to before ``stop``."""

    array: bytes
    start: int
    stop: int


class Strings(Sequence[_Text]):
    """Strings as they are stored; Python objects are made of them once somebody looks at one.

    Who only needs to know which of them are the same reads the ``parts``.

    Args:
        parts: in order.
        strings: of the parts.
    """

    __slots__ = ("_decode", "_strings", "parts")

    def __init__(
        self, parts: Sequence[Packed], strings: Callable[[Sequence[Packed]], list[_Text]]
    ) -> None:
        self.parts = parts
        self._decode = strings
        self._strings: list[_Text] | None = None

    def __len__(self) -> int:
        return sum(part.stop - part.start for part in self.parts)

    @overload
    def __getitem__(self, place: int) -> _Text: ...

    @overload
    def __getitem__(self, place: slice) -> list[_Text]: ...

    def __getitem__(self, place: int | slice) -> _Text | list[_Text]:
        return self._all()[place]

    def __iter__(self) -> Iterator[_Text]:
        return iter(self._all())

    def _all(self) -> list[_Text]:
        if self._strings is None:
            self._strings = self._decode(self.parts)
        return self._strings


@dataclass(slots=True)
class Chunk:
    """n entries of the log in order, E of which are events.

    ``types`` are places in ``type_names``.
    """

    offsets: Longs  # (n,)
    received: Doubles  # (n,)
    times: Doubles  # (n,) stream times
    places: Longs  # (E,) where the events stand among the n
    users: Sequence[str]  # (E,)
    items: Sequence[str | None]  # (E,)
    types: Ints  # (E,)
    type_names: list[str]
    own_times: Doubles  # (E,) the client's
    sessions: list[str | None]  # (E,)
    recommendations: list[str | None]  # (E,) the lists that they name
    imported: Flags  # (E,)
    others: list[Record]  # (n - E) what is no event

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def of(cls, records: Sequence[Record]) -> Chunk:
        """The same of records."""
        n = len(records)
        is_event = np.fromiter((type(r.entry) is Event for r in records), np.bool_, n)
        events = [r.entry for r in records if type(r.entry) is Event]
        names = list(dict.fromkeys([event.type for event in events]))
        code = {name: place for place, name in enumerate(names)}
        return cls(
            offsets=np.array([r.offset for r in records], np.int64),
            received=np.array([r.received_at for r in records], np.float64),
            times=np.array([r.stream_time for r in records], np.float64),
            places=np.flatnonzero(is_event),
            users=[event.user_id for event in events],
            items=[event.item_id for event in events],
            types=np.array([code[event.type] for event in events], np.int32),
            type_names=names,
            own_times=np.array([event.timestamp for event in events], np.float64),
            sessions=[event.session_id for event in events],
            recommendations=[event.recommendation_id for event in events],
            imported=np.array([event.imported for event in events], np.bool_),
            others=[r for r in records if type(r.entry) is not Event],
        )

    def events_before(self) -> Longs:
        """(n - E,) how many of the events stand before each of the others."""
        others = np.delete(np.arange(len(self)), self.places)
        return others - np.arange(len(others))

    def head(self, n: int) -> Chunk:
        """The first ``n`` of them."""
        return self if n >= len(self) else self.only(np.arange(len(self)) < n)

    def events_only(self) -> Chunk:
        """Without the others."""
        kept = np.zeros(len(self), np.bool_)
        kept[self.places] = True
        return self if kept.all() else self.only(kept)

    def only(self, kept: Flags) -> Chunk:
        """Those at the places that are flagged, (n,)."""
        events = kept[self.places]
        is_other = np.ones(len(self), np.bool_)
        is_other[self.places] = False
        return replace(
            self,
            offsets=self.offsets[kept],
            received=self.received[kept],
            times=self.times[kept],
            places=(np.cumsum(kept) - 1)[self.places[events]],
            users=list(compress(self.users, events)),
            items=list(compress(self.items, events)),
            types=self.types[events],
            own_times=self.own_times[events],
            sessions=list(compress(self.sessions, events)),
            recommendations=list(compress(self.recommendations, events)),
            imported=self.imported[events],
            others=list(compress(self.others, kept[is_other])),
        )


Entries: TypeAlias = Sequence[Record] | Chunk
"""Either form of what was read; both are folded to the same bits."""


Read = TypeVar("Read", list[Record], Chunk)


def chunk(entries: Entries) -> Chunk:
    """By the column, whichever form it has."""
    return entries if isinstance(entries, Chunk) else Chunk.of(entries)


def others(entries: Entries) -> Sequence[Record]:
    """Records, of which those that are no events are all there."""
    return entries.others if isinstance(entries, Chunk) else entries


def through(entries: Read, offset: int) -> Read:
    """Those through an offset."""
    if isinstance(entries, Chunk):
        return entries.head(int(np.searchsorted(entries.offsets, offset, "right")))
    return [record for record in entries if record.offset <= offset]


def bounds(entries: Entries) -> tuple[int, int, float]:
    """The first and the last offset, and the newest stream time, of one entry or more."""
    if isinstance(entries, Chunk):
        return int(entries.offsets[0]), int(entries.offsets[-1]), float(entries.times[-1])
    return entries[0].offset, entries[-1].offset, entries[-1].stream_time
