"""The whole loop on a stream whose right answers are obvious, and loops that get them wrong.

User ``u3`` views odd items, ``u4`` even ones, and seven in ten views are of the eight hot items.
"""

from __future__ import annotations

import numpy as np
import pytest

from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner
from headwater.model import EXPERTS
from headwater.testing import checkerboard, checkerboard_items
from headwater.types import Held
from tests.model.arrays import small

EVENTS = 1_600
TESTED = 400
"""Newest events, whose lists are judged."""

FLOORS = {
    "mixture": 0.95,
    "transitions": 0.95,
    "neighbours": 0.95,
    "precedents": 0.95,
    "habits": 0.95,
    "content": 0.95,
    "sequence": 0.9,
}
"""Share of the first five places that must have the parity of the user; by chance it is half."""

HOT_FLOOR = 0.9
"""Share of popularity's first five places that must be hot items; by chance it is a fifth."""


def learned(make=Learner):
    """(TESTED, models, 5) items and (TESTED,) users: the heads of the lists made for each event."""
    events = MemoryEventsLog()
    events.append([*checkerboard_items(), *checkerboard(EVENTS)], 2e9)
    learner = make(small(sequence={"learning_rate": 0.01}), events, MemoryUpdatesLog(), None)
    tops, users = [], []

    def observed(batch, outcomes):
        tops.append(outcomes.tops[:, :, :5])
        users.append(batch.contexts.users[outcomes.index])

    learner.on_outcomes = observed
    while learner.step():
        pass
    preprocess = learner.fold.preprocess
    numbers = np.array([int(id[1:]) for id in preprocess.items] + [-1])
    who = np.array([int(id[1:]) for id in preprocess.users])
    return numbers[np.concatenate(tops)[-TESTED:]], who[np.concatenate(users)[-TESTED:]]


def scores(lists, users):
    """The share of right places by model: parity, and for popularity heat."""
    models = ("mixture", *EXPERTS)
    right = (lists % 2 == users[:, None, None] % 2) & (lists >= 0)
    found = {model: float(right[:, m].mean()) for m, model in enumerate(models)}
    hot = (lists < 8) & (lists >= 0)
    return found | {"popularity": float(hot[:, models.index("popularity")].mean())}


def test_every_expert_and_the_mixture_find_what_is_obvious():
    found = scores(*learned())
    assert found["popularity"] >= HOT_FLOOR
    for model, floor in FLOORS.items():
        assert found[model] >= floor, model


def test_lists_of_chance_are_below_every_floor():
    rng = np.random.default_rng(0)
    lists, users = rng.integers(0, 40, (TESTED, 1 + len(EXPERTS), 5)), rng.integers(0, 20, TESTED)
    found = scores(lists, users)
    assert found["popularity"] < 0.5 * HOT_FLOOR
    assert all(found[model] < 0.6 * floor for model, floor in FLOORS.items())


class Shuffled(Learner):
    """Serves every list to another user of its batch."""

    def _restore(self, before=None):
        super()._restore(before)
        recommender = self.fold.recommender
        rank = recommender.rank_portions

        def shuffled(portions):
            ranking = rank(portions)
            n = len(ranking.rows)
            order = np.random.default_rng(n).permutation(n)
            ranking.rows = ranking.rows[order]
            ranking.expert_rows = {k: v[order] for k, v in ranking.expert_rows.items()}
            return ranking

        recommender.rank_portions = shuffled  # type: ignore[method-assign]


class WithoutGradient(Learner):
    """Counts, and takes no gradient step."""

    def learn(self, records, *, held=None, pace=None):
        super().learn(records, held=Held(0, "step", "never"), pace=pace)


class WithoutCounts(Learner):
    """Takes gradient steps, and doesn't count what goes with what."""

    def _restore(self, before=None):
        super()._restore(before)
        for expert in self.fold.model.counting:
            expert.learn = lambda batch: None  # type: ignore[method-assign]


class WithoutDescriptions(Learner):
    """Takes no note of what items are about."""

    def _restore(self, before=None):
        super()._restore(before)
        self.fold.model.content.describe = lambda rows, tokens: None  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("broken", "below"),
    [
        (Shuffled, set(FLOORS)),
        (WithoutGradient, {"sequence"}),
        (WithoutCounts, {"transitions", "neighbours", "precedents"}),
        (WithoutDescriptions, {"content"}),
    ],
)
def test_a_broken_loop_is_below_the_floor_of_what_it_broke(broken, below):
    found = scores(*learned(broken))
    assert all(found[model] < FLOORS[model] for model in below)
