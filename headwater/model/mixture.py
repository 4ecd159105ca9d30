"""The mixture: which expert to believe, in this context, for this item.

A small network scores every item of the union of the experts' candidates from
what each expert says of it (log share, reciprocal rank), from what is known of
the item (count, age, time since its last event) and of the request (history and
session length, the experts' own recent hit rates), and is trained listwise: the
softmax cross-entropy of the list in which the next item was one of the
candidates. The linear part starts as the sum of the experts' log shares, so an
untrained mixture is a product of experts already. With several members, networks that
are trained on other draws of the same lists, the score is their mean.

For a user without a history most experts are silent, and few lists teach what to make of
the rest; a first list is therefore by popularity while that foretells better.

An expert's contribution to a score is its exact Shapley value (Lundberg and Lee,
NeurIPS 2017): with n experts that speak of an item, 2 ** n evaluations in which those
outside of a coalition say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headwater.config import Mixture as Settings
from headwater.model._dense import DenseWeights, Step
from headwater.model._scoring import Weights, orders, score, share
from headwater.types import Flags, Floats, Ints, State

_FIRST_LISTS = 500.0
"""Memory, in first lists, of what serves them better. On first halves of three streams 100 to
4,000 gave the same to 0.0015 of NDCG@10."""


class Network(nn.Module):
    """(..., F) features to scores (...): a linear part plus two hidden layers."""

    def __init__(self, features: int, hidden: int, linear: Floats) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.from_numpy(linear.copy()))
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        hidden = torch.relu(self.first(features))
        hidden = torch.relu(self.second(hidden))
        deep: Tensor = self.last(hidden)[..., 0]
        return features @ self.linear + deep


def _arrays(network: nn.Module) -> Weights:
    """Its weights as ``score`` and ``share`` take them, uncopied."""
    linear, first, first_bias, second, second_bias, last, last_bias = (
        weight.detach().numpy() for weight in network.parameters()
    )
    return linear, first, first_bias, second, second_bias, last, last_bias


@dataclass(frozen=True, slots=True)
class FirstLists:
    """Feature columns that tell of a user's first list.

    Args:
        flag: 1 in all of such a list, 0 in others.
        popularity: what such a list is ordered by while the networks are no better.
    """

    flag: int
    popularity: int


class Mixture:
    """Scores lists of candidates from features.

    Args:
        settings: hidden units, members, learning rate.
        linear: (F,) initial weights of the linear part.
        first: columns that tell of first lists.
        groups: expert name -> the feature columns it speaks through.
        silence: (F,) value of each feature when its expert says nothing.
        seed: of the initial weights.
    """

    def __init__(
        self,
        settings: Settings,
        linear: Floats,
        first: FirstLists,
        groups: dict[str, Ints],
        silence: Floats,
        seed: int,
    ) -> None:
        self.settings = settings
        self.first = first
        self.groups = groups
        self.silence = silence
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.members = nn.ModuleList(
                Network(len(linear), settings.hidden, linear) for _ in range(settings.members)
            )
        # Mean gains in first lists, of popularity and of the networks. They travel and are kept as
        # weights are; no gradient reaches them.
        self._gains = nn.Parameter(torch.zeros(2), requires_grad=False)
        self._first_gains = self._gains.detach().numpy()  # a view, as of the weights below
        self.members.register_parameter("first_gains", self._gains)
        layers = [
            f"{member}.{layer}.weight"
            for member in range(settings.members)
            for layer in ("first", "second")
        ]
        self.dense = DenseWeights("mixture", self.members, settings.learning_rate, layers)
        # Views: what is learned or taken over is in them.
        self._weights = [_arrays(member) for member in self.members]
        self._owners = np.full(len(linear), -1, np.int32)
        for number, columns in enumerate(groups.values()):
            self._owners[columns] = number
        self._orders = orders(len(groups))

    def scores(self, features: Floats, wanted: Flags | None = None) -> Floats:
        """(...) scores of (..., F) features; of all, or of those that are wanted.

        An item's score depends on its own features alone, not on what is scored beside it.
        """
        if wanted is None:
            wanted = np.ones(features.shape[:-1], np.bool_)
        scores = self._learned(features, wanted)
        if self._by_popularity:
            popularity = features[..., self.first.popularity]
            scores = np.where(features[..., self.first.flag] > 0.5, popularity, scores)
        return scores

    def judge_first(self, features: Floats, answers: Flags, valid: Flags) -> Floats:
        """(N, 2) NDCG@10 of first lists by popularity and by the networks, to be noted or not.

        Args:
            features: (N, C, F).
            answers: (N, C) bool, the candidate that came next; nowhere, if none did.
            valid: (N, C) bool, the places that hold a candidate.
        """
        both = np.stack(
            [features[..., self.first.popularity], self._learned(features, valid)], axis=-1
        )
        both[~valid] = -np.inf
        own = np.where(answers[..., None], both, -np.inf).max(axis=1, keepdims=True)
        # Those of equal score share their mean place.
        places = (both > own).sum(axis=1) + ((both == own).sum(axis=1) - 1) / 2
        hit = np.any(answers, axis=1, keepdims=True) & (places < 10)
        gains: Floats = np.where(hit, 1.0 / np.log2(places + 2.0), 0.0).astype(np.float32)
        return gains

    def note_first(self, gains: Floats) -> None:
        """Remembers what ``judge_first`` found."""
        with torch.no_grad():
            for of_list in torch.from_numpy(gains):
                self._gains.lerp_(of_list, 1.0 / _FIRST_LISTS)

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
        self.dense.differentiate(loss)
        mean_loss = float(loss.detach()) / len(self.members)
        return Step(mean_loss, lambda: self.dense.descend(rate))

    def loss(self, features: Floats, valid: Flags, targets: Ints, weights: Floats) -> float:
        """The mean loss of M lists, in nats; arguments as of ``step``; nothing is learned."""
        with torch.inference_mode():
            return float(self._loss(features, valid, targets, weights)) / len(self.members)

    def contributions(self, features: Floats) -> dict[str, Floats]:
        """Expert name -> (...) exact Shapley share of the scores of (..., F) features.

        The shares of an item add up to its score less the score that it would have with
        every expert silent.
        """
        shares = self.shares(features)
        return {name: shares[..., number] for number, name in enumerate(self.groups)}

    def shares(self, features: Floats) -> Floats:
        """(..., E) the same, of the experts in the order of ``groups``."""
        flat = np.ascontiguousarray(features.reshape(-1, features.shape[-1]), np.float32)
        shares = np.zeros((len(flat), len(self.groups)), np.float32)
        for weights in self._weights:
            share(flat, self._owners, self.silence, weights, self._orders, shares)
        shares /= np.float32(len(self.members))
        if self._by_popularity:
            first, popularity = flat[:, self.first.flag] > 0.5, self.first.popularity
            shares[first] = 0.0
            alone = flat[first, popularity] - self.silence[popularity]
            shares[first, self._owners[popularity]] = alone
        return shares.reshape(*features.shape[:-1], len(self.groups))

    @property
    def _by_popularity(self) -> bool:
        """Whether that is what first lists are served by."""
        return bool(self._first_gains[0] >= self._first_gains[1])

    def _learned(self, features: Floats, wanted: Flags) -> Floats:
        """(...) the networks' mean scores of those of (..., F) features that are wanted."""
        flat = np.ascontiguousarray(features.reshape(-1, features.shape[-1]), np.float32)
        scores = np.zeros(len(flat), np.float32)
        for weights in self._weights:
            score(flat, wanted.ravel(), weights, scores)
        scores /= np.float32(len(self.members))
        return scores.reshape(wanted.shape)

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
