"""The learner that goes live: it keeps up, guards what it publishes, and gives and takes orders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from headwater.config import Config, overridden
from headwater.deploy import check, decode, digest, encode
from headwater.errors import GuardTripped, UpdateError
from headwater.log import EventsLog, UpdatesLog
from headwater.loop._fold import shape
from headwater.loop._learning import BY, Learning
from headwater.loop._pace import events_of, pace_of
from headwater.loop._promotion import due, ended, shadowed
from headwater.loop._unpublished import noted
from headwater.types import Event, Held, Lineage, Pace, Promotion, Record, Rollback, Update

log = structlog.get_logger()


class Learner(Learning):
    """Learns the events log, one micro-batch at a time, and publishes what it learned.

    A new one takes the lease, loads the newest snapshot and learns the logged
    updates' events again, cut where they were cut. Where it doesn't arrive at the
    logged digests it opens a new epoch, which tells the followers to start over
    from a snapshot.

    Args:
        config: all settings.
        events: the log to learn.
        updates: the log to publish on.
        snapshots: the folder of snapshots; ``None`` for a run that keeps none.
        grouped: see ``Preprocessor``.
        anew: start with nothing, whatever snapshots and updates hold; what is learned goes live
            with ``begin_epoch`` only.
        challengers: the folder of those that may be promoted; ``None`` for none.
        on_alert: is told of what a person should look at, from the start on: a rollback that was
            ordered meanwhile is done at once.

    Raises:
        Dropped: there is no snapshot for what the events log no longer holds, or none is taken.
    """

    def __init__(
        self,
        config: Config,
        events: EventsLog,
        updates: UpdatesLog,
        snapshots: Path | None,
        *,
        grouped: bool = False,
        anew: bool = False,
        challengers: Path | None = None,
        on_alert: Callable[[str, Mapping[str, Any]], None] | None = None,
    ) -> None:
        super().__init__(config, events, updates, snapshots, grouped=grouped, anew=anew)
        self.on_alert = on_alert
        self._challengers = challengers
        self._reported_damage: set[str] = set()
        if anew:
            self.fold.pass_over(events.rollbacks(self.fold.rolled_back))
        elif not self._roll_back():
            self._refold()

    def step(self) -> int:
        """Learns the next micro-batch, if the log holds any; returns the records read.

        What a rollback or a promotion wants is done first. A batch whose learning raises an error
        is counted only, as with a guard; where that raises one too, it is set aside for good. A
        step that changes far more than usual is taken back, before it is published.
        """
        if self._ringing is not None:
            self._answer_alarm(self._ringing)
            self._ringing = None
        self._roll_back()
        self._promote()
        self._report_damage()
        for alert, numbers in self._reception.look(
            self.stages.timeline.live_events, self._events.dead_letter_count
        ):
            self._alert(alert, numbers)
            self._publishing.untold = True
        records, behind = self._next()
        if records:
            unpublished = self._publishing.unpublished
            through, imported = records[-1].offset, self._is_history
            pace = pace_of(through, behind, self.config.train, imported=imported)
            ends = [*unpublished.ends, records[-1].offset]
            paces = [*unpublished.paces, *([pace] if pace else [])]
            try:
                self.learn(records, pace=pace)
            except Exception as error:
                if self._history is None:
                    raise
                log.exception("a step failed", through=ends[-1])
                reason = f"{type(error).__name__}: {error}"
                try:
                    self._learn_again(ends, [Held(ends[-1], "step", reason)], paces)
                except Exception:
                    log.exception("counting failed as well", through=ends[-1])
                    self._set_aside(records[0].offset, ends[-1], reason)
            if self._wild is not None and self._history is not None:
                self._learn_again(ends, [Held(ends[-1], "stride", self._wild)], paces)
                # What makes it wild may stay: the way back to here is to be short. No version, or
                # trips that follow each other would push out those of before.
                self._publish(whole=True)
                self._begin_snapshot(interim=True)()
                self._keeping.count_on()
            self._reports.learned(len(records))
        return len(records)

    def begin_epoch(self, reason: str) -> Path:
        """Puts what was learned in the place of all that was published before, as a snapshot.

        Raises:
            GuardTripped: it must not go live; nothing was written.
            Fenced: another trainer has taken over.
        """
        if self._history is None:
            raise ValueError("a learner without a snapshot folder begins no epoch")
        check(self._update(), self.config.deploy)
        self._open_epoch(reason)
        return self._keeping.count_on()

    def retain(self) -> None:
        """Drops a few of the events that the settings don't keep and no snapshot needs."""
        self._keeping.retain()

    def erase(self, user_id: str) -> bool:
        """Takes a user's id, attributes and history out of the state, where it has them.

        For an events log that no longer holds what the state was learned from. What was
        learned from the user's events stays: counts, weights and sequences of items that name
        nobody. It is a change that no event tells of, and so opens a new epoch.
        """
        self.publish()
        gone = self.fold.erase(user_id)
        if not len(gone.users):
            return False
        self.stages.forget(gone)
        self._open_epoch("a user was erased")
        return True

    def _report_damage(self) -> None:
        """Alerts of snapshots that couldn't be used, once each: whoever listens comes late."""
        damaged = self._keeping.damaged
        for name in damaged.keys() - self._reported_damage:
            self._reported_damage.add(name)
            self._publishing.untold = True
            self._alert("a snapshot is damaged", {"snapshot": name, "reason": damaged[name]})

    def _checked(self) -> Update:
        """The next update, whole: where one trips a guard, without the gradients behind it.

        Raises:
            GuardTripped: there is no snapshot folder to return from.
        """
        update = self._update()
        try:
            check(update, self.config.deploy)
        except GuardTripped as tripped:
            if self._history is None:
                raise
            log.error("update held back", guard=tripped.guard, reason=tripped.reason)
            held = [Held(end, tripped.guard, tripped.reason) for end in update.batch_ends]
            self._learn_again(update.batch_ends, held, update.paces)
            update = self._update()
        return update

    def _answer_alarm(self, since: int) -> None:
        """Returns to the newest version of before ``since``, unless that was just tried."""
        numbers = {"since": since, "through": self.trained_through}
        wait = self.config.evaluate.window
        again = any(
            isinstance(order := record.entry, Rollback)
            and order.by == BY
            and order.through > self.trained_through - wait
            for record in self._events.rollbacks(0)
        )
        to = self._history.before(since + 1) if self._history else None
        if again or to is None or not self.config.deploy.automatic_rollback:
            self._alert("lists are worse than they were, and than what is popular", numbers)
            return
        self._set_aside(to.offset + 1, self.trained_through, f"the alarm, since offset {since}")

    def _set_aside(self, first: int, through: int, why: str) -> None:
        """Rolls back to before ``first``, so that every fold passes over the events from there.

        The order is named by what it wants: given again after a crash, it is the same one.
        """
        to = self._history.before(first) if self._history else None
        number = 0 if to is None else to.number
        order = Rollback(f"{self.epoch}-{first}-{through}", number, first, through, BY, why)
        self._events.append([order], time.time())
        self._roll_back()

    def _promote(self) -> None:
        """Goes on as the challenger that the newest promotion names, in a new epoch.

        What the challenger lacks, up to the promotion, it learns before anything is published:
        no version from here on stands for less than those before. Where its state can't be
        taken over, or raises an error, the live model stays.
        """
        if self._challengers is None:
            return
        record = due(self._events, self.fold, self.lineage.promotion)
        if record is None:
            return
        order = record.entry
        assert isinstance(order, Promotion)
        started, epoch, told = time.monotonic(), self.epoch, self.on_gains
        before = ended(self.version, self.stages)
        lineage = Lineage(order.settings, record.offset, order.challenger, before)
        numbers = {**msgspec.to_builtins(order), "offset": record.offset}
        self.on_gains = None
        try:
            config = overridden(self._configured, order.settings)
            found = shadowed(self._challengers, order.challenger, shape(config), self._events)
            self._begin(found, lineage)
            self.epoch = epoch
            self.fold.pass_over(self._events.rollbacks(self.fold.rolled_back))
            while self.trained_through < record.offset:
                left = min(record.offset - self.trained_through, self.config.train.batch_events)
                self.learn(self.fold.until_cut(self._through(self.trained_through + left)))
        except Exception as error:
            log.exception("a promotion failed", **numbers)
            self.epoch = epoch
            self._restore()
            self._refold()
            self.lineage = msgspec.structs.replace(self.lineage, promotion=record.offset)
            self._alert("not promoted", {**numbers, "reason": f"{type(error).__name__}: {error}"})
            return
        finally:
            self.on_gains = told
        history = self._history
        self.version = history.next_version(self.version) if history else self.version + 1
        self._open_epoch("a promotion")
        seconds = round(time.monotonic() - started, 3)
        numbers |= {"version": self.version, "seconds": seconds}
        self._alert("promoted", numbers, level="info")

    def _refold(self) -> None:
        """Learns again what the updates log says was learned after the snapshot."""
        while stored := self._updates.read(self.sequence, 1):
            try:
                logged = decode(stored[0].payload)
            except UpdateError as error:
                return self._open_epoch(str(error))
            if (logged.epoch, logged.sequence) != (self.epoch, self.sequence + 1):
                return self._open_epoch("the updates log doesn't go on from the snapshot")
            for end in logged.batch_ends:
                records = self._through(end)
                if not records or records[-1].offset != end:
                    return self._open_epoch("the events log ends before its updates")
                self.learn(records, held=noted(end, logged.held), pace=noted(end, logged.paces))
            update = self._update()
            if not logged.dense:
                update.dense = {}
            if digest(encode(update)) != stored[0].digest:
                return self._open_epoch(f"update {logged.sequence} was learned differently")
            self._publishing.published(update, len(stored[0].payload))
        if self._updates.end() != self.sequence:
            self._open_epoch("the updates log has lost what follows the snapshot")

    def _learn_again(
        self, ends: Sequence[int], held: Sequence[Held], paces: Sequence[Pace]
    ) -> None:
        """Back to the last published state, then through batches of which some are held back."""
        epoch = self.epoch
        self._restore()
        self._refold()
        if self.epoch != epoch:
            return  # The logs gave something else; the batches come again, after the rest.
        for end in ends:
            self.learn(self._through(end), held=noted(end, held), pace=noted(end, paces))

    def _next(self) -> tuple[list[Record], int]:
        """The next micro-batch: what may be in one, or what came within the time for one.

        And how many entries waited for it.
        """
        settings = self.config.train
        behind = self._events.end() - self.trained_through
        records = self._events.read(self.trained_through, settings.batch_events)
        first = records[0].entry if records else None
        self._is_history = isinstance(first, Event) and first.imported
        if self._is_history:
            behind = len(records)
        size = events_of(behind, settings)
        if len(records) == settings.batch_events < size:
            records += self._events.read(records[-1].offset, size - len(records))
        deadline = time.monotonic() + settings.batch_milliseconds / 1000.0
        while 0 < len(records) < size and (left := deadline - time.monotonic()) > 0:
            # Not woken to read each commit alone: what is missing is read together.
            missing = size - len(records)
            self._events.wait(records[-1].offset + missing - 1, left)
            records += self._events.read(records[-1].offset, missing)
        self._is_behind = behind > len(records)
        return self.fold.until_cut(records), behind
