"""The learning side of the loop: one micro-batch after the other, published and recoverable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from headwater.config import Config, overridden
from headwater.deploy import (
    PAUSED,
    Manifest,
    Shape,
    check,
    decode,
    digest,
    encode,
    state_digest,
)
from headwater.errors import Dropped, GuardTripped, UpdateError
from headwater.evaluate import Outcomes, ndcg_gains
from headwater.log import EventsLog, UpdatesLog
from headwater.log.gains import Gains
from headwater.loop._fold import Fold, shape
from headwater.loop._history import History
from headwater.loop._keeping import Keeping
from headwater.loop._pace import events_of, pace_of
from headwater.loop._promotion import due, ended, shadowed
from headwater.loop._publishing import Publishing
from headwater.loop._report import Reports
from headwater.loop._stages import Stages
from headwater.loop._timeline import Reception
from headwater.loop._unpublished import noted
from headwater.types import (
    Batch,
    Event,
    Held,
    Lineage,
    Pace,
    Promotion,
    Record,
    Resume,
    Rollback,
    State,
    Update,
)

_BY = "headwater"
"""Who orders a rollback where nobody did."""

log = structlog.get_logger()


class Learner:
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
    ) -> None:
        self.config = self._configured = config
        self._events = events
        self._grouped = grouped
        self._anew = anew
        self._challengers = challengers
        self._publishing = Publishing(updates)
        self._keeping = Keeping(snapshots, config, events, self._publishing, self._rollbacks_due)
        self._reports = Reports()
        self._reception = Reception()
        self._reported_damage: set[str] = set()
        self._is_behind = False  # more waited than the newest micro-batch took
        self._is_history = False  # what is learned was imported: nobody waits for it to go live
        self._told = 0  # offset through which all was told: a refold meets it again
        self.epoch = 1
        self.version = 1
        self.lineage = Lineage()
        self.on_batch: Callable[[Batch], None] | None = None
        self.on_outcomes: Callable[[Batch, Outcomes], None] | None = None
        self.on_gains: Callable[[Gains], None] | None = None
        self.on_alert: Callable[[str, Mapping[str, Any]], None] | None = None
        self._ringing: int | None = None
        self._wild: str | None = None
        self._restore()
        if anew:
            self.fold.pass_over(events.rollbacks(self.fold.rolled_back))
        elif not self._roll_back():
            self._refold()

    @property
    def fold(self) -> Fold:
        """What both roles know of the events that were learned."""
        return self.stages.fold

    @property
    def sequence(self) -> int:
        """Of the newest update."""
        return self._publishing.sequence

    @property
    def _updates(self) -> UpdatesLog:
        return self._publishing.updates

    @property
    def _history(self) -> History | None:
        return self._keeping.history

    @property
    def gradient_through(self) -> int:
        """Offset of the end of the newest micro-batch that was learned by gradient."""
        return self.stages.gradient_through

    @property
    def trained_through(self) -> int:
        """Offset of the newest event that was learned, published or not."""
        return self.fold.offset

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
            pace = pace_of(records[-1].offset, behind, self.config.train)
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

    def learn(
        self, records: Sequence[Record], *, held: Held | None = None, pace: Pace | None = None
    ) -> None:
        """One turn of the loop, of which the next update is to tell.

        Args:
            records: the micro-batch.
            held: why it is only counted, where that is known beforehand.
            pace: what it gets; ``None`` for everything.
        """

        def tested(batch: Batch, of: Batch, outcomes: Outcomes) -> None:
            if self.on_gains is not None:
                self.on_gains(_gains(batch, of, outcomes, self.epoch, pace))

        held_back = self.gradient_through < self.trained_through
        turn = self.stages.learn(
            records,
            held=held,
            pace=pace,
            on_batch=self.on_batch,
            on_outcomes=self.on_outcomes,
            on_tested=tested,
        )
        self._time = turn.time
        self._publishing.unpublished.add(turn, pace)
        self._reports.add(turn, pace)
        self._wild = turn.wild
        if turn.ringing is not None:
            self._ringing = turn.ringing
        if turn.end > self._told:
            for change in turn.stream:
                numbers = msgspec.structs.asdict(change)
                self._alert("the stream has changed", numbers, level="warning")
            if held_back and self.gradient_through == turn.end and turn.wild is None:
                self._alert("learning goes on", _resumed(records, turn.end), level="info")
        if turn.held is not None:
            self._alert_of(turn.held, anew=not held_back)
        self._told = max(self._told, turn.end)

    def _alert_of(self, held: Held, *, anew: bool) -> None:
        """Alerts of a guard that tripped, once a pause; each time stands in the log."""
        trips = self._reports.trips
        if held.guard == PAUSED or held in trips:  # a refold meets it again
            return
        known = not anew and bool(trips) and trips[-1].guard == held.guard
        trips.append(held)
        numbers = msgspec.structs.asdict(held)
        if known:
            log.warning("guard tripped again", **numbers)
        else:
            self._alert("guard tripped", numbers)

    def _report_damage(self) -> None:
        """Alerts of snapshots that couldn't be used, once each: whoever listens comes late."""
        damaged = self._keeping.damaged
        for name in damaged.keys() - self._reported_damage:
            self._reported_damage.add(name)
            self._publishing.untold = True
            self._alert("a snapshot is damaged", {"snapshot": name, "reason": damaged[name]})

    def _alert(self, what: str, numbers: Mapping[str, Any], *, level: str = "error") -> None:
        getattr(log, level)(what, **numbers)
        if self.on_alert is not None:
            self.on_alert(what, numbers)

    def publish_due(self) -> None:
        """Publishes, unless more waited than a micro-batch takes and the newest update is young.

        Of a snapshot that is due, learning waits for the arrays to be written; what makes the file
        a snapshot is done in another thread.
        """
        self._keeping.settle(wait=False)
        update_due = self._publishing.is_due(
            self.config.train,
            drained=self._drained,
            is_behind=self._is_behind,
            is_history=self._is_history,
        )
        if update_due and self._publish():
            self._snapshot_due(beside=True)

    def publish(self, *, whole: bool = False) -> None:
        """Publishes what was learned since the last time, if a guard doesn't hold it back.

        The dense weights, which every step changes, wait longer than the rows while micro-batches
        follow each other. An update that trips a guard never goes live: the learner returns to what
        it published last, and takes the batches in question without their gradient. What no event
        tells (that none comes) is reported with an update of nothing.

        Args:
            whole: whether the dense weights go along in any case.

        Raises:
            GuardTripped: there is no snapshot folder to return from.
            Fenced: another trainer has taken over.
        """
        self._keeping.settle(wait=False)
        if self._publish(whole=whole):
            self._snapshot_due()

    def _publish(self, *, whole: bool = False) -> bool:
        """Whether there was anything to publish."""
        if not self._publishing.waits(whole=whole):
            return False
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
        if not (whole or self._is_dense_due()):
            update.dense = {}
        self._append(update)
        return True

    @property
    def _drained(self) -> bool:
        return self._events.end() <= self.trained_through

    def _is_dense_due(self) -> bool:
        return self._publishing.is_dense_due(self.config.train, drained=self._drained)

    def _snapshot_due(self, *, beside: bool = False) -> None:
        """Writes the snapshot that is due, if one is and the one before is there."""
        if not self._keeping.is_free:
            return
        due = self._keeping.is_due(
            self.config.deploy.snapshot_events,
            self.trained_through,
            self._time,
            drained=self._drained,
        )
        if due or self._keeping.is_interim_due():
            # Who starts from the snapshot and who has followed are to have the same weights.
            self._publish(whole=True)
            finish = self._begin_snapshot(interim=not due)
            stream_time = self._time if due else None
            if beside:
                self._keeping.finish_beside(finish, stream_time)
            else:
                finish()
                self._keeping.count_on(stream_time)

    def _append(self, update: Update) -> None:
        self._publishing.append(update, self._report(update))

    def snapshot(self) -> Path:
        """Publishes, writes a snapshot, and drops the updates that no snapshot needs.

        What the events log needn't keep any longer goes little by little, by ``retain``.
        """
        if self._history is None:
            raise ValueError("a learner without a snapshot folder keeps no snapshots")
        self._publish(whole=True)
        path = self._begin_snapshot()()
        self._keeping.count_on(self._time)
        return path

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

    def _begin_snapshot(self, *, interim: bool = False) -> Callable[[], Path]:
        """Writes what a snapshot is of; what is returned makes it one."""
        manifest = Manifest(
            epoch=self.epoch,
            version=self.version,
            sequence=self.sequence,
            offset=self.trained_through,
            shape=self.fold.shape,
            created_at=time.time(),
            lineage=self.lineage,
            interim=interim,
        )
        return self._keeping.begin(self.state(), manifest, self.stages.evaluator)

    def _answer_alarm(self, since: int) -> None:
        """Returns to the newest version of before ``since``, unless that was just tried."""
        numbers = {"since": since, "through": self.trained_through}
        wait = self.config.evaluate.window
        again = any(
            isinstance(order := record.entry, Rollback)
            and order.by == _BY
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
        order = Rollback(f"{self.epoch}-{first}-{through}", number, first, through, _BY, why)
        self._events.append([order], time.time())
        self._roll_back()

    def _roll_back(self) -> bool:
        """Does what new rollbacks want, in a new epoch; False where there are none.

        What was learned since the state of before them is gone, published or not. Its snapshots
        are deleted before the new one is written: whatever crashes between, no state that holds
        what was set aside can be the newest.
        """
        orders = self._rollbacks_due()
        if not orders:
            return False
        started, epoch = time.monotonic(), self.epoch
        first = min(record.entry.first for record in orders if isinstance(record.entry, Rollback))
        self._restore(before=first)
        self.epoch = max(self.epoch, epoch)
        self.fold.pass_over(self._events.rollbacks(self.fold.rolled_back))
        if self._history:
            self._history.roll_back(first)
        # No version of its own: rollbacks that follow each other would push out those that one
        # could return to.
        self._open_epoch("a rollback", interim=True)
        if self._history:
            self._keeping.count_on()
        numbers = {**msgspec.to_builtins(orders[-1].entry), "epoch": self.epoch}
        self._alert("rolled back", {**numbers, "seconds": round(time.monotonic() - started, 3)})
        return True

    def _rollbacks_due(self) -> list[Record]:
        return self._events.rollbacks(self.fold.rolled_back)

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

    def state(self) -> State:
        """Everything that the next step depends on."""
        return self.stages.state()

    def digest(self) -> str:
        """Of the state: two learners that agree on it continue alike, bit for bit."""
        return state_digest(self.state())

    def _restore(self, before: int | None = None) -> None:
        """Empty, or as the newest snapshot has it; if told so, the newest before an offset."""
        history = self._history
        known = None if self._anew else history
        found = known.snapshots.newest(self._shape, before) if known else None
        live = history.versions.live() if history else None
        if found:
            self.version, lineage = found[1].version, found[1].lineage
        elif live and before is None:
            # The snapshots are lost, or what they hold is to be learned anew: the settings stay.
            self.version, lineage = live.version, live.lineage
        else:
            self.version, lineage = 1, Lineage()
        self._begin(found, lineage)

    def _shape(self, manifest: Manifest) -> Shape:
        return shape(overridden(self._configured, manifest.lineage.settings))

    def _begin(self, found: tuple[State, Manifest] | None, lineage: Lineage) -> None:
        """Empty, or as a snapshot has it, with the settings of a lineage."""
        self.lineage = lineage
        self.config = overridden(self._configured, lineage.settings)
        self.stages = Stages(self.config, grouped=self._grouped)
        self._ringing = None
        self._time = 0.0
        sequence, origin = 0, None
        if found:
            state, origin = found
            self.stages.load(state, origin.offset)
            self.epoch, sequence = origin.epoch, origin.sequence
        self._publishing.restart(sequence)
        self._keeping.restart(origin)
        if self.trained_through < self._events.start():
            raise Dropped(self._events.start())

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

    def _open_epoch(self, reason: str, *, interim: bool = False) -> None:
        """From here on what was logged before doesn't count; followers load the snapshot."""
        newest = self._updates.read(max(self._updates.end() - 1, 0), 1)
        self.epoch = max(self.epoch, newest[0].epoch if newest else 0) + 1
        log.warning("new epoch", epoch=self.epoch, reason=reason)
        self._publishing.restart(self._updates.end())
        self.fold.model.changes()
        # The snapshot first: a follower that meets the new epoch must find it.
        if self._history:
            self._begin_snapshot(interim=interim)()
        self._append(self._update())

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

    def _through(self, end: int) -> list[Record]:
        return self._events.read(self.trained_through, end - self.trained_through)

    def _update(self) -> Update:
        return self._publishing.update(self.fold, self.epoch, self.gradient_through)

    def _report(self, update: Update) -> bytes:
        return self._reports.report(
            update,
            self.stages,
            self._reception,
            self.lineage,
            damaged=len(self._keeping.damaged),
            drained=self._drained,
        )


def _resumed(records: Sequence[Record], through: int) -> dict[str, Any]:
    """Where learning by gradient goes on after a pause, and by whose order, if by one."""
    for record in records:
        if isinstance(order := record.entry, Resume):
            return {"through": through, "by": order.by, "why": order.why}
    return {"through": through, "by": _BY, "why": "the stream is sane again"}


def _gains(batch: Batch, tested: Batch, outcomes: Outcomes, epoch: int, pace: Pace | None) -> Gains:
    return Gains(
        first=int(batch.offsets[0]),
        through=batch.end,
        epoch=epoch,
        offsets=tested.offsets[outcomes.index],
        values=ndcg_gains(outcomes.ranks[:, 0], 10),
        pace=pace,
    )
