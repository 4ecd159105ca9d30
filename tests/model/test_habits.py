"""The habits expert against the formula of the module, written down plainly."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from headwater.model import Habits
from headwater.types import NO_ROW
from tests.model.arrays import LENGTH, batches, contexts, small, stream
from tests.model.test_precedents import events


def learned(rows, ends=()):
    expert = Habits(LENGTH)
    made, items = batches(small(), stream(rows), ends)
    for batch in made:
        expert.grow(len(items))
        expert.learn(batch)
    return expert, items


def plain(rows, history):
    """s(i) by its definition, from a list of (user, item, time)."""
    seen: Counter[int] = Counter()
    of_item: Counter[int] = Counter()
    returns: dict[int, float] = defaultdict(float)
    came, reached = np.zeros(LENGTH), np.zeros(LENGTH)
    histories: dict[int, list[int]] = {}
    for user, item, _ in rows:
        past = histories.setdefault(user, [])[::-1][:LENGTH]
        seen[item] += 1
        of_item[item] += item in past
        for d, earlier in enumerate(past):
            reached[d] += 1
            came[d] += earlier == item
        histories[user].append(item)
    for d, item in enumerate(history[::-1][:LENGTH]):
        rate = (of_item[item] + 1) / (seen[item] + 10)
        returns[item] += rate * (came[d] + 1) / (reached[d] + 100)
    return returns


@pytest.mark.parametrize("cuts", [(), (7, 50, 51, 200)])
def test_scores_are_those_of_the_formula(cuts):
    rows = events(260)
    expert, items = learned(rows, cuts)
    histories = [[0, 1, 0, 2], [3], []]
    asked = contexts([[items.index(str(i)) for i in history] for history in histories])
    every = np.tile(np.arange(len(items), dtype=np.int32), (len(histories), 1))
    found = expert.weigh(asked).scores(every)
    for b, history in enumerate(histories):
        expected = plain(rows, history)
        np.testing.assert_allclose(found[b], [expected[int(item)] for item in items], rtol=1e-5)


def test_only_what_the_user_had_is_proposed_and_is_its_own_reason():
    expert, items = learned(events(100))
    asked = contexts([[0, 1, 0], []])
    rows, _ = expert.weigh(asked).best(np.zeros(len(items), np.bool_), 5)
    assert {*rows[0].tolist()} == {0, 1, NO_ROW}
    assert (rows[1] == NO_ROW).all()
    every = np.tile(np.arange(3, dtype=np.int32), (2, 1))
    assert expert.weigh(asked).sources(every).tolist() == [[0, 1, NO_ROW], [NO_ROW] * 3]


def test_going_back_and_forth_is_learned_as_a_distance_of_two():
    rows = [("u", f"{k % 2}", 1e9 + k) for k in range(300)]
    expert, _ = learned(rows)
    scores = expert.weigh(contexts([[0, 1]])).scores(np.array([[0, 1]], np.int32))
    assert scores[0, 0] > 10 * scores[0, 1]


def test_a_forgotten_item_begins_anew():
    expert, _ = learned(events(100))
    expert.forget(np.array([2], np.int32))
    fresh, _ = learned(events(100))
    asked = contexts([[2], [3]])
    every = np.array([[2], [3]], np.int32)
    found, before = expert.weigh(asked).scores(every), fresh.weigh(asked).scores(every)
    assert found[0] < before[0]
    assert found[1] == before[1]
