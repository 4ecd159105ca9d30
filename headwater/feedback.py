"""Stage 8, feedback: joins what was shown with what was done, however late that comes.

The join is a fact about the served lists, not about the user: it never becomes
an event (a derived event would count twice on a refold) and never an exposure
(negatives come from clients' impressions alone). A click may arrive before the
served record it belongs to, which is written behind the answer; the served log
joins them in either order, and counts a click once however often it is folded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwater.config import EventType
from headwater.intervals import wilson
from headwater.log import EventsLog
from headwater.log.served import ServedLog
from headwater.types import ClickThrough, Event, Recommendations, Record, ServedList

_READ = 1_000
"""Records searched at a time."""


class Feedback:
    """Records served lists and attributes events to them.

    Args:
        served: the log of what was shown; it belongs to this object.
        event_types: polarity by type; only a positive event is a success of a list.
    """

    def __init__(self, served: ServedLog, event_types: Mapping[str, EventType]) -> None:
        self._served = served
        self._positive = {name for name, type_ in event_types.items() if type_.polarity > 0}

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

    def observe(self, records: Sequence[Record]) -> None:
        """Attributes every positive event that names a recommendation to the item shown there.

        Folding the same records again changes nothing.
        """
        pairs = [
            (event.recommendation_id, event.item_id, record.offset)
            for record in records
            if isinstance(event := record.entry, Event)
            and event.recommendation_id is not None
            and event.item_id is not None
            and event.type in self._positive
        ]
        if records:
            self._served.attribute(pairs, records[-1].offset)

    def resume(self, events: EventsLog, through: int) -> None:
        """Searches the events that were folded into a state without this object seeing them.

        Events that the log no longer holds are passed over.

        Args:
            events: the log.
            through: the offset that the state stands for.
        """
        position = self._served.searched()
        # Before the first search nothing was ever shown that an event could name.
        if position is not None:
            position = max(position, events.start())
        while position is not None and position < through:
            records = events.read(position, min(_READ, through - position))
            if not records:
                return
            self.observe(records)
            position = records[-1].offset

    def click_through(self) -> list[ClickThrough]:
        """By version, oldest first: lists shown, lists acted on, and the rate with its interval."""
        return [
            ClickThrough(
                version=row.version,
                served=row.served,
                clicked=row.clicked,
                rate=wilson(row.clicked, row.served),
            )
            for row in sorted(self._served.clicks(), key=lambda row: row.version)
        ]

    def close(self) -> None:
        """Writes what is still waiting and closes the served log."""
        self._served.close()
