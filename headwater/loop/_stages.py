"""The stages as they learn: one turn of the loop for one micro-batch.

Nothing here knows of logs, snapshots or updates. What a turn found is returned, and who
sequences the turns tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from headwater.config import Config
from headwater.deploy import Watch
from headwater.evaluate import (
    TOP,
    Alarm,
    Evaluator,
    HitRate,
    Losses,
    Outcomes,
    Satisfaction,
    compare,
    hits,
    ndcg_gains,
)
from headwater.feedback import Impressions
from headwater.loop._fold import Fold
from headwater.loop._pace import sampled
from headwater.loop._timeline import Timeline
from headwater.model import EXPERTS, Earlier
from headwater.optimize import Optimizer
from headwater.packing import part_of
from headwater.preprocess import taken
from headwater.train import NOTHING, Begun, Lesson, Sample, Trainer
from headwater.types import (
    Batch,
    Event,
    Flags,
    Floats,
    Gone,
    Held,
    Labels,
    Longs,
    Pace,
    Ranking,
    Record,
    Resume,
    SettingChange,
    State,
    StreamChange,
)

RATED = ("sequence", "mixture")
"""Parts of the model whose learning rates the optimizer steers."""

_PORTION = 10
"""Predictions of a portion. On the first 30,000 tweets of films NDCG@10 was 0.1309 for whole
micro-batches of 100, 0.1326 with 10, 0.1336 with 5 and 0.1337 with 1."""

_POPULARITY = 1 + EXPERTS.index("popularity")
"""Column of the ``popularity`` expert in ranks."""


class _Part(Protocol):
    """What a stage remembers."""

    def state(self) -> State: ...

    def load(self, state: State) -> None: ...


class Turn(NamedTuple):
    """What a micro-batch came to.

    Args:
        end: offset of its last record.
        time: stream time of its last record.
        held: why it was only counted, if it was.
        settings: what the optimizer changed.
        stream: what changed in the stream.
        ringing: offset since which lists are worse than they were, where the alarm rings.
        wild: what is wrong with the step that was taken, if something is.
    """

    end: int
    time: float
    held: Held | None
    settings: list[SettingChange]
    stream: list[StreamChange]
    ringing: int | None
    wild: str | None


class Stages:
    """Everything that a turn of the loop reads and changes.

    Args:
        config: all settings.
        grouped: see ``Preprocessor``.
    """

    def __init__(self, config: Config, *, grouped: bool) -> None:
        self._config = config
        self._grouped = grouped
        self.fold = Fold(config, grouped=grouped)
        types = self.fold.preprocess.type_names
        self.trainer = Trainer(config, self.fold.model, self.fold.n_features)
        self.evaluator = Evaluator(config, EXPERTS)
        self.satisfaction = Satisfaction(config, types)
        self.optimizer = Optimizer(config.optimize, RATED)
        self.impressions = Impressions(config, types)
        self.watch = Watch(config.deploy, RATED)
        self.alarm = Alarm()
        self.timeline = Timeline(len(types))
        self.hit_rate = HitRate()
        self.losses = Losses(RATED)
        self.gradient_through = 0
        self._labelled = False  # whether the batch that is being learned took labels

    def learn(
        self,
        records: Sequence[Record],
        *,
        held: Held | None = None,
        pace: Pace | None = None,
        on_batch: Callable[[Batch], None] | None = None,
        on_outcomes: Callable[[Batch, Outcomes], None] | None = None,
        on_tested: Callable[[Batch, Batch, Outcomes], None] | None = None,
    ) -> Turn:
        """One turn of the loop: preprocess, recommend, evaluate, feedback, guard, train, optimize.

        Args:
            records: the micro-batch.
            held: why it is only counted, where that is known beforehand.
            pace: what it gets; ``None`` for everything.
            on_batch: called with the events before any of them is counted.
            on_outcomes: called with the targets and what was predicted of each, the further
                ones that a pace spares too, before a step is taken.
            on_tested: likewise with the batch, those of its events that the pace predicts, and
                what was predicted of them.
        """
        if any(isinstance(record.entry, Resume) for record in records):
            self.watch.resume()
        # What an entry of the batch withholds, or lists, isn't known yet to the events before it.
        withheld = self.fold.withheld()
        batch, removed = self.fold.batch(records)
        settings: list[SettingChange] = []
        stream: list[StreamChange] = []
        ringing = wild = None
        if len(batch):
            new = self.fold.n_items - len(withheld)
            withheld = np.pad(withheld, (0, new), constant_values=True)
            if on_batch is not None:
                on_batch(batch)
            admitted = self.fold.admitted(records)
            preprocess = self.fold.preprocess
            self.impressions.observe(batch, admitted, preprocess.items.find, preprocess.users.find)
            judged = self.watch.judge(batch)
            held = held or judged
            sample = self._sample(batch, pace)
            earlier = self.fold.model.popularity.before(batch.items)
            begun = None if held else self._begin(batch, sample)
            ranking = self._rank(batch, sample, withheld, pace, on_outcomes)
            tested = taken(batch, sample.ranked)
            popularity = self.fold.model.popularity
            outcomes = self.evaluator.observe(
                tested, ranking, popularity.events, popularity.n_events, popularity.n_eligible
            )
            ringing, worse = self._listen(tested, outcomes)
            if on_tested is not None:
                on_tested(batch, tested, outcomes)
            if on_outcomes is not None and pace is None:
                on_outcomes(tested, outcomes)
            shown = ranking.rows[:, :TOP]
            values = _values(admitted)
            self.satisfaction.observe(batch, values, shown, self.fold.categories(shown))
            stream = self.timeline.observe(batch, admitted, values)
            lesson, held = self._train(begun, ranking, earlier, held)
            wild = self.watch.stepped(lesson.strides)
            of_losses = _losses(lesson)
            self.watch.settle(held, of_losses)
            if held is None and sample.replay:  # without replay a loss is of other examples
                worse += self.losses.observe(of_losses, len(batch), batch.end)
            for change in worse:
                self.timeline.note(change)
            stream += worse
            losses = {name: loss for name, (loss, _) in of_losses.items() if held is None}
            settings = self.optimizer.observe(
                losses, int(batch.targets.sum()), batch.end, replayed=sample.replay
            )
        gone = self.fold.forget(records, removed)
        self.forget(gone)
        # What holds no event is learned, but ends no pause.
        if held is None and (len(batch) or not self.watch.paused):
            self.gradient_through = batch.end
        return Turn(batch.end, records[-1].stream_time, held, settings, stream, ringing, wild)

    def remember(self, batch: Batch, gone: Gone) -> None:
        """Keeps what was only counted for replay: a model that is made of many passes over it
        would else be taught by the newest events alone.
        """
        self.trainer.remember(batch)
        if len(gone.items):
            self.trainer.forget(gone.items)

    def forget(self, gone: Gone) -> None:
        """Lets go of users and items that the fold has forgotten."""
        if len(gone.items):
            self.trainer.forget(gone.items)
            self.evaluator.forget(gone.items)
        self.impressions.forget(gone)
        self.satisfaction.forget(gone.users)

    def rates(self) -> dict[str, float]:
        """Factors of the learning rates."""
        return {name: self.optimizer.rate(name) for name in RATED}

    def state(self) -> State:
        """Everything that the next turn depends on."""
        return {
            **self.fold.state(),
            **{
                f"{name}.{key}": value
                for name, part in self._parts().items()
                for key, value in part.state().items()
            },
            "gradient_through": np.array(self.gradient_through, np.int64),
        }

    def load(self, state: State, offset: int) -> None:
        """Takes over what ``state`` returned, as of an offset."""
        self.fold.load(state, offset)
        for name, part in self._parts().items():
            part.load(part_of(state, f"{name}."))
        self.gradient_through = int(state["gradient_through"])

    def _parts(self) -> dict[str, _Part]:
        return {
            "train": self.trainer,
            "evaluate": self.evaluator,
            "satisfaction": self.satisfaction,
            "optimize": self.optimizer,
            "feedback": self.impressions,
            "watch": self.watch,
            "alarm": self.alarm,
            "timeline": self.timeline,
            "hit_rate": self.hit_rate,
            "losses": self.losses,
        }

    def _sample(self, batch: Batch, pace: Pace | None) -> Sample:
        """What a step takes of a batch."""
        seed = self._config.seed
        targets: Longs = np.flatnonzero(batch.targets)
        of = pace or Pace(batch.end, 1.0, 1.0, True)
        chosen = targets[sampled(seed, batch.offsets[targets], of.evaluated)]
        gradient = sampled(seed, batch.offsets, of.gradient)
        return Sample(gradient, of.gradient, chosen, of.replay)

    def _rank(
        self,
        batch: Batch,
        sample: Sample,
        withheld: Flags,
        pace: Pace | None,
        on_outcomes: Callable[[Batch, Outcomes], None] | None,
    ) -> Ranking:
        """A list for each of the events to predict; counts all of them.

        Who listens to outcomes hears of every prediction; nothing learns from the further ones.
        """
        chosen = sample.ranked
        if on_outcomes is None or pace is None:
            ends = [len(batch)] if pace else self._portion_ends(batch, chosen)
            return self._rank_counting(batch, chosen, ends, withheld)
        targets: Longs = np.flatnonzero(batch.targets)
        tested = taken(batch, targets)
        ranking = self._rank_counting(batch, targets, [len(batch)], withheld)
        popularity = self.fold.model.popularity
        counts = (popularity.events, popularity.n_events)
        on_outcomes(tested, compare(EXPERTS, tested, ranking, *counts))
        return _part_of(ranking, np.searchsorted(targets, chosen))

    def _rank_counting(
        self, batch: Batch, ranked: Longs, ends: list[int], withheld: Flags
    ) -> Ranking:
        """Lists for the events at places ``ranked``, and counts all of them.

        A list that is served finds every event counted that came before it. So what a portion
        of the batch holds is counted before the next one is ranked.

        Args:
            ends: places at which portions end, the last of them at the batch's end.
            withheld: (N,) item rows that the first portion may not be shown.
        """
        recommender = self.fold.recommender
        portions = None
        if len(ranked) and len(withheld):
            portions = recommender.portions(taken(batch, ranked).contexts, withheld)
        for start, stop in pairwise([0, *ends]):
            own = ranked[(ranked >= start) & (ranked < stop)]
            if portions is not None and len(own):
                portions.add(taken(batch, own).contexts, withheld)
            withheld = self.fold.count(taken(batch, np.arange(start, stop)), withheld)
        return recommender.rank_portions(portions)

    def _portion_ends(self, batch: Batch, chosen: Longs) -> list[int]:
        """Places behind each few of the chosen, and the end of the batch.

        Where simultaneous events are predicted together, none ends between such.
        """
        ends = chosen[_PORTION - 1 :: _PORTION] + 1
        if self._grouped:
            moments = np.flatnonzero(np.diff(batch.contexts.times)) + 1
            ends = np.append(moments, len(batch))[np.searchsorted(moments, ends)]
        return [int(end) for end in np.union1d(ends, len(batch))]

    def _listen(self, batch: Batch, outcomes: Outcomes) -> tuple[int | None, list[StreamChange]]:
        """Offset since which the alarm rings, it is silent again at once; and what got worse."""
        offsets = batch.offsets[outcomes.index]
        gains = ndcg_gains(outcomes.ranks[:, [0, _POPULARITY]], 10)
        self.alarm.observe(offsets, *gains.T)
        worse = self.hit_rate.observe(offsets, hits(outcomes.ranks[:, 0], 10))
        if (fall := self.alarm.fall(batch.end)) is not None:
            worse.append(fall)
        if not self.alarm.rings:
            return None, worse
        since = self.alarm.since
        self.alarm.silence()
        return since, worse

    def _begin(self, batch: Batch, sample: Sample) -> Begun:
        """Begins to learn a batch that nothing of was counted yet."""
        self._labelled = False

        def labels() -> Labels:
            self._labelled = True
            return self.impressions.take()

        known = self.fold.preprocess.items.in_use()
        return self.trainer.begin(batch, self.rates(), sample, labels, known=known)

    def _train(
        self, begun: Begun | None, ranking: Ranking, earlier: Earlier, held: Held | None
    ) -> tuple[Lesson, Held | None]:
        """The step, and why its gradient was left, if it was."""

        def fit(lesson: Lesson) -> bool:
            nonlocal held
            assert begun is not None
            wrong = [self.watch.fits(name, *of) for name, of in _losses(lesson).items()]
            for reason in filter(None, wrong):
                held = Held(begun.batch.end, "loss", reason)
            if held is not None and self._labelled:
                self.impressions.put_back()
            return held is None

        if begun is None:
            return NOTHING, held
        return self.trainer.finish(begun, ranking, fit=fit, earlier=earlier), held


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


def _values(records: Sequence[Record]) -> Floats:
    """The value of each event, NaN where it has none."""
    events = [record.entry for record in records if isinstance(record.entry, Event)]
    return np.array([np.nan if e.value is None else e.value for e in events], np.float32)
