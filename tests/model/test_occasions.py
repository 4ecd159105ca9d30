"""Lifts against the formula of the module, written down plainly."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from headwater.model import LIFTS, Occasions
from headwater.types import NO_ROW
from tests.model.arrays import LENGTH, batches, contexts, small, stream

DAY = 86_400.0


def learned(rows, ends=()):
    found = Occasions()
    made, items = batches(small(), stream(rows), ends)
    for batch in made:
        found.grow(len(items))
        found.learn(batch)
    return found, items


def events(n, seed=0, apart=7 * DAY / 260):
    random = np.random.default_rng(seed)
    gaps = random.exponential(apart, n).cumsum()
    return [(int(random.integers(6)), int(random.integers(9)), 1e9 + float(gap)) for gap in gaps]


def occasions(length, pause):
    """What the counts are by: of a history's length, and of the time since its last event."""
    by_length = min(int(1.5 * math.log2(length + 1)), 15)
    by_pause = 15 if pause is None else min(int(math.log1p(pause)), 14)
    return ("length", by_length), ("pause", by_pause)


def plain(rows, length, pause):
    """Item -> lifts by their definition, from a list of (user, item, time)."""
    now = rows[-1][2]
    histories: dict[int, list[float]] = {}
    of_item: Counter[int] = Counter()
    at: Counter[object] = Counter()
    for user, item, time in rows:
        times = histories.setdefault(user, [])
        weight = 2.0 ** ((time - now) / (60 * DAY))
        of_item[item] += weight
        for occasion in occasions(len(times), time - times[-1] if times else None):
            at[occasion] += weight
            at[item, occasion] += weight
        times.append(time)
    total = sum(of_item.values())
    return {
        item: [
            math.log((at[item, o] + 4.0) / (of_item[item] * at[o] / total + 4.0))
            for o in occasions(length, pause)
        ]
        for item in range(9)
    }


@pytest.mark.parametrize("cuts", [(), (7, 50, 51, 200)])
@pytest.mark.parametrize("apart", [60.0, 10 * DAY])
def test_lifts_are_those_of_the_formula(cuts, apart):
    rows = events(260, apart=apart)
    found, items = learned(rows, cuts)
    asked = contexts([[], [0], [1, 2, 3], [4] * LENGTH])
    asked.history_lengths[3] = 40  # more than its window holds
    every = np.tile(np.arange(len(items), dtype=np.int32), (4, 1))
    told = found.lifts(asked, every)
    assert told.shape == (4, len(items), len(LIFTS))
    for b, (length, pause) in enumerate([(0, None), (1, 600.0), (3, 600.0), (40, 600.0)]):
        expected = plain(rows, length, pause)
        np.testing.assert_allclose(told[b], [expected[int(i)] for i in items], atol=1e-4)


def test_what_beginners_use_is_lifted_for_beginners_alone():
    rows = [
        (user, "first" if n == 0 else f"later{n}", 1e9 + 100.0 * user + n)
        for user in range(50)
        for n in range(4)
    ]
    found, items = learned(rows)
    every = np.tile(np.arange(len(items), dtype=np.int32), (2, 1))
    told = found.lifts(contexts([[], [0, 1, 2]]), every)
    first = items.index("first")
    by_length, by_pause = told[0, first]
    assert by_length > 1.0
    assert by_pause > 1.0
    assert told[1, first, 0] < -1.0
    assert told[0, items.index("later3"), 0] < -1.0


def test_no_item_and_nothing_counted_say_nothing():
    nothing = Occasions()
    nothing.grow(3)
    rows = np.array([[0, 2, NO_ROW]], np.int32)
    assert not nothing.lifts(contexts([[1]]), rows).any()
    found, _ = learned(events(100))
    told = found.lifts(contexts([[1]]), rows)
    assert told[0, :2].any(axis=1).all()
    assert not told[0, 2].any()


def test_a_forgotten_item_begins_anew_and_counts_for_no_other():
    rows = events(200)
    found, items = learned(rows)
    gone = items.index("2")
    found.forget(np.array([gone], np.int32))
    every = np.arange(len(items), dtype=np.int32)[None]
    told = found.lifts(contexts([[1]]), every)[0]
    assert not told[gone].any()
    # Nobody ever had it: all events behind the same histories, but its own, are of the others.
    left, _ = learned(rows)
    counts = np.delete(left.state()["counts"], gone, axis=0)
    np.testing.assert_allclose(found.state()["totals"], counts.sum(axis=0), rtol=1e-5)


def test_a_loaded_state_goes_on_as_the_one_it_was_of():
    rows = events(200)
    made, items = batches(small(), stream(rows), (120,))
    found, other = Occasions(), Occasions()
    found.grow(len(items))
    found.learn(made[0])
    other.load(found.state())
    other.grow(len(items))
    for one in (found, other):
        one.learn(made[1])
    for name, value in found.state().items():
        assert (other.state()[name] == value).all(), name
