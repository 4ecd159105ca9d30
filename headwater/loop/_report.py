"""What operators are told of a learner, beside its updates."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import msgspec

from headwater.evaluate import MIXTURE, Evaluator
from headwater.loop._stages import Stages, Turn
from headwater.loop._timeline import Reception
from headwater.types import Held, Lineage, Metrics, Pace, SettingChange, Update

_SECONDS = 1.0
_DRAINED_SECONDS = 0.05
"""What follows a report so closely isn't reported until the next update."""

_SETTINGS_REPORTED = 50
"""Newest changes of settings that a report tells of."""

_TRIPS_REPORTED = 50
"""Newest batches that tripped a guard that a report tells of."""


class Reports:
    """Gathers what a report tells: of all that was learned in this process, and of its speed."""

    def __init__(self) -> None:
        self.trips: deque[Held] = deque(maxlen=_TRIPS_REPORTED)
        self._settings: deque[SettingChange] = deque(maxlen=_SETTINGS_REPORTED)
        self._pace: Pace | None = None
        self._bytes = 0
        self._speed = _Speed()
        self._written_at = 0.0
        self._newest = b""

    def add(self, turn: Turn, pace: Pace | None) -> None:
        """Notes what a micro-batch came to."""
        self._settings.extend(turn.settings)
        self._pace = pace or Pace(turn.end, 1.0, 1.0, True)

    def learned(self, events: int) -> None:
        """Notes that so many events were learned just now, from the log's end."""
        self._speed.add(events)

    def report(
        self,
        update: Update,
        stages: Stages,
        reception: Reception,
        lineage: Lineage,
        *,
        damaged: int,
        drained: bool,
    ) -> bytes:
        """JSON to go with an update; not with every one of many, but with the last of them.

        Args:
            update: its size is added up.
            stages: their figures.
            reception: its figures.
            lineage: the version before, to stand beside the live one.
            damaged: snapshots that couldn't be used.
            drained: whether nothing waits to be learned.
        """
        sizes = [table.values.nbytes + table.rows.nbytes for table in update.tables.values()]
        self._bytes += sum(sizes) + sum(values.nbytes for values in update.dense.values())
        waited = time.monotonic() - self._written_at
        if waited < (_DRAINED_SECONDS if drained else _SECONDS):
            return b""
        self._written_at = time.monotonic()
        known = stages.fold.preprocess
        self._newest = msgspec.json.encode(
            {
                "trained_through": stages.fold.offset,
                "gradient_through": stages.gradient_through,
                "pace": self._pace,
                "events_per_second": round(self._speed.per_second(), 1),
                "update_bytes": self._bytes,
                "known": {"users": known.users.n_known, "items": known.items.n_known},
                "expired": known.expired,
                "rates": stages.rates(),
                "cleaned": known.cleaning.counts,
                "settings": list(self._settings),
                "feedback": stages.impressions.figures(),
                "guards": stages.watch.trips,
                "paused": stages.watch.paused,
                "tripped": list(self.trips),
                **stages.timeline.report(),
                "reception": reception.report(),
                "damaged_snapshots": damaged,
                "metrics": [
                    *stages.evaluator.metrics("newest"),
                    *_all(stages.evaluator),
                    *(lineage.before.metrics if lineage.before else ()),
                    *stages.evaluator.calibration(),
                    *stages.satisfaction.metrics(),
                ],
            }
        )
        return self._newest

    def restart(self, report: dict[str, Any]) -> None:
        """Goes on from a snapshot's report, unless this process has made one."""
        self._newest = self._newest or msgspec.json.encode(report)

    def newest(self) -> dict[str, Any]:
        """The newest report; empty before there is one."""
        return msgspec.json.decode(self._newest or b"{}", type=dict[str, Any])


def _all(evaluator: Evaluator) -> list[Metrics]:
    """Of all predictions so far, for what is served and the baseline: other experts would make a
    report twice as long.
    """
    return [
        Metrics(one.window, one.segment, {k: v for k, v in one.values.items() if _is_beside(k)})
        for one in evaluator.metrics("all")
    ]


def _is_beside(name: str) -> bool:
    return name.partition(".")[0] in (MIXTURE, "popularity")


class _Speed:
    """Events per second over the last few seconds of learning."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def add(self, events: int) -> None:
        now = time.monotonic()
        self._marks = [(at, n) for at, n in self._marks if at > now - 5.0]
        self._marks.append((now, events))

    def per_second(self) -> float:
        if len(self._marks) < 2:
            return 0.0
        span = self._marks[-1][0] - self._marks[0][0]
        return sum(n for _, n in self._marks[1:]) / span if span > 0 else 0.0
