"""The loop: receive, preprocess, train, evaluate, optimize, deploy, recommend, feedback.

This file only sequences the stages. ``Learner`` is what the trainer role, the
replay command and the tests run; ``Follower`` is what the API role runs. Both
are folds of the same events log; what only the trainer learns reaches the
follower through the updates log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import structlog

from headwater.config import Config
from headwater.deploy import Manifest, Snapshots, check, decode, digest, encode, state_digest
from headwater.errors import GuardTripped, UpdateError
from headwater.evaluate import Evaluator, Outcomes
from headwater.log import EventsLog, StoredUpdate, UpdatesLog
from headwater.model import EXPERTS, Model
from headwater.optimize import Optimizer
from headwater.preprocess import Preprocessor
from headwater.recommend import Features, Recommender
from headwater.train import Trainer
from headwater.types import (
    NO_ROW,
    Batch,
    Event,
    ExplainedItem,
    Explanation,
    Flags,
    HistoryEvent,
    ItemRemoval,
    Recommendations,
    RecommendedItem,
    Record,
    Request,
    SettingChange,
    State,
    Update,
)

_READ = 1_000
_REPORT_SECONDS = 1.0
_DRAINED_REPORT_SECONDS = 0.05

log = structlog.get_logger()


class Fold:
    """What both roles remember of the events: ids, histories, catalogue, counts."""

    def __init__(self, config: Config, *, grouped: bool = False) -> None:
        self.config = config
        self.preprocess = Preprocessor(config, grouped=grouped)
        features = Features(config)
        self.n_features = len(features)
        self.model = Model(config, self.preprocess.consuming_types, features.mixture(config))
        self.recommender = Recommender(config, self.model, features)
        self.offset = 0

    @property
    def n_items(self) -> int:
        return len(self.preprocess.items)

    def eligible(self) -> Flags:
        """(N,) items that may be recommended: named by an event, or listed where that is enough."""
        eligible = self.model.popularity.eligible()
        if self.config.recommend.catalogue == "all":
            eligible = eligible | self.preprocess.catalogue.listed(self.n_items)
        return eligible & ~self.preprocess.catalogue.withheld(self.n_items)

    def withheld(self) -> Flags:
        """(N,) items that may not be recommended to anyone."""
        return ~self.eligible()

    @property
    def shape(self) -> dict[str, str | int | float | bool]:
        """What a snapshot must have been made with to be loaded."""
        sequence = self.config.sequence
        return {
            "sequence.dim": sequence.dim,
            "sequence.layers": sequence.layers,
            "sequence.heads": sequence.heads,
            "preprocess.history_length": self.config.preprocess.history_length,
            "transitions.width": self.config.transitions.width,
            "popularity.half_lives": len(self.config.popularity.half_lives_hours),
            "mixture.hidden": self.config.mixture.hidden,
            "mixture.features": self.n_features,
            "event_types": len(self.preprocess.type_names),
        }

    def batch(self, records: Sequence[Record]) -> tuple[Batch, list[int]]:
        """Folds records into the histories; returns them as a batch, and removed item rows."""
        batch, removed = self.preprocess.batch(records)
        self.model.grow(self.n_items)
        self.offset = batch.end
        return batch, removed

    def state(self) -> State:
        return {
            **{f"preprocess.{name}": value for name, value in self.preprocess.state().items()},
            **{f"model.{name}": value for name, value in self.model.state().items()},
        }

    def load(self, state: State, offset: int) -> None:
        self.preprocess.load(_part(state, "preprocess."))
        self.model.load(_part(state, "model."))
        self.model.grow(self.n_items)
        self.offset = offset


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
    """

    def __init__(
        self,
        config: Config,
        events: EventsLog,
        updates: UpdatesLog,
        snapshots: Path | None,
        *,
        grouped: bool = False,
    ) -> None:
        self.config = config
        self._events = events
        self._updates = updates
        self._snapshots = Snapshots(snapshots, config.deploy.snapshots_kept) if snapshots else None
        self._grouped = grouped
        self._token = updates.acquire()
        self._speed = _Speed()
        self._bytes = 0
        self.epoch = 1
        self.version = 1
        self.on_outcomes: Callable[[Batch, Outcomes], None] | None = None
        self._restore()
        self._refold()

    @property
    def trained_through(self) -> int:
        """Offset of the newest event that was learned, published or not."""
        return self.fold.offset

    def step(self) -> int:
        """Learns the next micro-batch, if the log holds any; returns the records read."""
        records = self._next()
        if records:
            self.learn(records)
            self._speed.add(len(records))
        return len(records)

    def learn(self, records: Sequence[Record], *, gradient: bool = True) -> None:
        """One turn of the loop: preprocess, recommend, evaluate, train, optimize."""
        # What an entry of the batch withholds, or lists, isn't known yet to the events before it.
        withheld = self.fold.withheld()
        batch, removed = self.fold.batch(records)
        if len(batch):
            new = self.fold.n_items - len(withheld)
            withheld = np.pad(withheld, (0, new), constant_values=True)
            ranking = self.fold.recommender.rank(batch.contexts, withheld)
            popularity = self.fold.model.popularity
            outcomes = self._evaluator.observe(
                batch, ranking, popularity.events, int(popularity.events.sum())
            )
            if self.on_outcomes is not None:
                self.on_outcomes(batch, outcomes)
            rates = {name: self._optimizer.rate(name) for name in _RATED}
            lesson = self._trainer.learn(batch, ranking, rates, gradient=gradient)
            losses = {"sequence": lesson.sequence_loss, "mixture": lesson.mixture_loss}
            self._settings += self._optimizer.observe(losses, len(outcomes), batch.end)
        if removed:
            self.fold.model.forget(removed)
        self._pending.append(batch.end)
        if not gradient:
            self._without_gradient.append(batch.end)

    def publish_due(self) -> None:
        """Publishes unless micro-batches follow each other and the newest is young."""
        waited = (time.monotonic() - self._published_at) * 1000.0
        drained = self._events.end() <= self.trained_through
        if drained or waited >= self.config.train.publish_milliseconds:
            self.publish()

    def publish(self) -> None:
        """Publishes what was learned since the last time, if a guard doesn't hold it back.

        An update that trips a guard never goes live: the learner returns to what
        it published last, and takes the batches in question without their gradient.

        Raises:
            GuardTripped: there is no snapshot folder to return from.
            Fenced: another trainer has taken over.
        """
        if not self._pending:
            return
        update = self._update()
        try:
            check(update, self.config.deploy)
        except GuardTripped as tripped:
            if self._snapshots is None:
                raise
            log.error("update held back", guard=tripped.guard, reason=tripped.reason)
            self._return_without(update)
            update = self._update()
        self._append(update)
        unkept = self.trained_through - self._kept
        if self._snapshots and unkept >= self.config.deploy.snapshot_events:
            self.snapshot()

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
        """Publishes, writes a snapshot, and drops the updates that no snapshot needs."""
        if self._snapshots is None:
            raise ValueError("a learner without a snapshot folder keeps no snapshots")
        self.publish()
        path = self._write_snapshot(self._snapshots)
        self._updates.drop(self._snapshots.prune())
        return path

    def _write_snapshot(self, snapshots: Snapshots) -> Path:
        self._updates.sync()
        self._kept = self.trained_through
        return snapshots.write(
            self.state(),
            Manifest(
                epoch=self.epoch,
                version=self.version,
                sequence=self.sequence,
                offset=self.trained_through,
                shape=self.fold.shape,
                created_at=time.time(),
            ),
        )

    def state(self) -> State:
        """Everything that the next step depends on."""
        return {
            **self.fold.state(),
            **{f"train.{name}": value for name, value in self._trainer.state().items()},
            **{f"evaluate.{name}": value for name, value in self._evaluator.state().items()},
            **{f"optimize.{name}": value for name, value in self._optimizer.state().items()},
        }

    def digest(self) -> str:
        """Of the state: two learners that agree on it continue alike, bit for bit."""
        return state_digest(self.state())

    def _restore(self) -> None:
        """Empty, or as the newest snapshot has it."""
        self.fold = Fold(self.config, grouped=self._grouped)
        self._trainer = Trainer(self.config, self.fold.model, self.fold.n_features)
        self._evaluator = Evaluator(self.config, EXPERTS)
        self._optimizer = Optimizer(self.config.optimize, _RATED)
        self._pending: list[int] = []
        self._without_gradient: list[int] = []
        self._settings: list[SettingChange] = []
        self._published_at = self._reported_at = 0.0
        self.sequence = self._kept = 0
        found = self._snapshots.newest(self.fold.shape) if self._snapshots else None
        if found:
            state, manifest = found
            self.fold.load(state, manifest.offset)
            self._trainer.load(_part(state, "train."))
            self._evaluator.load(_part(state, "evaluate."))
            self._optimizer.load(_part(state, "optimize."))
            self.epoch, self.version = manifest.epoch, manifest.version
            self.sequence, self._kept = manifest.sequence, manifest.offset

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
                self.learn(records, gradient=end not in logged.without_gradient)
            update = self._update()
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
        self._pending, self._without_gradient, self._settings = [], [], []
        self.fold.model.changes()
        # The snapshot first: a follower that meets the new epoch must find it.
        if self._snapshots:
            self._write_snapshot(self._snapshots)
        self._append(self._update())

    def _return_without(self, held: Update) -> None:
        """Back to the last published state, then through the held batches without gradient."""
        self._restore()
        self._refold()
        if self.epoch != held.epoch:
            return  # The logs gave something else; the held batches come again, after the rest.
        for end in held.batch_ends:
            self.learn(self._through(end), gradient=False)

    def _next(self) -> list[Record]:
        """The next micro-batch: up to ``batch_events``, or what came within the time for one."""
        settings = self.config.train
        records = self._events.read(self.trained_through, settings.batch_events)
        deadline = time.monotonic() + settings.batch_milliseconds / 1000.0
        while 0 < len(records) < settings.batch_events:
            left = deadline - time.monotonic()
            if left <= 0 or not self._events.wait(records[-1].offset, left):
                break
            missing = settings.batch_events - len(records)
            records += self._events.read(records[-1].offset, missing)
        return _until_removal(records)

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
            without_gradient=tuple(self._without_gradient),
        )

    def _published(self, update: Update) -> None:
        self.sequence = update.sequence
        self._pending, self._without_gradient, self._settings = [], [], []
        self._published_at = time.monotonic()

    def _report(self, update: Update) -> bytes:
        """What operators want to know; not on every update of many, but on the last of them."""
        sizes = [table.values.nbytes + table.rows.nbytes for table in update.tables.values()]
        self._bytes += sum(sizes) + sum(values.nbytes for values in update.dense.values())
        drained = self._events.end() <= self.trained_through
        waited = time.monotonic() - self._reported_at
        if waited < (_DRAINED_REPORT_SECONDS if drained else _REPORT_SECONDS):
            return b""
        self._reported_at = time.monotonic()
        return msgspec.json.encode(
            {
                "trained_through": self.trained_through,
                "events_per_second": round(self._speed.per_second(), 1),
                "update_bytes": self._bytes,
                "rates": {name: self._optimizer.rate(name) for name in _RATED},
                "settings": update.settings,
                "metrics": self._evaluator.metrics("newest"),
            }
        )


class Follower:
    """Follows both logs and answers from what they say; learns nothing of its own.

    Histories, vocabulary and counts are folded from the events at once, so an
    answer reflects an event as soon as it is acknowledged; rows and dense weights
    follow with the updates.
    """

    def __init__(
        self, config: Config, events: EventsLog, updates: UpdatesLog, snapshots: Path | None
    ) -> None:
        self.config = config
        self._events = events
        self._updates = updates
        self._snapshots = Snapshots(snapshots, config.deploy.snapshots_kept) if snapshots else None
        self.report: dict[str, Any] = {}
        self._tried: list[Path] | None = None
        self.fold = Fold(config)
        self._start(self._newest())

    @property
    def offset(self) -> int:
        """Offset of the newest event that answers reflect."""
        return self.fold.offset

    def catch_up(self) -> list[Record]:
        """Folds what is new in both logs; returns the new records that name a recommendation.

        A damaged update is never passed over: the state before it answers, with new events
        folded in, until there is a snapshot that stands for a later one.
        """
        records = self._fold_events(self._events.end())
        while (end := self._updates.end()) > self.sequence:
            stored = self._updates.read(self.sequence, 1)
            if not stored:
                records += self._start_over(None, end + 1)
                continue
            try:
                records += self._apply(stored[0])
            except UpdateError as error:
                if not self._passed(stored[0], error):
                    break
                records += self._fold_events(self._events.end())
        return records

    def recommend(self, requests: Sequence[Request], now: float) -> list[Recommendations]:
        """Answers requests together, by one state.

        Args:
            requests: what is asked.
            now: seconds since 1970.
        """
        contexts = self.fold.preprocess.contexts(requests, self._stream_now(now))
        longest = max(request.n for request in requests)
        ranking = self.fold.recommender.rank(contexts, self.fold.withheld(), longest)
        reasons = self.fold.recommender.reasons(
            contexts, ranking, longest, self.fold.preprocess.items.id
        )
        answers = []
        for b, request in enumerate(requests):
            n = min(request.n, int((ranking.rows[b] >= 0).sum()))
            rows, scores = ranking.rows[b, :n].tolist(), ranking.scores[b, :n].tolist()
            answers.append(
                self._answer(
                    [
                        self._item(*of_item)
                        for of_item in zip(rows, scores, reasons[b][:n], strict=True)
                    ]
                )
            )
        return answers

    def explain(self, user_id: str, n: int, now: float) -> Explanation:
        """What the list that the user would be recommended now is made from."""
        fold = self.fold
        contexts = fold.preprocess.contexts([Request(n=n, user_id=user_id)], self._stream_now(now))
        ranking = fold.recommender.rank(contexts, fold.withheld(), n)
        reasons = fold.recommender.reasons(contexts, ranking, n, fold.preprocess.items.id)[0]
        effects = fold.recommender.effects(ranking, n)[0]
        weights = fold.model.sequence.history_weights(contexts)[0]
        title = fold.preprocess.catalogue.title
        return Explanation(
            user_id=user_id,
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            offset=self.offset,
            events=int(contexts.history_lengths[0]),
            history=[
                HistoryEvent(
                    item_id=fold.preprocess.items.id(row),
                    title=title(row),
                    type=fold.preprocess.type_names[contexts.history_types[0, column]],
                    time=float(contexts.history_times[0, column]),
                    weight=round(float(weights[column]), 6),
                )
                for column, row in reversed(list(enumerate(contexts.history_items[0].tolist())))
                if row != NO_ROW
            ],
            items=[
                ExplainedItem(
                    item_id=fold.preprocess.items.id(row),
                    title=title(row),
                    score=round(float(score), 6),
                    reasons=reasons[place],
                    features=effects[place],
                )
                for place, (row, score) in enumerate(
                    zip(ranking.rows[0, :n].tolist(), ranking.scores[0, :n], strict=True)
                )
                if row != NO_ROW
            ],
        )

    def popular(self, n: int, now: float) -> Recommendations:
        """The most popular items of the moment."""
        rows, scores = self.fold.recommender.popular(n, self.fold.withheld())
        return self._answer(
            [self._item(row, score, None) for row, score in zip(rows, scores, strict=True)]
        )

    def _newest(self) -> tuple[State, Manifest] | None:
        return self._snapshots.newest(self.fold.shape) if self._snapshots else None

    def _start(self, found: tuple[State, Manifest] | None) -> None:
        """Empty, or as a snapshot has it."""
        self.fold = Fold(self.config)
        self.epoch, self.version, self.sequence, self.trained_through = 1, 1, 0, 0
        self._clock = (0.0, 0.0)
        if found:
            state, manifest = found
            self.fold.load(state, manifest.offset)
            self.epoch, self.version = manifest.epoch, manifest.version
            self.sequence, self.trained_through = manifest.sequence, manifest.offset
            self._read_clock()

    def _read_clock(self) -> None:
        """The clock as folding every event would have left it; a snapshot doesn't hold it."""
        through = self.offset
        while through > 0:
            before = max(through - _READ, 0)
            for record in reversed(self._events.read(before, through - before)):
                if isinstance(record.entry, Event):
                    self._clock = (record.stream_time, record.received_at)
                    return
            through = before

    def _fold_events(self, end: int) -> list[Record]:
        folded: list[Record] = []
        while self.offset < end:
            records = _until_removal(self._events.read(self.offset, _READ))
            batch, removed = self.fold.batch(records)
            if len(batch):
                self.fold.model.count(batch)
            if removed:
                self.fold.model.forget(removed)
            for record in records:
                if isinstance(record.entry, Event):
                    self._clock = (record.stream_time, record.received_at)
            folded += [r for r in records if getattr(r.entry, "recommendation_id", None)]
        return folded

    def _apply(self, stored: StoredUpdate) -> list[Record]:
        """Takes over one update; on a gap or a new epoch, starts again from a snapshot.

        Raises:
            UpdateError: it is damaged; nothing of it was taken over.
        """
        if (stored.epoch, stored.sequence) != (self.epoch, self.sequence + 1):
            return self._start_over(stored.epoch, stored.sequence)
        update = decode(stored.payload)
        records = self._fold_events(stored.trained_through)
        self.fold.model.put(update.tables, update.tombstones, update.dense)
        self.sequence, self.trained_through = update.sequence, update.trained_through
        if stored.report:
            with suppress(msgspec.DecodeError):
                self.report = msgspec.json.decode(stored.report)
        return records

    def _start_over(self, epoch: int | None, sequence: int) -> list[Record]:
        """From the newest snapshot, where the log goes on with an update that doesn't follow.

        Args:
            epoch: that update's, ``None`` where it isn't there yet and those before are gone.
            sequence: likewise.
        """
        log.warning("following from the snapshot", epoch=epoch, sequence=sequence)
        self._start(self._newest())
        following = [stored.sequence for stored in self._updates.read(self.sequence, 1)]
        goes_on = self.sequence + 1 == sequence or following == [self.sequence + 1]
        if self.sequence < sequence and not (goes_on and epoch in (None, self.epoch)):
            # No snapshot knows the rows before it: the counts carry on, rows start anew.
            self.epoch, self.sequence = epoch or self.epoch, sequence - 1
        return self._fold_events(self._events.end())

    def _passed(self, stored: StoredUpdate, error: UpdateError) -> bool:
        """Goes on from a snapshot that holds what a damaged update did, if there is one."""
        newest = self._snapshots.paths()[-1:] if self._snapshots else []
        if newest == self._tried:
            return False
        self._tried = newest
        log.error("update is damaged", sequence=stored.sequence, reason=str(error))
        found = self._newest()
        if found is None or found[1].sequence < stored.sequence:
            return False
        self._start(found)
        return True

    def _stream_now(self, now: float) -> float:
        """Stream time of a request: the newest event's, and what has passed since it came."""
        stream_time, received_at = self._clock
        return stream_time + max(now - received_at, 0.0)

    def _item(self, row: int, score: float, reasons: list[Any] | None) -> RecommendedItem:
        return RecommendedItem(
            item_id=self.fold.preprocess.items.id(row),
            score=round(float(score), 6),
            reasons=reasons or [],
            title=self.fold.preprocess.catalogue.title(row),
        )

    def _answer(self, items: list[RecommendedItem]) -> Recommendations:
        return Recommendations(
            recommendation_id=uuid4().hex,
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            items=items,
        )


_RATED = ("sequence", "mixture")
"""Parts of the model whose learning rates the optimizer steers."""


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


def _until_removal(records: list[Record]) -> list[Record]:
    """Cut after the first removal: what is forgotten must not depend on where batches end."""
    for k, record in enumerate(records):
        if isinstance(record.entry, ItemRemoval):
            return records[: k + 1]
    return records


def _part(state: State, prefix: str) -> State:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
