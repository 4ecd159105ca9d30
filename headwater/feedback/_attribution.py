"""Which served lists were acted on.

The join is a fact about the served lists, not about the user: it never becomes
an event and never an exposure. A click may arrive before the served record it
belongs to, which is written behind the answer; the served log joins them in
either order, and counts a click once however often it is folded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headwater.config import MINUTE, Config
from headwater.errors import Dropped
from headwater.intervals import wilson
from headwater.log import EventsLog
from headwater.log.chunks import Entries, chunk
from headwater.log.served import ServedLog, VersionClicks
from headwater.types import (
    MAX_PASSED_OVER,
    ClickThrough,
    Event,
    Recommendations,
    ServedList,
)

_READ = 1_000
"""Entries observed at a time."""


class Feedback:
    """Records served lists and attributes events to them.

    Args:
        served: the log of what was shown; it belongs to this object.
        config: event types, of which only a positive one is a success of a list, and the window
            of attribution.
    """

    def __init__(self, served: ServedLog, config: Config) -> None:
        self._served = served
        self._positive = {name for name, kind in config.event_types.items() if kind.polarity > 0}
        self._window = config.feedback.attribution_minutes * MINUTE
        self._searched = served.searched()

    def record(
        self, answers: Sequence[tuple[Recommendations, str | None]], served_at: float
    ) -> None:
        """Keeps what was answered, each with the user it was for; returns before it is written."""
        if answers:
            self._served.served(
                [
                    ServedList(
                        recommendation_id=answer.recommendation_id,
                        user_id=user_id,
                        version=answer.version,
                        sequence=answer.sequence,
                        served_at=served_at,
                        items=tuple(item.item_id for item in answer.items),
                        scores=tuple(item.score for item in answer.items),
                    )
                    for answer, user_id in answers
                ]
            )

    def passed_over(self, events: Sequence[Event]) -> list[Event]:
        """The events, and in each the items that its list showed above the one acted on.

        Known of a positive event that names a list of its own user (or of nobody's) and the
        place in it at which its item stands. Reads the served log only where there are any.

        Raises:
            LogError: the served log can't be read.
        """
        named = {
            event.recommendation_id
            for event in events
            if event.recommendation_id is not None
            and event.position is not None
            and event.type in self._positive
        }
        lists = self._served.find(named) if named else {}
        return [
            event
            if (above := self._above(event, lists)) == ()
            else msgspec.structs.replace(event, passed_over=above)
            for event in events
        ]

    def _above(self, event: Event, lists: Mapping[str, ServedList]) -> tuple[str, ...]:
        shown = lists.get(event.recommendation_id or "")
        position = event.position
        if (
            shown is None
            or position is None
            or event.type not in self._positive
            or shown.user_id not in (None, event.user_id)
            or shown.items[position : position + 1] != (event.item_id,)
        ):
            return ()
        return shown.items[max(position - MAX_PASSED_OVER, 0) : position]

    def observe(self, entries: Entries) -> None:
        """Attributes every positive event of an item to a list that showed it, if one did.

        One that names a list counts for that list or for none; another, which wasn't imported, for
        the newest one that its user was shown within the window before. Folding the same entries
        again changes nothing.
        """
        if not len(entries):
            return
        read = chunk(entries)
        positive = [name in self._positive for name in read.type_names]
        pairs, acts = [], []
        for user, item, named, kind, imported, offset, now in zip(
            read.users,
            read.items,
            read.recommendations,
            read.types.tolist(),
            read.imported.tolist(),
            read.offsets[read.places].tolist(),
            read.times[read.places].tolist(),
            strict=True,
        ):
            if item is None or not positive[kind]:
                continue
            if named is not None:
                pairs.append((named, item, offset))
            elif not imported:
                acts.append((user, item, now - self._window, now))
        through = int(read.offsets[-1])
        self._served.attribute(pairs, through, acts)
        self._searched = through

    def follow(self, events: EventsLog, through: int) -> None:
        """Observes the log from where this was left, by this process or an earlier one.

        Events that the log no longer holds are passed over.

        Args:
            events: the log.
            through: the offset up to which to read; the first time, everything up to it came
                before anything was shown.
        """
        if self._searched is None:
            self._served.attribute([], through)
            self._searched = through
        while self._searched < through:
            try:
                read = events.chunk(self._searched, min(_READ, through - self._searched))
            except Dropped as dropped:
                self._searched = dropped.start
                continue
            if not len(read):
                return
            self.observe(read)

    def click_through(self) -> list[ClickThrough]:
        """By version, oldest first: lists shown, lists acted on, and the rate with its interval."""
        return _rates(self._served.clicks())

    def click_through_of_users(self, since: float, until: float) -> list[ClickThrough]:
        """Likewise, of the lists that are kept, for known users, and were shown in that time."""
        return _rates(self._served.clicks_of_users(since, until))

    def flush(self) -> None:
        """Waits until everything recorded so far is written."""
        self._served.flush()

    def close(self) -> None:
        """Writes what is still waiting and closes the served log."""
        self._served.close()


def _rates(clicks: Sequence[VersionClicks]) -> list[ClickThrough]:
    return [
        ClickThrough(
            version=row.version,
            served=row.served,
            clicked=row.by_id + row.by_window,
            by_id=row.by_id,
            by_window=row.by_window,
            rate=wilson(row.by_id + row.by_window, row.served),
        )
        for row in sorted(clicks, key=lambda row: row.version)
    ]
