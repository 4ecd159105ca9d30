"""What every learner does: one micro-batch after the other, published and recoverable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from headwater.config import Config, overridden
from headwater.deploy import PAUSED, Manifest, Shape, check, state_digest
from headwater.errors import Dropped
from headwater.evaluate import Outcomes, ndcg_gains
from headwater.log import EventsLog, UpdatesLog
from headwater.log.gains import Gains
from headwater.loop._fold import Fold, shape
from headwater.loop._history import History
from headwater.loop._keeping import Keeping
from headwater.loop._publishing import Publishing
from headwater.loop._report import Reports
from headwater.loop._stages import Stages
from headwater.loop._timeline import Reception
from headwater.types import Batch, Held, Lineage, Pace, Record, Resume, Rollback, State, Update

BY = "headwater"
"""Who orders a rollback where nobody did."""

log = structlog.get_logger()


class Learning:
    """Learns the events log micro-batch by micro-batch, publishes what it learned, and keeps it.

    A new one takes the lease and loads the newest snapshot. Which micro-batch comes next, what
    becomes of an update that must not go live, and who gives orders, is for a ``Learner``, or a
    ``Shadow``, to say.

    Arguments as of a ``Learner``.

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
    ) -> None:
        self.config = self._configured = config
        self._events = events
        self._grouped = grouped
        self._anew = anew
        self._publishing = Publishing(updates)
        self._keeping = Keeping(snapshots, config, events, self._publishing, self._rollbacks_due)
        self._reports = Reports()
        self._reception = Reception()
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
        follow each other. An update that trips a guard never goes live: a ``Learner`` returns to
        what it published last, and takes the batches in question without their gradient. What no
        event tells (that none comes) is reported with an update of nothing.

        Args:
            whole: whether the dense weights go along in any case.

        Raises:
            GuardTripped: an update must not go live, and there is nothing to return to.
            Fenced: another trainer has taken over.
        """
        self._keeping.settle(wait=False)
        if self._publish(whole=whole):
            self._snapshot_due()

    def _publish(self, *, whole: bool = False) -> bool:
        """Whether there was anything to publish."""
        if not self._publishing.waits(whole=whole):
            return False
        update = self._checked()
        if not (whole or self._is_dense_due()):
            update.dense = {}
        self._append(update)
        return True

    def _checked(self) -> Update:
        """The next update, whole.

        Raises:
            GuardTripped: it must not go live.
        """
        update = self._update()
        check(update, self.config.deploy)
        return update

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
            report=self._reports.newest(),
        )
        return self._keeping.begin(self.state(), manifest, self.stages.evaluator)

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
            self._reports.restart(origin.report)
        self._publishing.restart(sequence)
        self._keeping.restart(origin)
        if self.trained_through < self._events.start():
            raise Dropped(self._events.start())

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
    return {"through": through, "by": BY, "why": "the stream is sane again"}


def _gains(batch: Batch, tested: Batch, outcomes: Outcomes, epoch: int, pace: Pace | None) -> Gains:
    return Gains(
        first=int(batch.offsets[0]),
        through=batch.end,
        epoch=epoch,
        offsets=tested.offsets[outcomes.index],
        values=ndcg_gains(outcomes.ranks[:, 0], 10),
        pace=pace,
    )
