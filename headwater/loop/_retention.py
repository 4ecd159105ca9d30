"""How much of the events log stays: what the settings keep, and all that a snapshot needs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil

import structlog

from headwater.config import DAY, Config
from headwater.deploy import Manifest
from headwater.log import MAX_AHEAD, NO_TIME, EventsLog

_ALWAYS_KEPT = 2 * MAX_AHEAD
"""Seconds of stream time that are kept whatever the size. The log refuses events that are less than
``MAX_AHEAD`` younger than what it dropped, so without that it could refuse live ones."""

log = structlog.get_logger()


class Retention:
    """Drops what needn't be kept, a few entries at a time, so that nobody waits for it.

    Args:
        config: what to keep, and how many snapshots there are to be.
        events: the log.
    """

    def __init__(self, config: Config, events: EventsLog) -> None:
        self._settings = config.log
        self._snapshots = config.deploy.snapshots_kept
        self._at_once = 2 * config.train.batch_events
        self._events = events
        self._through = 0
        self._snapshot_time: float | None = None

    def snapshot_due(self, time: float) -> bool:
        """Whether the log gets old for want of a snapshot, at the stream time ``time``.

        Nothing behind the oldest snapshot is dropped, and where events are few it would be
        kept much longer than ``keep_days`` says.
        """
        if self._settings.keep_days is None:
            return False
        if self._snapshot_time is None:
            self._snapshot_time = time
        return time - self._snapshot_time >= self._settings.keep_days * DAY / self._snapshots

    def aim(self, snapshots: Sequence[Manifest], time: float) -> None:
        """Decides through where to drop, now that these are the snapshots, oldest first.

        Nothing is dropped before there are as many as are to be kept: the first ones have
        none behind them that could take their place.

        Args:
            time: stream time of the newest of them.
        """
        self._snapshot_time = time
        start, end = self._events.start(), self._events.end()
        wanted = start
        if len(snapshots) < self._snapshots or start == end:
            return
        if self._settings.keep_megabytes is not None:
            kept = self._settings.keep_megabytes * 1e6 / self._events.size()
            wanted = start + ceil((end - start) * (1.0 - kept))
        newest = self._time(end)
        if self._settings.keep_days is not None:
            wanted = max(wanted, self._before(newest - self._settings.keep_days * DAY))
        through = min(wanted, snapshots[0].offset, self._before(newest - _ALWAYS_KEPT))
        self._through = through if through > start else 0

    def step(self) -> None:
        """Drops some of what is to go, twice as many entries as a micro-batch may bring."""
        if not self._through:
            return
        start = self._events.start()
        through = min(self._through, start + self._at_once)
        if start < through:
            self._events.drop(through)
        if through == self._through:
            log.info("events dropped", through=through)
            self._through = 0

    def _before(self, time: float) -> int:
        """Offset of the newest entry whose stream time is before ``time``; the start if none is.

        A catalogue that was set before the first event is as old as that event.
        """
        start, end = self._events.start(), self._events.end()
        found = start + bisect_left(range(start + 1, end + 1), time, key=self._time)
        return start if found > start and self._time(found) == NO_TIME else found

    def _time(self, offset: int) -> float:
        return self._events.read(offset - 1, 1)[0].stream_time
