"""Stage 3, train: one micro-batch at a time, each event once and a few recent ones again.

The sequence expert takes a gradient step on the new
events, on earlier positions of their histories and on replayed examples, against
uniform and in-batch negatives. The mixture takes one on the lists that were
ranked before that. What the counting experts learn is counted before, as each event is ranked.

The gradient of the sequence expert depends on nothing that ranking and counting change, so it is
begun before them and worked out beside them; both steps are taken, or left, behind.

``_histories`` draws the examples of the one and ``_negatives`` what they are told from, ``_lists``
makes those of the other; ``_imbalance`` says how often what is frequent or rare is among them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from headwater.config import Config
from headwater.model import Earlier, Model, Step, single_threaded
from headwater.packing import part_of
from headwater.train._histories import Histories, labelled
from headwater.train._imbalance import Balance, uniforms
from headwater.train._lists import Lists
from headwater.train._negatives import Negatives
from headwater.train._passes import ListPasses, Pasts, SequencePasses, is_judge
from headwater.train._replay import Drawn, Replay
from headwater.train._sample import Sample
from headwater.types import Batch, Flags, Ints, Labels, Ranking, State

__all__ = [
    "NOTHING",
    "Begun",
    "Lesson",
    "ListPasses",
    "Pasts",
    "Replay",
    "Sample",
    "SequencePasses",
    "Trainer",
    "is_judge",
    "uniforms",
]


@dataclass(slots=True)
class Lesson:
    """What a step did, or would do: mean losses in nats, and of how many examples.

    Where there are no examples a loss is NaN. ``strides`` are by how much each step changed the
    dense weights, as a root mean square and as if it hadn't been longer for a sample; none where
    none was taken.
    """

    sequence_loss: float
    mixture_loss: float
    sequence_examples: int
    mixture_examples: int
    strides: dict[str, float] = field(default_factory=dict)


NOTHING = Lesson(float("nan"), float("nan"), 0, 0)
"""What comes of a micro-batch that no step is taken for."""


@dataclass(slots=True)
class Begun:
    """A micro-batch that is being learned."""

    batch: Batch
    sample: Sample
    kept: Flags  # (B, members)
    drawn: Drawn
    examples: int  # of the sequence expert that teach
    longer: float
    mixture_rate: float
    step: Future[Step] | None  # of the sequence expert


class Trainer:
    """Learns batches into a model.

    Args:
        config: negatives, replay, imbalance, rates.
        model: what is trained.
        n_features: F, of the mixture's lists.
    """

    def __init__(self, config: Config, model: Model, n_features: int) -> None:
        self.config = config
        self.model = model
        self._balance = Balance(config, model.popularity)
        self._histories = Histories(config, self._balance)
        self._negatives = Negatives(config, model.sequence, self._balance)
        self._lists = Lists(config, model.mixture, self._balance, n_features)
        self._beside = ThreadPoolExecutor(1, "sequence", initializer=single_threaded)

    def learn(
        self,
        batch: Batch,
        ranking: Ranking,
        rates: dict[str, float],
        labels: Callable[[], Labels] | None = None,
        *,
        known: Flags | None = None,
    ) -> Lesson:
        """Learns all of a micro-batch whose lists were ranked before it: ``begin``, ``finish``."""
        sample = Sample(np.ones(len(batch), np.bool_), 1.0, np.arange(len(batch)), True)
        return self.finish(self.begin(batch, rates, sample, labels, known=known), ranking)

    def begin(
        self,
        batch: Batch,
        rates: dict[str, float],
        sample: Sample,
        labels: Callable[[], Labels] | None = None,
        *,
        known: Flags | None = None,
    ) -> Begun:
        """Begins to learn a micro-batch: draws, and works out the sequence expert's gradient beside
        whatever the caller does next; that may count, and may not change the sequence expert.

        Sampling is corrected by what shares are now.

        Args:
            batch: the events.
            rates: factors on the learning rates of ``sequence`` and ``mixture``.
            sample: what is learned from.
            labels: takes what feedback says of items that were shown. It rides on the sequence
                expert's step, so it is asked only where the batch gives one.
            known: (N,) item rows that stand for an item, the others are no negatives; ``None``
                for all.
        """
        random = np.random.Generator(self._random(batch).jumped())
        kept = self._balance.kept(batch)
        examples, positives, drawn = self._histories.draw(batch, kept[:, 0], sample, random)
        if labels is not None and positives.taught.any():
            examples = labelled(examples, labels())
        if known is None:
            known = np.ones(len(self.model.sequence.tower.items), np.bool_)
        # The step stands for 1 / share as many events: it is longer, as that of a larger batch is.
        longer = sample.gradient_share**-0.5
        step = None
        if len(examples.items):
            negatives, correction = self._negatives.draw(examples, positives, known, random)
            rate = rates["sequence"] * longer
            step = self.model.sequence.begin(examples, negatives, correction, rate)
        return Begun(
            batch=batch,
            sample=sample,
            kept=kept,
            drawn=drawn,
            examples=int(positives.taught.sum()),
            longer=longer,
            mixture_rate=rates["mixture"] * longer,
            step=self._beside.submit(step) if step else None,
        )

    def finish(
        self,
        begun: Begun,
        ranking: Ranking,
        *,
        fit: Callable[[Lesson], bool] = lambda _: True,
        earlier: Earlier | None = None,
    ) -> Lesson:
        """Learns from the lists of a micro-batch as well, and takes both steps, or none.

        Args:
            begun: what ``begin`` gave.
            ranking: a list for each of the events that its sample names, made before this call.
            fit: is shown the losses before the steps are taken; when it says False, none is.
            earlier: what shares were before the batch was counted, by which sampling is corrected;
                ``None`` for what they are.
        """
        batch, sample = begun.batch, begun.sample
        random = np.random.Generator(self._random(batch))
        lists, drawn_lists = self._lists.draw(batch, ranking, begun.kept, sample, earlier, random)
        mixture = self._lists.step(lists, begun.mixture_rate)
        gains = self._lists.first(batch, ranking, sample.ranked)
        sequence = begun.step.result() if begun.step else None
        lesson = Lesson(
            sequence.loss if sequence else float("nan"),
            mixture.loss if mixture else float("nan"),
            begun.examples if sequence else 0,
            len(lists["targets"]),
        )
        if fit(lesson):
            for step in (sequence, mixture):
                if step:
                    step.take()
            taken = {"sequence": (sequence, self.model.sequence.dense)}
            taken["mixture"] = (mixture, self.model.mixture.dense)
            lesson.strides = {
                name: dense.stride / begun.longer for name, (step, dense) in taken.items() if step
            }
            self.model.mixture.note_first(gains)
            self._histories.buffer.add(begun.drawn.fresh)
            self._lists.buffer.add(drawn_lists.fresh)
        else:
            self._histories.buffer.put_back(begun.drawn.again)
            self._lists.buffer.put_back(drawn_lists.again)
        return lesson

    def _random(self, batch: Batch) -> np.random.Philox:
        """What the lists' draws come from; the histories' come from far behind it."""
        return np.random.Philox(key=[self.config.seed, batch.end])

    def remember(self, batch: Batch) -> None:
        """Keeps a batch's examples for replay beside what comes next, and learns nothing."""
        kept = self._balance.kept(batch)[:, 0]
        self._histories.buffer.add(self._histories.fresh(batch, kept))

    def forget(self, items: Ints) -> None:
        """Replays no example again that names one of the item rows."""
        self._histories.forget(items)
        self._lists.forget(items)

    def state(self) -> State:
        return {
            **{
                f"histories.{name}": value for name, value in self._histories.buffer.state().items()
            },
            **{f"lists.{name}": value for name, value in self._lists.buffer.state().items()},
        }

    def load(self, state: State) -> None:
        self._histories.buffer.load(part_of(state, "histories."))
        self._lists.buffer.load(part_of(state, "lists."))
