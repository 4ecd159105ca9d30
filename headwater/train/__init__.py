"""Stage 3, train: one micro-batch at a time, each event once and a few recent ones again.

The sequence expert takes a gradient step on the new
events, on earlier positions of their histories and on replayed examples, against
uniform and in-batch negatives. The mixture takes one on the lists that were
ranked before that. What the counting experts learn is counted before, as each event is ranked.

The gradient of the sequence expert depends on nothing that ranking and counting change, so it is
begun before them and worked out beside them; both steps are taken, or left, behind.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from headwater.config import Config
from headwater.model import Earlier, Examples, Model, Step, gap_buckets, single_threaded
from headwater.train._generator import Generator
from headwater.train._imbalance import log_keep, replay_chances, resampled, uniforms
from headwater.train._passes import ListPasses, Pasts, SequencePasses, is_judge
from headwater.train._replay import Replay
from headwater.types import (
    NO_ROW,
    Batch,
    Doubles,
    Flags,
    Floats,
    Ints,
    Labels,
    Longs,
    Ranking,
    State,
)

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

_LIST_LENGTH = 64
"""Candidates of a list that the mixture learns from: its own best ones, the hard negatives."""


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


@dataclass(slots=True)
class Sample:
    """What a step takes of a batch of B events; all of them are counted.

    A history that is encoded holds the user's events that weren't taken: as many more of its
    earlier positions are predicted. Both learning rates are raised by the square root of how
    many events an example stands for (Malladi et al., NeurIPS 2022, of Adam's and the batch's
    size): on the first 30,000 tweets of films NDCG@10 is 0.0986 with that and 0.0933 without
    either.
    """

    gradient: Flags  # (B,) those that the sequence expert learns from
    gradient_share: float
    ranked: Longs  # (Q,) ascending places of those that there are lists of
    replay: bool  # whether earlier histories are learned again; lists are


NOTHING = Lesson(float("nan"), float("nan"), 0, 0)
"""What comes of a micro-batch that no step is taken for."""


@dataclass(slots=True)
class _Drawn:
    """The examples of one expert's step: new ones, for the buffer, and places of replayed ones."""

    fresh: dict[str, np.ndarray]
    again: Ints


@dataclass(slots=True)
class _Positives:
    """Where the targets of a step come from."""

    taught: Flags  # (Q, P)
    new: Flags  # (Q,)
    mean_keep: float  # over the stream's targets, for their items' sake
    chances: Doubles | None  # of replay, None where it draws all alike

    @property
    def like_the_stream(self) -> int:
        return int(self.taught.sum()) - self.by_chance

    @property
    def by_chance(self) -> int:
        return 0 if self.chances is None else int(self.taught[~self.new].sum())


@dataclass(slots=True)
class Begun:
    """A micro-batch that is being learned."""

    batch: Batch
    sample: Sample
    kept: Flags  # (B, members)
    drawn: _Drawn
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
        length = config.preprocess.history_length
        settings = config.sequence
        # Per type code, 0 being that of an unknown type: whether such an event is a goal.
        kinds = config.event_types.values()
        self._taught = np.array([False, *(k.polarity > 0 and k.weight > 0 for k in kinds)])
        self._keep = np.array([1.0, *(kind.keep for kind in kinds)], np.float32)
        self._members = config.mixture.members
        self._earlier: Earlier | None = None
        self._histories = Replay(
            settings.replay_buffer,
            settings.replay_cap,
            {
                "items": ((length,), np.int32),
                "types": ((length,), np.uint8),
                "gaps": ((length,), np.uint8),
                "cleaned": ((length,), np.bool_),
                "targets": ((), np.int32),
                "kinds": ((), np.uint8),
                "weights": ((), np.float32),
            },
        )
        self._lists = Replay(
            config.mixture.replay_buffer,
            config.sequence.replay_cap,
            {
                "features": ((_LIST_LENGTH, n_features), np.float16),
                "lengths": ((), np.int32),
                "correction": ((_LIST_LENGTH,), np.float16),
                "targets": ((), np.int32),
                "items": ((), np.int32),
                "kinds": ((), np.uint8),
                "weights": ((self._members,), np.float32),
            },
        )
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
        self._earlier = None
        random = np.random.Generator(self._random(batch).jumped())
        taught = batch.targets & (batch.weights > 0)
        kept = taught[:, None] & self._kept(batch)
        chances = self._chances(self._histories, "targets")
        wanted = kept[:, 0] & sample.gradient
        examples, drawn, new = self._sampled_histories(batch, wanted, sample, chances, random)
        keep = np.exp(self._log_keep(batch.items[taught]))
        mean_keep = float(keep.sum()) / max(len(keep), 1)
        positives = _Positives(examples.weights > 0, new, mean_keep, chances)
        if labels is not None and (examples.weights > 0).any():
            examples = _labelled(examples, labels())
        if known is None:
            known = np.ones(len(self.model.sequence.tower.items), np.bool_)
        # The step stands for 1 / share as many events: it is longer, as that of a larger batch is.
        longer = sample.gradient_share**-0.5
        step = self._step_on_histories(
            examples, positives, known, random, rates["sequence"] * longer
        )
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
        self._earlier = earlier
        batch, sample = begun.batch, begun.sample
        taught = batch.targets & (batch.weights > 0)
        random = np.random.Generator(self._random(batch))
        lists, drawn_lists = self._sampled_lists(batch, ranking, begun.kept, sample, random)
        mixture = self._step_on_lists(lists, begun.mixture_rate)
        gains = self._first_lists(batch, ranking, sample.ranked, taught)
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
            self._histories.add(begun.drawn.fresh)
            self._lists.add(drawn_lists.fresh)
        else:
            self._histories.put_back(begun.drawn.again)
            self._lists.put_back(drawn_lists.again)
        return lesson

    def _random(self, batch: Batch) -> np.random.Philox:
        """What the lists' draws come from; the histories' come from far behind it."""
        return np.random.Philox(key=[self.config.seed, batch.end])

    def remember(self, batch: Batch) -> None:
        """Keeps a batch's examples for replay beside what comes next, and learns nothing."""
        taught = batch.targets & (batch.weights > 0)
        self._histories.add(self._fresh(batch, taught & self._kept(batch)[:, 0]))

    def forget(self, items: Ints) -> None:
        """Replays no example again that names one of the item rows."""
        self._histories.retire("items", items)
        self._histories.retire("targets", items)
        self._lists.retire("items", items)

    def state(self) -> State:
        return {
            **{f"histories.{name}": value for name, value in self._histories.state().items()},
            **{f"lists.{name}": value for name, value in self._lists.state().items()},
        }

    def load(self, state: State) -> None:
        self._histories.load({k[10:]: v for k, v in state.items() if k.startswith("histories.")})
        self._lists.load({k[6:]: v for k, v in state.items() if k.startswith("lists.")})

    def _kept(self, batch: Batch) -> Flags:
        """(B, members) events that each draw keeps; the sequence expert takes the first draw."""
        keep = self._keep[batch.types] * np.exp(self._log_keep(batch.items))
        return uniforms(self.config.seed, batch.offsets, self._members) < keep[:, None]

    def _shares(self, rows: Ints) -> Floats:
        """(...) mean over the half-lives of the items' shares before the batch."""
        popularity, earlier = self.model.popularity, self._earlier
        found = popularity.shares_before(earlier, rows) if earlier else popularity.shares(rows)
        means: Floats = found.mean(axis=-1)
        return means

    def _log_keep(self, rows: Ints) -> Floats:
        """(...) log probability that an example of each item is kept for the item's sake; that of
        ``NO_ROW`` means nothing.
        """
        if self.config.imbalance.item_share == 1.0:
            return np.zeros(rows.shape, np.float32)
        shares = self._shares(np.maximum(rows, 0))
        return log_keep(shares, self.config.imbalance.item_share)

    def _chances(self, buffer: Replay, items: str) -> Doubles | None:
        """(len(buffer),) of being drawn for replay, ``None`` for all alike."""
        settings = self.config.imbalance
        if not len(buffer) or settings.rare_items == settings.rare_types == 0.0:
            return None
        events = self.model.popularity.events[buffer.column(items)]
        found = replay_chances(events, buffer.column("kinds"), settings)
        return np.where(buffer.spent(), 0.0, found)

    def _by_weight(
        self, examples: dict[str, np.ndarray], random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The examples as they are, or those that are drawn, weighing as often as they are."""
        if self.config.imbalance.by == "weight":
            return examples
        weights = examples["weights"]
        counts = resampled(weights, random.random(weights.shape[1:]))
        drawn = counts.any(axis=tuple(range(1, counts.ndim)))
        examples = {**examples, "weights": counts}
        return {name: column[drawn] for name, column in examples.items()}

    def _fresh(self, batch: Batch, kept: Flags) -> dict[str, np.ndarray]:
        """The batch's own examples, as the replay buffer has them."""
        contexts = batch.contexts
        gaps = gap_buckets(contexts.history_times, contexts.history_items, contexts.times)
        # An empty history says nothing that a gradient could use.
        usable = kept & (contexts.history_items[:, -1] != NO_ROW)
        return {
            "items": contexts.history_items[usable],
            "types": contexts.history_types[usable],
            "gaps": gaps[usable],
            "cleaned": contexts.history_cleaned[usable],
            "targets": batch.items[usable],
            "kinds": batch.types[usable],
            "weights": batch.weights[usable] / self._keep[batch.types[usable]],
        }

    def _sampled_histories(
        self,
        batch: Batch,
        kept: Flags,
        sample: Sample,
        chances: Doubles | None,
        random: np.random.Generator,
    ) -> tuple[Examples, _Drawn, Flags]:
        """New and replayed examples, where they were drawn, and which are new."""
        fresh = self._fresh(batch, kept)
        settings = self.config.sequence
        wanted = round(settings.replay * len(fresh["targets"])) if sample.replay else 0
        places = self._histories.sample(wanted, random, chances)
        again = self._histories.take(places)
        both = {name: np.concatenate([fresh[name], again[name]]) for name in fresh}
        both["new"] = np.arange(len(both["targets"])) < len(fresh["targets"])
        both = self._by_weight(both, random)
        items, types, cleaned, targets, weights = (
            both[name] for name in ("items", "types", "cleaned", "targets", "weights")
        )
        n, length = items.shape
        earlier = round(settings.earlier_positions / sample.gradient_share)
        at = np.full((n, 1 + earlier), length - 1, np.int32)
        at[:, 1:] = random.integers(0, max(length - 1, 1), (n, earlier))
        # Spread the draws over the filled columns, so that short histories get theirs too.
        filled = (items >= 0).sum(axis=1, keepdims=True)
        start = length - filled
        at[:, 1:] = start + at[:, 1:] % np.maximum(filled - 1, 1)
        goal = np.empty((n, 1 + earlier), np.int32)
        goal[:, 0] = targets
        goal[:, 1:] = np.take_along_axis(items, np.minimum(at[:, 1:] + 1, length - 1), axis=1)
        share = np.empty((n, 1 + earlier), np.float32)
        share[:, 0] = weights
        # A history holds dislikes too; what came next is a goal only where it was wanted.
        kind = np.take_along_axis(types, np.minimum(at[:, 1:] + 1, length - 1), axis=1)
        spoilt = np.take_along_axis(cleaned, np.minimum(at[:, 1:] + 1, length - 1), axis=1)
        shown = (filled > 1) & self._taught[kind] & ~spoilt
        share[:, 1:] = np.where(
            shown, 0.5 * weights[:, None] / max(settings.earlier_positions, 1), 0.0
        )
        if self.config.imbalance.item_share < 1.0:
            # Kept for their own item's sake, and not for that of the event that brought them.
            share[:, 1:] *= np.exp(-self._log_keep(targets))[:, None]
            share[random.random(share.shape) >= np.exp(self._log_keep(goal))] = 0.0
            share[:, 0] = weights
        known = np.ones(at.shape, np.bool_)
        known[:, 0] = ~both["new"]
        examples = Examples(items, types, both["gaps"], at, goal, share, known)
        return examples, _Drawn(fresh, places), both["new"]

    def _step_on_histories(
        self,
        examples: Examples,
        positives: _Positives,
        known: Flags,
        random: np.random.Generator,
        rate: float,
    ) -> Callable[[], Step] | None:
        """What works the step out, of arrays that nobody else changes."""
        n_items = len(self.model.sequence.tower.items)
        if not len(examples.items):
            return None
        wanted = self.config.sequence.negatives
        if n_items <= wanted:
            # Every item is a candidate: the softmax is exact and needs no logQ.
            everything = np.flatnonzero(known).astype(np.int32)
            thinned = self.config.imbalance.item_share < 1.0
            correction = (lambda rows: -self._log_keep(rows)) if thinned else None
            return self.model.sequence.begin(examples, everything, correction, rate)
        uniform = np.unique(random.integers(0, n_items, wanted)).astype(np.int32)
        negatives = uniform[known[uniform]]
        hard = self.config.sequence.hard_negatives
        if hard:
            drawable = np.flatnonzero(known).astype(np.int32)
            generator = Generator(self.model.sequence, examples, drawable, hard, random)
            negatives = np.union1d(negatives, generator.rows)

        def favour(rows: Ints) -> Floats:
            """Log probability of being a candidate, drawn or as a positive, less that of being
            kept as a positive.
            """
            log_kept = self._log_keep(rows)
            popular = self._shares(rows) * np.exp(log_kept) / positives.mean_keep
            absent = (1.0 - np.minimum(popular, 0.999)) ** positives.like_the_stream
            absent = absent * (1.0 - 1.0 / n_items) ** wanted
            if positives.chances is not None:
                targets = self._histories.column("targets")
                total = max(float(positives.chances.sum()), 1e-300)
                drawn = np.bincount(targets, positives.chances / total, n_items)[rows]
                absent = absent * (1.0 - np.minimum(drawn, 0.999)) ** positives.by_chance
            if hard:
                absent = absent * generator.absent(rows)
            logs: Floats = np.log1p(-absent).astype(np.float32)
            return logs - log_kept

        return self.model.sequence.begin(examples, negatives, favour, rate)

    def _sampled_lists(
        self,
        batch: Batch,
        ranking: Ranking,
        kept: Flags,
        sample: Sample,
        random: np.random.Generator,
    ) -> tuple[dict[str, np.ndarray], _Drawn]:
        """The lists that hold their answer, cut to length, with replayed ones behind them."""
        items, kept = batch.items[sample.ranked], kept[sample.ranked]
        hit = (ranking.rows == items[:, None]) & kept.any(axis=1, keepdims=True)
        rows = np.flatnonzero(hit.any(axis=1))
        place = np.argmax(hit[rows], axis=1)
        lengths = (ranking.rows[rows] >= 0).sum(axis=1)
        length = min(_LIST_LENGTH, ranking.rows.shape[1])
        # An answer further down takes the last place.
        last = length - 1
        shown = np.tile(np.arange(length), (len(rows), 1))
        shown[:, last] = np.maximum(place, last)
        features = np.zeros((len(rows), _LIST_LENGTH, ranking.features.shape[2]), np.float16)
        features[:, :length] = ranking.features[rows[:, None], shown]
        correction = np.zeros((len(rows), _LIST_LENGTH), np.float16)
        correction[:, :length] = -self._log_keep(ranking.rows[rows[:, None], shown])
        kinds = batch.types[sample.ranked[rows]]
        weights = batch.weights[sample.ranked[rows]]
        fresh = {
            "features": features,
            "lengths": np.minimum(lengths, length).astype(np.int32),
            "correction": correction,
            "targets": np.minimum(place, last).astype(np.int32),
            "items": items[rows],
            "kinds": kinds,
            "weights": (weights / self._keep[kinds])[:, None] * kept[rows],
        }
        wanted = round(self.config.mixture.replay * len(rows))
        chances = self._chances(self._lists, "items")
        places = self._lists.sample(wanted, random, chances)
        again = self._lists.take(places)
        both = {name: np.concatenate([fresh[name], again[name]]) for name in fresh}
        return self._by_weight(both, random), _Drawn(fresh, places)

    def _first_lists(self, batch: Batch, ranking: Ranking, ranked: Longs, taught: Flags) -> Floats:
        first = np.flatnonzero(taught[ranked] & (batch.contexts.history_lengths[ranked] == 0))
        rows = ranking.rows[first]
        answers = rows == batch.items[ranked][first, None]
        return self.model.mixture.judge_first(ranking.features[first], answers, rows != NO_ROW)

    def _step_on_lists(self, lists: dict[str, np.ndarray], rate: float) -> Step | None:
        if not len(lists["targets"]):
            return None
        thinned = self.config.imbalance.item_share < 1.0
        valid = np.arange(_LIST_LENGTH) < lists["lengths"][:, None]
        return self.model.mixture.step(
            lists["features"].astype(np.float32),
            valid,
            lists["targets"],
            lists["weights"],
            rate,
            lists["correction"].astype(np.float32) if thinned else None,
        )


def _labelled(examples: Examples, labels: Labels) -> Examples:
    """The examples with the labels behind them, each on its whole history."""
    n, columns = len(labels), examples.at.shape[1]
    if not n:
        return examples
    goal = np.zeros((n, columns), np.int32)
    goal[:, 0] = labels.items
    share = np.zeros((n, columns), np.float32)
    share[:, 0] = labels.weights
    last = np.full((n, columns), examples.items.shape[1] - 1, np.int32)
    return Examples(
        items=np.concatenate([examples.items, labels.history_items]),
        types=np.concatenate([examples.types, labels.history_types]),
        gaps=np.concatenate([examples.gaps, labels.history_gaps]),
        at=np.concatenate([examples.at, last]),
        targets=np.concatenate([examples.targets, goal]),
        weights=np.concatenate([examples.weights, share]),
        again=np.pad(examples.again, ((0, n), (0, 0))),
    )
