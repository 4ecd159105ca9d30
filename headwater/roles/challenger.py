"""The challenger role: runs one challenger after the other beside the live model.

It reads the events log and what the live model gained, and writes in the challenger's own folder
alone; but for one order in the events log, the promotion.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Event as Flag
from types import FrameType
from typing import TYPE_CHECKING

import msgspec
import structlog

from headwater.deploy import (
    CHALLENGERS,
    VERSIONS,
    Challengers,
    Snapshots,
    Versions,
    challenging,
    ordered,
)
from headwater.errors import SnapshotError
from headwater.roles import behind_answers
from headwater.types import Canary, Challenger, Lift, Promotion, Trial

if TYPE_CHECKING:
    from headwater.config import Config
    from headwater.log import EventsLog
    from headwater.log.gains import GainsLog
    from headwater.loop import Shadow

NICENESS = 10
LOOK_SECONDS = 1.0
"""From one look at what was ordered to the next; then, too, is written down how it does."""
IDLE_SECONDS = 0.2
"""Wait for the live model to learn something."""
TAKEN_OVER_SECONDS = 60.0
"""Longest wait for the live model to take over what was promoted; what is left is deleted later."""
BY = "headwater"
"""Who promotes and retires where nobody did."""

log = structlog.get_logger()


def wanted(data: Path, tune: bool = False) -> bool:
    """Whether there is a challenger that hasn't ended, or one may be proposed."""
    if tune:
        return True
    with suppress(SnapshotError):
        return Challengers(data / CHALLENGERS).active() is not None
    return False


class Arena:
    """Runs the challengers of a data folder, one at a time, until none is left or ``stop``.

    Args:
        config: the configured settings, without what promotions brought.
        events: the live model's events log.
        gains: what the live model gained.
    """

    def __init__(self, config: Config, data: Path, events: EventsLog, gains: GainsLog) -> None:
        self._config = config
        self._events = events
        self._gains = gains
        self._live = Snapshots(data / "snapshots", config.deploy.snapshots_kept)
        self._challengers = Challengers(data / CHALLENGERS)
        self._stopping = Flag()

    def stop(self) -> None:
        """Asks ``run`` to finish; may be called from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        self._tidy()
        while not self._stopping.is_set():
            if found := self._challengers.active():
                self._run(*found)
                self._tidy()
            elif not self._config.challengers.tune:
                return
            elif not self._propose():
                self._stopping.wait(LOOK_SECONDS)

    def _propose(self) -> bool:
        """Adds the tuner's next challenger, if there is one to be tried now."""
        from headwater.config import overridden
        from headwater.optimize import changes, propose

        live = Versions(self._live.directory / VERSIONS).live()
        if live is None:
            return False
        around = overridden(self._config, live.lineage.settings)
        candidates = changes(around, type(around)(), whole=self._events.start() == 0)
        settings = [challenging(self._config, live, change) for change in candidates]
        newest = self._gains.newest()
        found = propose(
            settings,
            self._challengers.listed(),
            live.lineage.promotion,
            newest,
            self._config.challengers.events,
        )
        if found is None:
            return False
        chosen, place, events = found
        why = f"round {place.round}, rung {place.rung}"
        self._challengers.add(
            chosen, policy="better", delta=0.0, by=BY, why=why, events=events, proposed=place
        )
        return True

    def _tidy(self) -> None:
        """Deletes the states of challengers that have ended; of those promoted once it is done."""
        promoted = self._promoted()
        for challenger, trial in self._challengers.listed():
            if trial.ended_at is not None and self._done(promoted.get(challenger.number, 0)):
                self._challengers.clear(challenger.number)

    def _promoted(self) -> dict[int, int]:
        """Challengers with the offsets of their promotions."""
        return {
            record.entry.challenger: record.offset
            for record in self._events.promotions(0)
            if isinstance(record.entry, Promotion)
        }

    def _done(self, promotion: int) -> bool:
        """Whether the live model has done what was ordered at an offset."""
        history = Versions(self._live.directory / VERSIONS).history()
        newest = max((version.lineage.promotion for version in history), default=0)
        return newest >= promotion

    def _run(self, challenger: Challenger, trial: Trial) -> None:
        """One challenger until it has ended, or until ``stop``."""
        number = challenger.number
        log.info("challenger started", number=number, settings=challenger.settings)
        try:
            trial = self._ended(challenger, trial) or self._shadowed(challenger, trial)
        except Exception as error:
            log.exception("challenger failed", number=number)
            # As recorded meanwhile, with what was compared.
            trial = self._challengers.get(number)[1]
            trial = _end(trial, "retired", f"{type(error).__name__}: {error}")
        # Before it counts as ended: after a crash in between, it is ended again.
        self._challengers.end_canary()
        self._challengers.record(number, trial)
        if trial.ended_at is not None:
            log.info("challenger ended", number=number, state=trial.state, why=trial.why)
            promotion = self._promoted().get(number, 0)
            deadline = time.monotonic() + TAKEN_OVER_SECONDS
            while not self._done(promotion) and time.monotonic() < deadline:
                if self._stopping.wait(IDLE_SECONDS):
                    return

    def _shadowed(self, challenger: Challenger, trial: Trial) -> Trial:
        from headwater.config import overridden
        from headwater.loop import Shadow, seed

        number = challenger.number
        folder = self._challengers.snapshots(number)
        seed(self._live, self._config, challenger.settings, folder)
        config = overridden(self._config, challenger.settings)
        trial = msgspec.structs.replace(trial, state="running")
        shadow = Shadow(config, self._events, folder, self._gains, trial, number)
        pace, looked = _Pace(self._config.challengers.share), 0.0
        with ExitStack() as stack:
            while not self._stopping.is_set():
                if time.monotonic() - looked >= LOOK_SECONDS:
                    looked = time.monotonic()
                    if challenger.canary and not shadow.serves and shadow.keeps_up():
                        self._serve(challenger, shadow, stack)
                    trial = _measured(shadow)
                    self._challengers.record(number, trial)
                    if ended := self._ended(challenger, trial):
                        return ended
                if not shadow.step():
                    shadow.publish()
                    self._stopping.wait(IDLE_SECONDS)
                    continue
                shadow.publish_due()
                if ended := self._judged(challenger, shadow):
                    return ended
                self._stopping.wait(pace.pause())
            shadow.snapshot()
            return _measured(shadow)

    def _serve(self, challenger: Challenger, shadow: Shadow, stack: ExitStack) -> None:
        """Begins the canary: whoever serves finds what it needs to follow the challenger."""
        from headwater.log.sqlite import SqliteUpdatesLog

        number = challenger.number
        path = self._challengers.updates(number)
        path.parent.mkdir(exist_ok=True)
        shadow.serve(stack.enter_context(closing(SqliteUpdatesLog(path))))
        self._challengers.begin_canary(Canary(number, challenger.settings, challenger.canary))
        log.info("canary begins", number=number, share=challenger.canary)

    def _ended(self, challenger: Challenger, trial: Trial) -> Trial | None:
        """The trial's end, where somebody has ordered it."""
        number = challenger.number
        for record in self._events.promotions(0):
            if isinstance(order := record.entry, Promotion) and order.challenger == number:
                return _end(trial, "promoted", ordered(order.by, order.why))
        if wish := self._challengers.retirement(number):
            return _end(trial, "retired", ordered(wish.by, wish.why))
        return None

    def _judged(self, challenger: Challenger, shadow: Shadow) -> Trial | None:
        """The trial's end, where the evidence is enough, or there has been enough of it."""
        from headwater.evaluate import ALPHA, verdict
        from headwater.optimize import MOST_PROPOSED

        sums = shadow.trial.sums
        alpha = ALPHA if challenger.proposed is None else ALPHA / MOST_PROPOSED
        found = verdict(sums, challenger.margin, alpha)
        if found == "better" and not shadow.keeps_up():
            # What it lacks the live model would learn before anything else; it learns that itself.
            return None
        if found is None and sums.n < (challenger.events or self._config.challengers.events):
            return None
        trial = _measured(shadow)
        if found != "better" or trial.lift is None:
            said = "not shown to be" if found is None else "shown not to be"
            return _end(trial, "retired", f"{said} {_asked(challenger)}: {said_of(trial.lift)}")
        shadow.snapshot()
        order = self._challengers.promotion(challenger.number, BY, said_of(trial.lift))
        self._events.append([order], time.time())
        return _end(trial, "promoted", f"{_asked(challenger)}: {order.why}")


class _Pace:
    """Keeps to a share of one core's time."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._started, self._used = time.monotonic(), time.process_time()

    def pause(self) -> float:
        """Seconds to wait now, so that no more than the share was used since the last call."""
        used, lived = time.process_time() - self._used, time.monotonic() - self._started
        pause = max(used / self._share - lived, 0.0)
        self._started, self._used = time.monotonic() + pause, self._used + used
        return pause


def _measured(shadow: Shadow) -> Trial:
    from headwater.evaluate import lift

    trial = shadow.trial
    return msgspec.structs.replace(trial, lift=lift(trial.sums))


def _end(trial: Trial, state: str, why: str) -> Trial:
    return msgspec.structs.replace(trial, state=state, why=why, ended_at=time.time())


def _asked(challenger: Challenger) -> str:
    what = "better" if challenger.policy == "better" else "no worse"
    return f"{what} by {challenger.delta:.1%}" if challenger.delta else what


def said_of(lift: Lift | None) -> str:
    """A lift in words, for a trail."""
    if lift is None or lift.value is None:
        return f"no gain of the live model in {lift.n if lift else 0:,} events"
    low, high = ("?" if end is None else f"{end:+.1%}" for end in (lift.low, lift.high))
    return f"NDCG@10 {lift.value:+.1%} ({low} to {high}) over {lift.n:,} events"


def run(config: Config, data: Path) -> None:
    """Runs the challengers of a data folder until none is left, or until SIGTERM or SIGINT."""
    from headwater.log.gains import GainsLog
    from headwater.log.sqlite import SqliteEventsLog

    behind_answers(NICENESS)
    with ExitStack() as stack:
        events = stack.enter_context(closing(SqliteEventsLog(data / "events.db")))
        gains = stack.enter_context(closing(GainsLog(data / "gains.db")))
        arena = Arena(config, data, events, gains)

        def handler(_number: int, _frame: FrameType | None) -> None:
            arena.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handler)
        arena.run()
