"""The trainer role: follows the events log, learns, publishes. It opens no port."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import structlog

from headwater.roles import behind_answers
from headwater.roles._webhook import Webhook

if TYPE_CHECKING:
    from headwater.config import Config
    from headwater.log import EventsLog

NICENESS = 5
"""A step may wait for an answer, not an answer for a step."""
IDLE_SECONDS = 0.5
"""Longest wait for a wake-up before looking for a stop signal."""
CATCH_UP_SECONDS = 3.0
"""After a stop signal, longest time to learn what is in the log already. What is left then is
learned by the next trainer, from the log."""


class _Learns(Protocol):
    """What this role asks of a ``headwater.loop.Learner``."""

    @property
    def trained_through(self) -> int: ...

    def step(self) -> int: ...

    def publish_due(self) -> None: ...

    def publish(self) -> None: ...

    def snapshot(self) -> Path: ...

    def retain(self) -> None: ...


class Trainer:
    """The main loop around a learner: learn what is new, wait for more, stop in order."""

    def __init__(self, learner: _Learns, events: EventsLog) -> None:
        self._learner = learner
        self._events = events
        self._stopping = False
        self._log = structlog.get_logger()

    def stop(self) -> None:
        """Asks ``run`` to finish; may be called from a signal handler."""
        self._stopping = True

    def run(self, catch_up_seconds: float = CATCH_UP_SECONDS) -> None:
        """Learns until ``stop``; then what is in the log already, then publishes and snapshots.

        Raises:
            Fenced: another trainer has taken over; nothing more of this one is published.
        """
        while not self._stopping:
            self._learn()
        deadline = time.monotonic() + catch_up_seconds
        end = self._events.end()
        while self._learner.trained_through < end and time.monotonic() < deadline:
            self._learner.step()
        self._learner.publish()
        path = self._learner.snapshot()
        self._log.info(
            "trainer stopped",
            trained_through=self._learner.trained_through,
            left=max(0, end - self._learner.trained_through),
            snapshot=path.name,
        )

    def _learn(self) -> None:
        self._learner.retain()
        if self._learner.step():
            self._learner.publish_due()
            return
        self._learner.publish()
        self._events.wait(self._learner.trained_through, IDLE_SECONDS)


def run(config: Config, data: Path) -> None:
    """Runs the trainer role on a data folder until SIGTERM or SIGINT.

    Raises:
        Fenced: another trainer has taken over.
    """
    from headwater.deploy import CHALLENGERS
    from headwater.log.gains import GainsLog
    from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
    from headwater.loop import Learner

    behind_answers(NICENESS)
    with (
        closing(SqliteEventsLog(data / "events.db")) as events,
        closing(SqliteUpdatesLog(data / "updates.db")) as updates,
        closing(GainsLog(data / "gains.db")) as gains,
    ):
        url = config.deploy.webhook_url
        learner = Learner(
            config,
            events,
            updates,
            data / "snapshots",
            challengers=data / CHALLENGERS,
            on_alert=Webhook(url).send if url is not None else None,
        )
        learner.on_gains = gains.add
        trainer = Trainer(learner, events)

        def handler(_number: int, _frame: FrameType | None) -> None:
            trainer.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handler)
        structlog.get_logger().info(
            "trainer started",
            trained_through=learner.trained_through,
            sequence=learner.sequence,
            epoch=learner.epoch,
        )
        trainer.run()
