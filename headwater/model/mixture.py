"""The mixture: which expert to believe, in this context, for this item.

A small network scores every item of the union of the experts' candidates from
what each expert says of it (log share, reciprocal rank), from what is known of
the item (count, age, time since its last event) and of the request (history and
session length, the experts' own recent hit rates), and is trained listwise: the
softmax cross-entropy of the list in which the next item was one of the
candidates. The linear part starts as the sum of the experts' log shares, so an
untrained mixture is a product of experts already. A list for a user without a history has
linear weights of its own and no hidden layer, which learn from lists like it only: most
experts are silent there, and what the others teach of a long history doesn't hold. They
start as popularity, which is what a first list must not be worse than. With several members,
networks that are trained on other draws of the same lists, the score is their mean.

An expert's contribution to a score is its exact Shapley value (Lundberg and Lee,
NeurIPS 2017): with E experts, 2 ** E evaluations in which the experts outside of a
coalition say nothing.
"""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import torch
from torch import Tensor, nn

from headwater.config import Mixture as Settings
from headwater.model._dense import DenseWeights, Step
from headwater.types import Flags, Floats, Ints, State


class Network(nn.Module):
    """(..., F) features to scores (...): a linear part plus two hidden layers.

    Args:
        features: F.
        hidden: width of the two layers.
        linear: (F,) initial weights of the linear part.
        first: (F,) those of first lists, where the feature in column ``is_first`` is 1.
    """

    def __init__(
        self, features: int, hidden: int, linear: Floats, first: Floats, is_first: int
    ) -> None:
        super().__init__()
        self.is_first = is_first
        self.linear = nn.Parameter(torch.from_numpy(linear.copy()))
        self.of_first = nn.Parameter(torch.from_numpy(first.copy()))
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        hidden = torch.relu(self.first(features))
        hidden = torch.relu(self.second(hidden))
        deep: Tensor = self.last(hidden)[..., 0]
        known = features @ self.linear + deep
        return torch.where(features[..., self.is_first] > 0.5, features @ self.of_first, known)


class Mixture:
    """Scores lists of candidates from features.

    Args:
        settings: hidden units, members, learning rate.
        linear: (F,) initial weights of the linear part.
        first: (F,) initial weights of lists for users without a history.
        is_first: column of the feature that is 1 in those lists and 0 in others.
        groups: expert name -> the feature columns it speaks through.
        silence: (F,) value of each feature when its expert says nothing.
        seed: of the initial weights.
    """

    def __init__(
        self,
        settings: Settings,
        linear: Floats,
        first: Floats,
        is_first: int,
        groups: dict[str, Ints],
        silence: Floats,
        seed: int,
    ) -> None:
        self.settings = settings
        self.groups = groups
        self.silence = silence
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.members = nn.ModuleList(
                Network(len(linear), settings.hidden, linear, first, is_first)
                for _ in range(settings.members)
            )
        self.dense = DenseWeights("mixture", self.members, settings.learning_rate)

    def scores(self, features: Floats) -> Floats:
        """(...) scores of (..., F) features."""
        with torch.inference_mode():
            scores: Floats = self._scores(torch.from_numpy(features)).mean(0).numpy()
        return scores

    def step(
        self,
        features: Floats,
        valid: Flags,
        targets: Ints,
        weights: Floats,
        rate: float,
        correction: Floats | None = None,
    ) -> Step:
        """One step on M lists, to be taken or left.

        The loss of a list is the cross-entropy of softmax(score - correction).

        Args:
            features: (M, C, F).
            valid: (M, C) bool, the places that hold a candidate.
            targets: (M,) place of the item that came next.
            weights: (M, members) weight of each list for each member.
            rate: factor on the learning rate.
            correction: (M, C) what sampling adds to the log odds of each candidate to be the
                answer, so that the scores are those of the stream; ``None`` for nothing.
        """
        loss = self._loss(features, valid, targets, weights, correction)
        mean_loss = float(loss.detach()) / len(self.members)
        return Step(mean_loss, lambda: self.dense.descend(loss, rate))

    def loss(self, features: Floats, valid: Flags, targets: Ints, weights: Floats) -> float:
        """The mean loss of M lists, in nats; arguments as of ``learn``, of which nothing is."""
        with torch.inference_mode():
            return float(self._loss(features, valid, targets, weights)) / len(self.members)

    def contributions(self, features: Floats) -> dict[str, Floats]:
        """Expert name -> (...) exact Shapley share of the scores of (..., F) features.

        The shares of an item add up to its score less the score that it would have with
        every expert silent.
        """
        # An expert that says nothing of any item has no share, and would double the work.
        names = [
            name
            for name, columns in self.groups.items()
            if (features[..., columns] != self.silence[columns]).any()
        ]
        coalitions = [
            frozenset(coalition)
            for size in range(len(names) + 1)
            for coalition in combinations(names, size)
        ]
        said = np.repeat(features[None], len(coalitions), axis=0)
        for number, coalition in enumerate(coalitions):
            for name in set(names) - coalition:
                columns = self.groups[name]
                said[number][..., columns] = self.silence[columns]
        value = dict(zip(coalitions, self.scores(said), strict=True))
        shares = {name: np.zeros(features.shape[:-1], np.float32) for name in self.groups}
        for name in names:
            share = shares[name]
            for others, score in value.items():
                if name in others:
                    continue
                size = len(others)
                weight = factorial(size) * factorial(len(names) - size - 1) / factorial(len(names))
                share += weight * (value[others | {name}] - score)
        return shares

    def _loss(
        self,
        features: Floats,
        valid: Flags,
        targets: Ints,
        weights: Floats,
        correction: Floats | None = None,
    ) -> Tensor:
        """The members' mean losses, summed."""
        scores = self._scores(torch.from_numpy(features))  # (members, M, C)
        if correction is not None:
            scores = scores - torch.from_numpy(correction)
        scores = scores.masked_fill(~torch.from_numpy(valid), -1e9)
        places = torch.from_numpy(targets.astype(np.int64)).repeat(len(self.members))
        losses = nn.functional.cross_entropy(scores.flatten(0, 1), places, reduction="none")
        weight = torch.from_numpy(weights).T  # (members, M)
        # A draw may have left a member nothing.
        mean = (losses.view_as(weight) * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return mean.sum()

    def _scores(self, features: Tensor) -> Tensor:
        """(members, ...) scores of (..., F) features."""
        return torch.stack([member(features) for member in self.members])

    def state(self) -> State:
        return self.dense.state()

    def load(self, state: State) -> None:
        self.dense.load(state)
