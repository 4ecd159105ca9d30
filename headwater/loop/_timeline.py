"""What happens to the stream, for operators: where it changes course, and whether it comes at all.

``Timeline`` is a fold of the events. ``Reception`` sees what no event tells: that none
comes, and that most are refused; it goes by the wall clock, and nothing learned depends on it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from math import exp
from typing import Any

import msgspec
import numpy as np

from headwater.config import DAY, HOUR
from headwater.evaluate import Drift
from headwater.types import Batch, Event, Floats, Record, State, StreamChange

KEPT = 50
"""Newest changes that are remembered, and reported."""

_LIVE = DAY
"""A stream further behind the clock is history that is being sent again; as in cleaning."""

_LOOK_SECONDS = 1.0
_SILENT_SECONDS = 300.0
_SILENT_TIMES = 1_000.0
"""A silence is as long at least, and so many times the usual pause between two events."""
_HEARD = 100.0
"""Live events within about an hour before a silence can be told."""
_REFUSED, _JUDGED = 0.2, 200
"""Share of dead letters that is too large, among the newest so many events and letters."""


class Timeline:
    """The newest changes of the stream; a fold like any other.

    Args:
        types: number of event types, the unknown one included.
    """

    def __init__(self, types: int) -> None:
        self._drift = Drift(types)
        self._newest: deque[StreamChange] = deque(maxlen=KEPT)
        self.live_events = 0

    def observe(
        self, batch: Batch, records: Sequence[Record], values: Floats
    ) -> list[StreamChange]:
        """Takes the next batch, its records and the values of its events; what changed with it."""
        live = np.array(
            [
                not record.entry.imported and record.received_at - record.stream_time <= _LIVE
                for record in records
                if isinstance(record.entry, Event)
            ],
            np.bool_,
        )
        self.live_events += int(live.sum())
        changes = self._drift.observe(batch, values, live)
        self._newest.extend(changes)
        return changes

    def note(self, change: StreamChange) -> None:
        """Takes a change that was found elsewhere."""
        self._drift.count(change)
        self._newest.append(change)

    def report(self) -> dict[str, Any]:
        """``changes`` by kind, ``timeline`` newest last."""
        return {"changes": self._drift.counts, "timeline": list(self._newest)}

    def state(self) -> State:
        newest = msgspec.json.encode(list(self._newest))
        return {**self._drift.state(), "newest": np.frombuffer(newest, np.uint8)}

    def load(self, state: State) -> None:
        self._drift.load(state)
        newest = msgspec.json.decode(state["newest"].tobytes(), type=list[StreamChange])
        self._newest = deque(newest, maxlen=KEPT)


class Reception:
    """Notes when live events stop coming, and when most of what comes is refused.

    Args:
        clock: seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = self._heard = clock()
        self._counted: tuple[int, int] | None = None
        self._events = self._seconds = 0.0  # decayed over an hour
        self._received, self._refused = 0, 0  # since the share was judged last
        self.silent = False
        self.refusing = False

    def look(
        self, live_events: int, count_letters: Callable[[], int]
    ) -> list[tuple[str, dict[str, float]]]:
        """What has begun since the last look.

        Args:
            live_events: learned so far by this process.
            count_letters: dead letters so far; asked for once a second at most.
        """
        now = self._clock()
        passed = now - self._looked
        if self._counted is not None and passed < _LOOK_SECONDS:
            return []
        counted = (live_events, count_letters())
        before, self._counted, self._looked = self._counted or counted, counted, now
        # After a rollback fewer events are learned than before.
        events, letters = max(counted[0] - before[0], 0), max(counted[1] - before[1], 0)
        return [*self._listen(now, events), *self._judge(events, letters)]

    def report(self) -> dict[str, bool]:
        return {"silent": self.silent, "refusing": self.refusing}

    def _listen(self, now: float, events: int) -> list[tuple[str, dict[str, float]]]:
        if events:
            fading = exp(-(now - self._heard) / HOUR)
            self._events = self._events * fading + events
            self._seconds = self._seconds * fading + now - self._heard
            self._heard, self.silent = now, False
            return []
        pause = self._seconds / self._events if self._events else 0.0
        silence = now - self._heard
        heard = self._events >= _HEARD
        if self.silent or not heard or silence < max(_SILENT_SECONDS, _SILENT_TIMES * pause):
            return []
        self.silent = True
        numbers = {"seconds": round(silence, 1), "usual_pause": round(pause, 4)}
        return [("the stream is silent", numbers)]

    def _judge(self, events: int, letters: int) -> list[tuple[str, dict[str, float]]]:
        self._received += events + letters
        self._refused += letters
        if self._received < _JUDGED:
            return []
        share, before = self._refused / self._received, self.refusing
        self._received = self._refused = 0
        self.refusing = share > _REFUSED
        if before or not self.refusing:
            return []
        return [("much of what comes is refused", {"share": round(share, 4)})]
