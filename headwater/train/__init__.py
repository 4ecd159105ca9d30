"""Stage 3, train: one micro-batch at a time, each event once and a few recent ones again.

The counting experts count. The sequence expert takes a gradient step on the new
events, on earlier positions of their histories and on replayed examples, against
uniform and in-batch negatives. The mixture takes one on the lists that were
ranked before any of this was learned.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from headwater.config import Config
from headwater.model import Examples, Model, gap_buckets, single_threaded
from headwater.train._replay import Replay
from headwater.types import Batch, Flags, Floats, Ints, Ranking, State

__all__ = ["Lesson", "Replay", "Trainer"]

_LIST_LENGTH = 64
"""Candidates of a list that the mixture learns from: its own best ones, the hard negatives."""


@dataclass(slots=True)
class Lesson:
    """What a step did: mean losses in nats, NaN where there was nothing to learn from."""

    sequence_loss: float
    mixture_loss: float


class Trainer:
    """Learns batches into a model.

    Args:
        config: negatives, replay, rates.
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
        self._histories = Replay(
            settings.replay_buffer,
            settings.replay_cap,
            {
                "items": ((length,), np.int32),
                "types": ((length,), np.uint8),
                "gaps": ((length,), np.uint8),
                "cleaned": ((length,), np.bool_),
                "targets": ((), np.int32),
                "weights": ((), np.float32),
            },
        )
        self._lists = Replay(
            config.mixture.replay_buffer,
            config.sequence.replay_cap,
            {
                "features": ((_LIST_LENGTH, n_features), np.float16),
                "lengths": ((), np.int32),
                "targets": ((), np.int32),
                "weights": ((), np.float32),
            },
        )
        # The two gradient steps share nothing, so they run side by side.
        self._beside = ThreadPoolExecutor(1, "mixture", initializer=single_threaded)

    def learn(
        self, batch: Batch, ranking: Ranking, rates: dict[str, float], *, gradient: bool = True
    ) -> Lesson:
        """Learns one micro-batch whose lists were ranked before it.

        Args:
            batch: the events.
            ranking: a list for each of them, made before this call.
            rates: factors on the learning rates of ``sequence`` and ``mixture``.
            gradient: False to count the events only.
        """
        if not gradient:
            self.model.count(batch)
            return Lesson(float("nan"), float("nan"))
        random = np.random.Generator(np.random.Philox(key=[self.config.seed, batch.end]))
        taught = batch.targets & (batch.weights > 0)
        lists = self._sampled_lists(batch, ranking, taught, random)
        examples, fresh = self._sampled_histories(batch, taught, random)
        mixture = self._beside.submit(self._learn_lists, lists, rates["mixture"])
        sequence_loss = self._learn_histories(examples, random, rates["sequence"])
        mixture_loss = mixture.result()
        self.model.count(batch)
        self._histories.add(fresh)
        return Lesson(sequence_loss, mixture_loss)

    def state(self) -> State:
        return {
            **{f"histories.{name}": value for name, value in self._histories.state().items()},
            **{f"lists.{name}": value for name, value in self._lists.state().items()},
        }

    def load(self, state: State) -> None:
        self._histories.load({k[10:]: v for k, v in state.items() if k.startswith("histories.")})
        self._lists.load({k[6:]: v for k, v in state.items() if k.startswith("lists.")})

    def _sampled_histories(
        self, batch: Batch, taught: Flags, random: np.random.Generator
    ) -> tuple[Examples, dict[str, np.ndarray]]:
        """New examples with replayed ones behind them, and the new ones for the buffer."""
        contexts = batch.contexts
        gaps = gap_buckets(contexts.history_times, contexts.history_items, contexts.times)
        # An empty history says nothing that a gradient could use.
        usable = taught & (contexts.history_lengths > 0)
        fresh: dict[str, np.ndarray] = {
            "items": contexts.history_items[usable],
            "types": contexts.history_types[usable],
            "gaps": gaps[usable],
            "cleaned": contexts.history_cleaned[usable],
            "targets": batch.items[usable],
            "weights": batch.weights[usable],
        }
        settings = self.config.sequence
        wanted = round(settings.replay * len(fresh["targets"]))
        again = self._histories.take(self._histories.sample(wanted, random))
        items, types, gaps, cleaned, targets, weights = (
            np.concatenate([fresh[name], again[name]])
            for name in ("items", "types", "gaps", "cleaned", "targets", "weights")
        )
        n, length = items.shape
        earlier = settings.earlier_positions
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
        share[:, 1:] = np.where(shown, 0.5 * weights[:, None] / max(earlier, 1), 0.0)
        return Examples(items, types, gaps, at, goal, share), fresh

    def _learn_histories(
        self, examples: Examples, random: np.random.Generator, rate: float
    ) -> float:
        n_items = len(self.model.sequence.rows)
        if not len(examples.items):
            return float("nan")
        wanted = self.config.sequence.negatives
        if n_items <= wanted:
            # Every item is a candidate: the softmax is exact and needs no correction.
            return self.model.sequence.learn(
                examples, np.arange(n_items, dtype=np.int32), None, rate
            )
        negatives = np.unique(random.integers(0, n_items, wanted)).astype(np.int32)
        positives = int((examples.weights > 0).sum())

        def log_q(rows: Ints) -> Floats:
            """Log probability that a row is among the candidates, drawn or as a positive."""
            popular = self.model.popularity.shares(rows).mean(axis=-1)
            drawn = (1.0 - 1.0 / n_items) ** wanted
            logs: Floats = np.log1p(-drawn * (1.0 - np.minimum(popular, 0.999)) ** positives)
            return logs

        return self.model.sequence.learn(examples, negatives, log_q, rate)

    def _sampled_lists(
        self, batch: Batch, ranking: Ranking, taught: Flags, random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The lists that hold their answer, cut to length, with replayed ones behind them."""
        hit = (ranking.rows == batch.items[:, None]) & taught[:, None]
        rows = np.flatnonzero(hit.any(axis=1))
        place = np.argmax(hit[rows], axis=1)
        lengths = (ranking.rows[rows] >= 0).sum(axis=1)
        features = np.zeros((len(rows), _LIST_LENGTH, ranking.features.shape[2]), np.float16)
        kept = min(_LIST_LENGTH, ranking.rows.shape[1])
        features[:, :kept] = ranking.features[rows, :kept]
        # An answer further down takes the last kept place.
        last = kept - 1
        deep = np.flatnonzero(place > last)
        features[deep, last] = ranking.features[rows[deep], place[deep]]
        fresh = {
            "features": features,
            "lengths": np.minimum(lengths, kept).astype(np.int32),
            "targets": np.minimum(place, last).astype(np.int32),
            "weights": batch.weights[rows],
        }
        wanted = round(self.config.mixture.replay * len(rows))
        again = self._lists.take(self._lists.sample(wanted, random))
        self._lists.add(fresh)
        return {name: np.concatenate([fresh[name], again[name]]) for name in fresh}

    def _learn_lists(self, lists: dict[str, np.ndarray], rate: float) -> float:
        if not len(lists["targets"]):
            return float("nan")
        valid = np.arange(_LIST_LENGTH) < lists["lengths"][:, None]
        return self.model.mixture.learn(
            lists["features"].astype(np.float32),
            valid,
            lists["targets"],
            lists["weights"],
            rate,
        )
