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
from math import factorial

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from headwater.config import Mixture as Settings
from headwater.model._dense import DenseWeights, Step
from headwater.types import Doubles, Flags, Floats, Ints, Longs, State

_CHUNK = 2_048
"""Coalitions taken through the second layer at a time, so that it finds them in the cache."""

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
        self.members.register_parameter("first_gains", self._gains)
        self.dense = DenseWeights("mixture", self.members, settings.learning_rate)

    def scores(self, features: Floats) -> Floats:
        """(...) scores of (..., F) features."""
        scores = self._learned(features)
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
        both = np.stack([features[..., self.first.popularity], self._learned(features)], axis=-1)
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
        flat = np.ascontiguousarray(features.reshape(-1, features.shape[-1]), np.float32)
        speaking = np.stack(
            [
                (flat[:, columns] != self.silence[columns]).any(axis=1)
                for columns in self.groups.values()
            ],
            axis=1,
        )
        # Only coalitions of those who speak: the others have no share, and would double the work.
        sizes = np.left_shift(1, speaking.sum(axis=1))
        starts = np.concatenate([[0], np.cumsum(sizes)])
        owners = np.full(flat.shape[1], -1, np.int32)
        for number, columns in enumerate(self.groups.values()):
            owners[columns] = number
        values = np.zeros(starts[-1], np.float32)
        for member in self.members:
            weights = {name: w.detach().numpy() for name, w in member.named_parameters()}
            hidden, linear = _coalitions(
                flat,
                speaking,
                starts,
                owners,
                self.silence,
                np.ascontiguousarray(weights["first.weight"].T),
                weights["first.bias"],
                weights["linear"],
            )
            for start in range(0, len(hidden), _CHUNK):
                part = slice(start, start + _CHUNK)
                second = hidden[part] @ weights["second.weight"].T
                second += weights["second.bias"]
                np.maximum(second, 0, out=second)
                values[part] += linear[part] + second @ weights["last.weight"][0]
        shares = np.zeros(speaking.shape, np.float32)
        values /= np.float32(len(self.members))
        _shares(values, speaking, starts, _orders(len(self.groups)), shares)
        if self._by_popularity:
            first, popularity = flat[:, self.first.flag] > 0.5, self.first.popularity
            shares[first] = 0.0
            alone = flat[first, popularity] - self.silence[popularity]
            shares[first, owners[popularity]] = alone
        shape = features.shape[:-1]
        return {name: shares[:, number].reshape(shape) for number, name in enumerate(self.groups)}

    @property
    def _by_popularity(self) -> bool:
        """Whether that is what first lists are served by."""
        return bool(self._gains[0] >= self._gains[1])

    def _learned(self, features: Floats) -> Floats:
        """(...) the networks' mean scores of (..., F) features."""
        with torch.inference_mode():
            scores: Floats = self._scores(torch.from_numpy(features)).mean(0).numpy()
        return scores

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


def _orders(experts: int) -> Doubles:
    """(E + 1, E) for n of them that speak, the share of the orders of joining in which a given one
    comes behind s given others.
    """
    orders = np.zeros((experts + 1, experts))
    for n in range(1, experts + 1):
        orders[n, :n] = [factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)]
    return orders


@njit(cache=True, nogil=True)
def _coalitions(
    features: Floats,
    speaking: Flags,
    starts: Longs,
    owners: Ints,
    silence: Floats,
    weights: Floats,
    bias: Floats,
    linear: Floats,
) -> tuple[Floats, Floats]:
    """The first hidden layer and the linear part for every coalition of each item's speakers.

    Both are linear in what an expert says, so a coalition is another one and what one expert
    adds. Coalition c of item r is row ``starts[r] + c``; bit p of c is its p-th speaker.

    Args:
        owners: (F,) number of the expert of a feature, -1 for none.
        weights: (F, hidden).
    """
    n_features, width = weights.shape
    experts = speaking.shape[1]
    hidden = np.empty((starts[-1], width), np.float32)
    scores = np.empty(starts[-1], np.float32)
    added = np.empty((experts + 1, width), np.float32)
    added_scores = np.empty(experts + 1, np.float32)
    place = np.empty(experts, np.int64)
    for r in range(len(features)):
        n = 0
        for e in range(experts):
            place[e] = n
            n += speaking[r, e]
        added[:n] = 0
        added_scores[:n] = 0
        added[n] = bias
        added_scores[n] = 0
        for f in range(n_features):
            owner = owners[f]
            into, value = n, features[r, f]
            if owner >= 0 and speaking[r, owner]:
                into = place[owner]
                value -= silence[f]
                for h in range(width):
                    added[n, h] += silence[f] * weights[f, h]
                added_scores[n] += silence[f] * linear[f]
            if value != 0:
                for h in range(width):
                    added[into, h] += value * weights[f, h]
                added_scores[into] += value * linear[f]
        first = starts[r]
        hidden[first] = added[n]
        scores[first] = added_scores[n]
        for p in range(n):
            half = 1 << p
            for c in range(half):
                scores[first + half + c] = scores[first + c] + added_scores[p]
                for h in range(width):
                    hidden[first + half + c, h] = hidden[first + c, h] + added[p, h]
        for row in range(first, starts[r + 1]):
            for h in range(width):
                hidden[row, h] = max(hidden[row, h], np.float32(0))
    return hidden, scores


@njit(cache=True, nogil=True)
def _shares(
    values: Floats, speaking: Flags, starts: Longs, orders: Doubles, shares: Floats
) -> None:
    """Shapley shares from the value of every coalition, laid out as ``_coalitions`` does."""
    for r in range(len(speaking)):
        n = 0
        for e in range(speaking.shape[1]):
            n += speaking[r, e]
        p = 0
        for e in range(speaking.shape[1]):
            if not speaking[r, e]:
                continue
            share = 0.0
            for others in range(1 << n):
                if (others >> p) & 1:
                    continue
                size = 0
                for q in range(n):
                    size += (others >> q) & 1
                gain = values[starts[r] + (others | (1 << p))] - values[starts[r] + others]
                share += orders[n, size] * gain
            shares[r, e] = share
            p += 1
