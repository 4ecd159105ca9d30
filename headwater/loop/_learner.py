"""The learning side of the loop: one micro-batch after the other, published and recoverable."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import structlog

from headwater.config import Config, overridden
from headwater.deploy import (
    PAUSED,
    VERSIONS,
    Manifest,
    Shape,
    Snapshots,
    Versions,
    Watch,
    check,
    decode,
    digest,
    encode,
    state_digest,
)
from headwater.errors import Dropped, GuardTripped, UpdateError
from headwater.evaluate import TOP, Alarm, Evaluator, Outcomes, Satisfaction, compare, ndcg_gains
from headwater.feedback import Impressions
from headwater.log import EventsLog, StoredUpdate, UpdatesLog
from headwater.log.gains import Gains
from headwater.loop._fold import Fold, part_of, shape
from headwater.loop._pace import events_of, pace_of, sampled
from headwater.loop._promotion import due, shadowed
from headwater.loop._retention import Retention
from headwater.loop._timeline import Reception, Timeline
from headwater.model import EXPERTS
from headwater.optimize import Optimizer
from headwater.preprocess import taken
from headwater.train import Lesson, Sample, Trainer
from headwater.types import (
    Batch,
    Event,
    Flags,
    Floats,
    Gone,
    Held,
    Labels,
    Lineage,
    Longs,
    Pace,
    Promotion,
    Ranking,
    Record,
    Resume,
    Rollback,
    SettingChange,
    State,
    Update,
    Version,
)

_REPORT_SECONDS = 1.0
_DRAINED_REPORT_SECONDS = 0.05

_VERSION_METRICS = ("mixture.ndcg@10", "popularity.ndcg@10")
"""Metrics that the history of versions keeps with each snapshot."""

_SETTINGS_REPORTED = 50
"""Newest changes of settings that a report tells of."""

_TRIPS_REPORTED = 50
"""Newest batches that tripped a guard that a report tells of."""

_BY = "headwater"
"""Who orders a rollback where nobody did."""

_POPULARITY = 1 + EXPERTS.index("popularity")
"""Column of the ``popularity`` expert in ranks."""

_KEPT = ("live", "kept")
"""States of versions that can be returned to."""

_RATED = ("sequence", "mixture")
"""Parts of the model whose learning rates the optimizer steers."""

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
        self._updates = updates
        self._snapshots = Snapshots(snapshots, config.deploy.snapshots_kept) if snapshots else None
        self._grouped = grouped
        self._anew = anew
        self._challengers = challengers
        self._token = updates.acquire()
        self._retention = Retention(config, events)
        self._speed = _Speed()
        self._bytes = 0
        self._changes: deque[SettingChange] = deque(maxlen=_SETTINGS_REPORTED)
        self._trips: deque[Held] = deque(maxlen=_TRIPS_REPORTED)
        self._pace: Pace | None = None
        self._reception = Reception()
        self._reported_damage: set[str] = set()
        self._told = 0  # offset of the newest change of the stream that was told
        self.epoch = 1
        self.version = 1
        self.lineage = Lineage()
        self.on_outcomes: Callable[[Batch, Outcomes], None] | None = None
        self.on_gains: Callable[[Gains], None] | None = None
        self.on_alert: Callable[[str, Mapping[str, Any]], None] | None = None
        self._ringing: int | None = None
        self._restore()
        if anew:
            self.fold.pass_over(events.rollbacks(self.fold.rolled_back))
        elif not self._roll_back():
            self._refold()

    @property
    def trained_through(self) -> int:
        """Offset of the newest event that was learned, published or not."""
        return self.fold.offset

    def step(self) -> int:
        """Learns the next micro-batch, if the log holds any; returns the records read.

        What a rollback or a promotion wants is done first. A batch whose learning raises an error
        is counted only, as with a guard; where that raises one too, it is set aside for good.
        """
        if self._ringing is not None:
            self._answer_alarm(self._ringing)
            self._ringing = None
        self._roll_back()
        self._promote()
        self._report_damage()
        for alert, numbers in self._reception.look(
            self._timeline.live_events, self._events.dead_letter_count
        ):
            self._alert(alert, numbers)
        records, behind = self._next()
        if records:
            pace = pace_of(records[-1].offset, behind, self.config.train)
            pending = [*self._pending, records[-1].offset]
            paces = [*self._paces, *([pace] if pace else [])]
            try:
                self.learn(records, pace=pace)
            except Exception as error:
                if self._snapshots is None:
                    raise
                log.exception("a step failed", through=pending[-1])
                reason = f"{type(error).__name__}: {error}"
                try:
                    self._learn_again(pending, [Held(pending[-1], "step", reason)], paces)
                except Exception:
                    log.exception("counting failed as well", through=pending[-1])
                    self._set_aside(records[0].offset, pending[-1], reason)
            self._speed.add(len(records))
        return len(records)

    def learn(
        self, records: Sequence[Record], *, held: Held | None = None, pace: Pace | None = None
    ) -> None:
        """One turn of the loop: preprocess, recommend, evaluate, feedback, guard, train, optimize.

        Args:
            records: the micro-batch.
            held: why it is only counted, where that is known beforehand.
            pace: what it gets; ``None`` for everything.
        """
        if any(isinstance(record.entry, Resume) for record in records):
            self._watch.resume()
        # What an entry of the batch withholds, or lists, isn't known yet to the events before it.
        withheld = self.fold.withheld()
        batch, removed = self.fold.batch(records)
        if len(batch):
            new = self.fold.n_items - len(withheld)
            withheld = np.pad(withheld, (0, new), constant_values=True)
            sample, ranking = self._rank(batch, withheld, pace)
            tested = taken(batch, sample.ranked)
            popularity = self.fold.model.popularity
            outcomes = self._evaluator.observe(
                tested, ranking, popularity.events, popularity.n_events, popularity.n_eligible
            )
            self._listen(tested, outcomes)
            if self.on_gains is not None:
                self.on_gains(_gains(batch, tested, outcomes, self.epoch, pace))
            if self.on_outcomes is not None and pace is None:
                self.on_outcomes(tested, outcomes)
            shown = ranking.rows[:, :TOP]
            admitted = self.fold.admitted(records)
            values = _values(admitted)
            self._satisfaction.observe(batch, values, shown, self.fold.categories(shown))
            for change in self._timeline.observe(batch, admitted, values):
                if change.offset > self._told:  # a refold meets it again
                    self._told = change.offset
                    self._alert("the stream has changed", msgspec.structs.asdict(change))
            rates = {name: self._optimizer.rate(name) for name in _RATED}
            known = self.fold.preprocess
            self._impressions.observe(batch, admitted, known.items.find, known.users.find)
            judged = self._watch.judge(batch)
            held = held or judged
            asked = False

            def labels() -> Labels:
                nonlocal asked
                asked = True
                return self._impressions.take()

            def fit(lesson: Lesson) -> bool:
                nonlocal held
                wrong = [self._watch.fits(name, *of) for name, of in _losses(lesson).items()]
                for reason in filter(None, wrong):
                    held = Held(batch.end, "loss", reason)
                if held is not None and asked:
                    self._impressions.put_back()
                return held is None

            lesson = self._trainer.learn(
                batch,
                ranking,
                rates,
                labels,
                known=known.items.in_use(),
                gradient=held is None,
                fit=fit,
                sample=sample,
            )
            of_losses = _losses(lesson)
            self._watch.settle(held, of_losses)
            losses = {name: loss for name, (loss, _) in of_losses.items() if held is None}
            changes = self._optimizer.observe(
                losses, int(batch.targets.sum()), batch.end, replayed=sample.replay
            )
            self._settings += changes
            self._changes.extend(changes)
        gone = self.fold.forget(records, removed)
        if len(gone.items):
            self._trainer.forget(gone.items)
            self._evaluator.forget(gone.items)
        self._impressions.forget(gone)
        self._satisfaction.forget(gone.users)
        self._time = records[-1].stream_time
        self._pending.append(batch.end)
        self._pace = pace or Pace(batch.end, 1.0, 1.0, True)
        if pace is not None:
            self._paces.append(pace)
        if held is not None:
            self._hold(held)
        else:
            self.gradient_through = batch.end

    def _rank(self, batch: Batch, withheld: Flags, pace: Pace | None) -> tuple[Sample, Ranking]:
        """What a step takes of a batch, and a list for each of the events to predict.

        Who listens to outcomes hears of every prediction; nothing learns from the further ones.
        """
        seed = self.config.seed
        targets: Longs = np.flatnonzero(batch.targets)
        of = pace or Pace(batch.end, 1.0, 1.0, True)
        chosen = targets[sampled(seed, batch.offsets[targets], of.evaluated)]
        gradient = sampled(seed, batch.offsets, of.gradient)
        sample = Sample(gradient, of.gradient, chosen, of.replay)
        if self.on_outcomes is None or pace is None:
            return sample, self.fold.recommender.rank(taken(batch, chosen).contexts, withheld)
        tested = taken(batch, targets)
        ranking = self.fold.recommender.rank(tested.contexts, withheld)
        popularity = self.fold.model.popularity
        counts = (popularity.events, popularity.n_events)
        self.on_outcomes(tested, compare(EXPERTS, tested, ranking, *counts))
        return sample, _part_of(ranking, np.searchsorted(targets, chosen))

    def _listen(self, batch: Batch, outcomes: Outcomes) -> None:
        gains = ndcg_gains(outcomes.ranks[:, [0, _POPULARITY]], 10)
        self._alarm.observe(batch.offsets[outcomes.index], *gains.T)
        if self._alarm.rings:
            self._ringing = self._alarm.since
            self._alarm.silence()

    def _hold(self, held: Held) -> None:
        self._held.append(held)
        if held.guard != PAUSED and held not in self._trips:  # a refold meets it again
            self._trips.append(held)
            self._alert("guard tripped", msgspec.structs.asdict(held))

    def _report_damage(self) -> None:
        """Alerts of snapshots that couldn't be used, once each: whoever listens comes late."""
        damaged = self._snapshots.damaged if self._snapshots else {}
        for name in damaged.keys() - self._reported_damage:
            self._reported_damage.add(name)
            self._alert("a snapshot is damaged", {"snapshot": name, "reason": damaged[name]})

    def _alert(self, what: str, numbers: Mapping[str, Any], *, bad: bool = True) -> None:
        (log.error if bad else log.info)(what, **numbers)
        if self.on_alert is not None:
            self.on_alert(what, numbers)

    def publish_due(self) -> None:
        """Publishes unless micro-batches follow each other and the newest is young."""
        waited = (time.monotonic() - self._published_at) * 1000.0
        drained = self._events.end() <= self.trained_through
        if drained or waited >= self.config.train.publish_milliseconds:
            self.publish()

    def publish(self, *, whole: bool = False) -> None:
        """Publishes what was learned since the last time, if a guard doesn't hold it back.

        The dense weights, which every step changes, wait longer than the rows while micro-batches
        follow each other. An update that trips a guard never goes live: the learner returns to what
        it published last, and takes the batches in question without their gradient.

        Args:
            whole: whether the dense weights go along in any case.

        Raises:
            GuardTripped: there is no snapshot folder to return from.
            Fenced: another trainer has taken over.
        """
        if not self._pending and not (whole and self._dense_waits):
            return
        update = self._update()
        try:
            check(update, self.config.deploy)
        except GuardTripped as tripped:
            if self._snapshots is None:
                raise
            log.error("update held back", guard=tripped.guard, reason=tripped.reason)
            held = [Held(end, tripped.guard, tripped.reason) for end in update.batch_ends]
            self._learn_again(update.batch_ends, held, update.paces)
            update = self._update()
        if not (whole or self._dense_due()):
            update.dense = {}
        self._append(update)
        if self._snapshots and self._snapshot_due():
            self.snapshot()

    def _dense_due(self) -> bool:
        waited = (time.monotonic() - self._dense_at) * 1000.0
        drained = self._events.end() <= self.trained_through
        return drained or waited >= self.config.train.publish_dense_milliseconds

    def _snapshot_due(self) -> bool:
        if self.trained_through - self._kept >= self.config.deploy.snapshot_events:
            return True
        # A backlog runs through years in minutes: its snapshots go by number alone.
        drained = self._events.end() <= self.trained_through
        return drained and self._retention.snapshot_due(self._time)

    def _append(self, update: Update) -> None:
        payload = encode(update)
        self._updates.append(
            StoredUpdate(
                epoch=update.epoch,
                sequence=update.sequence,
                trained_through=update.trained_through,
                digest=digest(payload),
                payload=payload,
                report=self._report(update),
            ),
            self._token,
        )
        self._published(update)

    def snapshot(self) -> Path:
        """Publishes, writes a snapshot, and drops the updates that no snapshot needs.

        What the events log needn't keep any longer goes little by little, by ``retain``.
        """
        if self._snapshots is None:
            raise ValueError("a learner without a snapshot folder keeps no snapshots")
        # Who starts from the snapshot and who has followed are to have the same weights.
        self.publish(whole=True)
        path = self._write_snapshot(self._snapshots)
        kept = self._snapshots.prune()
        self._updates.drop(kept[0].sequence if kept else 0)
        self._retention.aim(kept, self._time)
        return path

    def remember(self, batch: Batch, gone: Gone) -> None:
        """Keeps what was only counted for replay: a model that is made of many passes over it
        would else be taught by the newest events alone.
        """
        self._trainer.remember(batch)
        if len(gone.items):
            self._trainer.forget(gone.items)

    def begin_epoch(self, reason: str) -> Path:
        """Puts what was learned in the place of all that was published before, as a snapshot.

        Raises:
            GuardTripped: it must not go live; nothing was written.
            Fenced: another trainer has taken over.
        """
        if self._snapshots is None:
            raise ValueError("a learner without a snapshot folder begins no epoch")
        check(self._update(), self.config.deploy)
        self._open_epoch(reason)
        kept = self._snapshots.prune()
        self._updates.drop(kept[0].sequence if kept else 0)
        return self._snapshots.paths()[-1]

    def retain(self) -> None:
        """Drops a few of the events that the settings don't keep and no snapshot needs."""
        self._retention.step()

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
        self._impressions.forget(gone)
        self._satisfaction.forget(gone.users)
        self._open_epoch("a user was erased")
        return True

    def _write_snapshot(self, snapshots: Snapshots) -> Path:
        self._updates.sync()
        self._kept = self.trained_through
        manifest = Manifest(
            epoch=self.epoch,
            version=self.version,
            sequence=self.sequence,
            offset=self.trained_through,
            shape=self.fold.shape,
            created_at=time.time(),
            lineage=self.lineage,
        )
        path = snapshots.write(self.state(), manifest)
        newest = self._evaluator.metrics("newest")
        versions = self._versions(snapshots)
        versions.add(
            Version(
                number=versions.next_number(),
                epoch=self.epoch,
                snapshot=path.name,
                state="live",
                metrics={name: newest[0].values[name].value for name in _VERSION_METRICS if newest},
                offset=manifest.offset,
                created_at=manifest.created_at,
                version=self.version,
                lineage=self.lineage,
            )
        )
        return path

    def _versions(self, snapshots: Snapshots) -> Versions:
        return Versions(snapshots.directory / VERSIONS)

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
        to = self._kept_before(since + 1)
        if again or to is None or not self.config.deploy.automatic_rollback:
            self._alert("lists are worse than they were, and than what is popular", numbers)
            return
        self._set_aside(to.offset + 1, self.trained_through, f"the alarm, since offset {since}")

    def _kept_before(self, first: int) -> Version | None:
        versions = self._versions(self._snapshots).listed() if self._snapshots else []
        kept = [v for v in versions if v.state in _KEPT and v.offset < first]
        return max(kept, key=lambda version: version.number, default=None)

    def _set_aside(self, first: int, through: int, why: str) -> None:
        """Rolls back to before ``first``, so that every fold passes over the events from there.

        The order is named by what it wants: given again after a crash, it is the same one.
        """
        to = self._kept_before(first)
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
        orders = self._events.rollbacks(self.fold.rolled_back)
        if not orders:
            return False
        started, epoch = time.monotonic(), self.epoch
        first = min(record.entry.first for record in orders if isinstance(record.entry, Rollback))
        self._restore(before=first)
        self.epoch = max(self.epoch, epoch)
        self.fold.pass_over(self._events.rollbacks(self.fold.rolled_back))
        if self._snapshots:
            self._snapshots.discard(first)
            self._versions(self._snapshots).roll_back(first)
        self._open_epoch("a rollback")
        numbers = {**msgspec.to_builtins(orders[-1].entry), "epoch": self.epoch}
        self._alert("rolled back", {**numbers, "seconds": round(time.monotonic() - started, 3)})
        return True

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
        lineage = Lineage(order.settings, record.offset, order.challenger)
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
        self.version = self._next_version()
        self._open_epoch("a promotion")
        seconds = round(time.monotonic() - started, 3)
        numbers |= {"version": self.version, "seconds": seconds}
        self._alert("promoted", numbers, bad=False)

    def _next_version(self) -> int:
        history = self._versions(self._snapshots).history() if self._snapshots else []
        return max([self.version, *(version.version for version in history)]) + 1

    def state(self) -> State:
        """Everything that the next step depends on."""
        return {
            **self.fold.state(),
            **{f"train.{name}": value for name, value in self._trainer.state().items()},
            **{f"evaluate.{name}": value for name, value in self._evaluator.state().items()},
            **{f"satisfaction.{name}": value for name, value in self._satisfaction.state().items()},
            **{f"optimize.{name}": value for name, value in self._optimizer.state().items()},
            **{f"feedback.{name}": value for name, value in self._impressions.state().items()},
            **{f"watch.{name}": value for name, value in self._watch.state().items()},
            **{f"alarm.{name}": value for name, value in self._alarm.state().items()},
            "gradient_through": np.array(self.gradient_through, np.int64),
            **{f"timeline.{name}": value for name, value in self._timeline.state().items()},
        }

    def digest(self) -> str:
        """Of the state: two learners that agree on it continue alike, bit for bit."""
        return state_digest(self.state())

    def _restore(self, before: int | None = None) -> None:
        """Empty, or as the newest snapshot has it; if told so, the newest before an offset."""
        kept = None if self._anew else self._snapshots
        found = kept.newest(self._shape, before) if kept else None
        live = self._versions(self._snapshots).live() if self._snapshots else None
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
        self.fold = Fold(self.config, grouped=self._grouped)
        self._trainer = Trainer(self.config, self.fold.model, self.fold.n_features)
        self._evaluator = Evaluator(self.config, EXPERTS)
        self._satisfaction = Satisfaction(self.config, self.fold.preprocess.type_names)
        self._optimizer = Optimizer(self.config.optimize, _RATED)
        self._impressions = Impressions(self.config, self.fold.preprocess.type_names)
        self._watch = Watch(self.config.deploy, _RATED)
        self._alarm = Alarm()
        self._timeline = Timeline(len(self.fold.preprocess.type_names))
        self._ringing = None
        self._pending: list[int] = []
        self._held: list[Held] = []
        self._paces: list[Pace] = []
        self._settings: list[SettingChange] = []
        self._published_at = self._dense_at = self._reported_at = self._time = 0.0
        self._dense_waits = False
        self.sequence = self.gradient_through = self._kept = 0
        if found:
            state, manifest = found
            self.fold.load(state, manifest.offset)
            self._trainer.load(part_of(state, "train."))
            self._evaluator.load(part_of(state, "evaluate."))
            self._satisfaction.load(part_of(state, "satisfaction."))
            self._optimizer.load(part_of(state, "optimize."))
            self._impressions.load(part_of(state, "feedback."))
            self._watch.load(part_of(state, "watch."))
            self._alarm.load(part_of(state, "alarm."))
            self.gradient_through = int(state["gradient_through"])
            self._timeline.load(part_of(state, "timeline."))
            self.epoch = manifest.epoch
            self.sequence, self._kept = manifest.sequence, manifest.offset
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
                self.learn(records, held=_of(end, logged.held), pace=_of(end, logged.paces))
            update = self._update()
            if not logged.dense:
                update.dense = {}
            if digest(encode(update)) != stored[0].digest:
                return self._open_epoch(f"update {logged.sequence} was learned differently")
            self._published(update)
        if self._updates.end() != self.sequence:
            self._open_epoch("the updates log has lost what follows the snapshot")

    def _open_epoch(self, reason: str) -> None:
        """From here on what was logged before doesn't count; followers load the snapshot."""
        newest = self._updates.read(max(self._updates.end() - 1, 0), 1)
        self.epoch = max(self.epoch, newest[0].epoch if newest else 0) + 1
        log.warning("new epoch", epoch=self.epoch, reason=reason)
        self.sequence = self._updates.end()
        self._pending, self._held, self._paces, self._settings = [], [], [], []
        self.fold.model.changes()
        # The snapshot first: a follower that meets the new epoch must find it.
        if self._snapshots:
            self._write_snapshot(self._snapshots)
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
            self.learn(self._through(end), held=_of(end, held), pace=_of(end, paces))

    def _next(self) -> tuple[list[Record], int]:
        """The next micro-batch: what may be in one, or what came within the time for one.

        And how many entries waited for it.
        """
        settings = self.config.train
        behind = self._events.end() - self.trained_through
        records = self._events.read(self.trained_through, settings.batch_events)
        if records and isinstance(first := records[0].entry, Event) and first.imported:
            behind = len(records)  # Nobody waits for history to go live.
        size = events_of(behind, settings)
        if len(records) == settings.batch_events < size:
            records += self._events.read(records[-1].offset, size - len(records))
        deadline = time.monotonic() + settings.batch_milliseconds / 1000.0
        while 0 < len(records) < size and (left := deadline - time.monotonic()) > 0:
            # Not woken to read each commit alone: what is missing is read together.
            missing = size - len(records)
            self._events.wait(records[-1].offset + missing - 1, left)
            records += self._events.read(records[-1].offset, missing)
        return self.fold.until_cut(records), behind

    def _through(self, end: int) -> list[Record]:
        return self._events.read(self.trained_through, end - self.trained_through)

    def _update(self) -> Update:
        tables, tombstones, dense = self.fold.model.changes()
        return Update(
            epoch=self.epoch,
            sequence=self.sequence + 1,
            trained_through=self.trained_through,
            batch_ends=tuple(self._pending),
            tables=tables,
            tombstones=tombstones,
            dense=dense,
            settings=tuple(self._settings),
            held=tuple(self._held),
            paces=tuple(self._paces),
            gradient_through=self.gradient_through,
        )

    def _published(self, update: Update) -> None:
        self.sequence = update.sequence
        self._pending, self._held, self._paces, self._settings = [], [], [], []
        self._published_at = time.monotonic()
        self._dense_waits = not update.dense
        if update.dense:
            self._dense_at = self._published_at

    def _report(self, update: Update) -> bytes:
        """What operators want to know; not on every update of many, but on the last of them."""
        sizes = [table.values.nbytes + table.rows.nbytes for table in update.tables.values()]
        self._bytes += sum(sizes) + sum(values.nbytes for values in update.dense.values())
        drained = self._events.end() <= self.trained_through
        waited = time.monotonic() - self._reported_at
        if waited < (_DRAINED_REPORT_SECONDS if drained else _REPORT_SECONDS):
            return b""
        self._reported_at = time.monotonic()
        preprocess = self.fold.preprocess
        return msgspec.json.encode(
            {
                "trained_through": self.trained_through,
                "gradient_through": self.gradient_through,
                "pace": self._pace,
                "events_per_second": round(self._speed.per_second(), 1),
                "update_bytes": self._bytes,
                "known": {"users": preprocess.users.n_known, "items": preprocess.items.n_known},
                "expired": preprocess.expired,
                "rates": {name: self._optimizer.rate(name) for name in _RATED},
                "cleaned": self.fold.preprocess.cleaning.counts,
                "settings": list(self._changes),
                "feedback": self._impressions.figures(),
                "guards": self._watch.trips,
                "paused": self._watch.paused,
                "tripped": list(self._trips),
                **self._timeline.report(),
                "reception": self._reception.report(),
                "damaged_snapshots": len(self._snapshots.damaged) if self._snapshots else 0,
                "metrics": [
                    *self._evaluator.metrics("newest"),
                    *self._evaluator.calibration(),
                    *self._satisfaction.metrics(),
                ],
            }
        )


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


def _gains(batch: Batch, tested: Batch, outcomes: Outcomes, epoch: int, pace: Pace | None) -> Gains:
    return Gains(
        first=int(batch.offsets[0]),
        through=batch.end,
        epoch=epoch,
        offsets=tested.offsets[outcomes.index],
        values=ndcg_gains(outcomes.ranks[:, 0], 10),
        pace=pace,
    )


def _losses(lesson: Lesson) -> dict[str, tuple[float, int]]:
    """Name -> loss, and the number of examples behind it."""
    return {
        "sequence": (lesson.sequence_loss, lesson.sequence_examples),
        "mixture": (lesson.mixture_loss, lesson.mixture_examples),
    }


def _part_of(ranking: Ranking, places: Longs) -> Ranking:
    """Those of the lists that stand at ``places``."""
    return Ranking(
        rows=ranking.rows[places],
        scores=ranking.scores[places],
        features=ranking.features[places],
        expert_rows={name: rows[places] for name, rows in ranking.expert_rows.items()},
    )


_Noted = TypeVar("_Noted", Held, Pace)


def _of(end: int, noted: Sequence[_Noted]) -> _Noted | None:
    """What an update says of the micro-batch with that end."""
    return next((one for one in noted if one.through == end), None)


def _values(records: Sequence[Record]) -> Floats:
    """The value of each event, NaN where it has none."""
    events = [record.entry for record in records if isinstance(record.entry, Event)]
    return np.array([np.nan if e.value is None else e.value for e in events], np.float32)
