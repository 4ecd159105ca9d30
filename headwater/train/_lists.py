"""The mixture's lists: those that held their answer, and replayed ones.

A list is learned with the features that it was ranked by, cut to its best candidates, which are
the hard negatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.config import Config
from headwater.model import Earlier, Mixture, Step
from headwater.train._imbalance import Balance
from headwater.train._replay import Drawn, Replay
from headwater.train._sample import Sample, taught
from headwater.types import NO_ROW, Batch, Flags, Floats, Ints, Longs, Ranking

_LENGTH = 64
"""Candidates of a list that the mixture learns from: its own best ones, the hard negatives."""


class Lists:
    """Makes the lists of each step, and keeps them for replay.

    Args:
        config: members and replay.
        mixture: what learns from them.
        balance: what is kept, and replayed, how often.
        n_features: F, of each candidate.

    Attributes:
        buffer: the lists that may be replayed.
    """

    def __init__(self, config: Config, mixture: Mixture, balance: Balance, n_features: int) -> None:
        self._settings = config.mixture
        self._mixture = mixture
        self._balance = balance
        self.buffer = Replay(
            config.mixture.replay_buffer,
            config.sequence.replay_cap,
            {
                "features": ((_LENGTH, n_features), np.float16),
                "lengths": ((), np.int32),
                "correction": ((_LENGTH,), np.float16),
                "targets": ((), np.int32),
                "items": ((), np.int32),
                "kinds": ((), np.uint8),
                "weights": ((config.mixture.members,), np.float32),
            },
        )

    def draw(
        self,
        batch: Batch,
        ranking: Ranking,
        kept: Flags,
        sample: Sample,
        earlier: Earlier | None,
        random: np.random.Generator,
    ) -> tuple[dict[str, NDArray[Any]], Drawn]:
        """The lists that hold their answer, cut to length, with replayed ones behind them.

        Args:
            batch: the events.
            ranking: a list for each of those that ``sample`` names.
            kept: (B, members) those that each member may learn from.
            sample: what the step takes.
            earlier: what shares were before the batch was counted; ``None`` for what they are.
            random: of the draws.
        """
        items, kept = batch.items[sample.ranked], kept[sample.ranked]
        hit = (ranking.rows == items[:, None]) & kept.any(axis=1, keepdims=True)
        rows = np.flatnonzero(hit.any(axis=1))
        place = np.argmax(hit[rows], axis=1)
        lengths = (ranking.rows[rows] >= 0).sum(axis=1)
        length = min(_LENGTH, ranking.rows.shape[1])
        # An answer further down takes the last place.
        last = length - 1
        shown = np.tile(np.arange(length), (len(rows), 1))
        shown[:, last] = np.maximum(place, last)
        features = np.zeros((len(rows), _LENGTH, ranking.features.shape[2]), np.float16)
        features[:, :length] = ranking.features[rows[:, None], shown]
        correction = np.zeros((len(rows), _LENGTH), np.float16)
        correction[:, :length] = -self._balance.log_keep(
            ranking.rows[rows[:, None], shown], earlier
        )
        kinds = batch.types[sample.ranked[rows]]
        weights = batch.weights[sample.ranked[rows]]
        fresh = {
            "features": features,
            "lengths": np.minimum(lengths, length).astype(np.int32),
            "correction": correction,
            "targets": np.minimum(place, last).astype(np.int32),
            "items": items[rows],
            "kinds": kinds,
            "weights": (weights / self._balance.type_keep[kinds])[:, None] * kept[rows],
        }
        wanted = round(self._settings.replay * len(rows))
        chances = self._balance.chances(self.buffer, "items")
        places = self.buffer.sample(wanted, random, chances)
        again = self.buffer.take(places)
        both = {name: np.concatenate([fresh[name], again[name]]) for name in fresh}
        return self._balance.by_weight(both, random), Drawn(fresh, places)

    def step(self, lists: dict[str, NDArray[Any]], rate: float) -> Step | None:
        """A step of the mixture on lists that were drawn, to be taken or left; none for none."""
        if not len(lists["targets"]):
            return None
        valid = np.arange(_LENGTH) < lists["lengths"][:, None]
        return self._mixture.step(
            lists["features"].astype(np.float32),
            valid,
            lists["targets"],
            lists["weights"],
            rate,
            lists["correction"].astype(np.float32) if self._balance.thins_items else None,
        )

    def first(self, batch: Batch, ranking: Ranking, ranked: Longs) -> Floats:
        """What the mixture is to note of the first lists of users.

        Args:
            ranked: (Q,) places of the events that there are lists of.
        """
        first = np.flatnonzero(
            taught(batch)[ranked] & (batch.contexts.history_lengths[ranked] == 0)
        )
        rows = ranking.rows[first]
        answers = rows == batch.items[ranked][first, None]
        return self._mixture.judge_first(ranking.features[first], answers, rows != NO_ROW)

    def forget(self, items: Ints) -> None:
        """Replays no list again whose answer is one of the item rows."""
        self.buffer.retire("items", items)
