from __future__ import annotations

import numpy as np
import pytest

from headwater.deploy import state_digest
from headwater.train import Replay
from tests.model.arrays import copied


def replay(capacity=10, cap=3):
    return Replay(capacity, cap, {"ids": ((), np.int32), "pairs": ((2,), np.float32)})


def add(found, *numbers):
    found.add(
        {"ids": np.array(numbers), "pairs": np.array([[n, -n] for n in numbers]).reshape(-1, 2)}
    )


def kept(found):
    return sorted(found.take(np.arange(len(found), dtype=np.int32))["ids"].tolist())


def seeded(seed=0):
    return np.random.default_rng(seed)


def test_the_newest_examples_are_kept():
    found = replay()
    for n in range(25):
        add(found, n)
        assert kept(found) == list(range(max(0, n - 9), n + 1))
    assert len(found) == 10


def test_more_examples_at_once_than_there_is_room_for_leave_the_newest():
    found = replay()
    add(found, *range(7))
    add(found, *range(7, 40))
    assert kept(found) == list(range(30, 40))
    add(found, 40)
    assert kept(found) == list(range(31, 41))


def test_an_example_comes_back_whole():
    found = replay()
    add(found, *range(8))
    again = found.take(found.sample(20, seeded()))
    assert len(again["ids"]) > 0
    np.testing.assert_array_equal(again["pairs"][:, 0], again["ids"])
    np.testing.assert_array_equal(again["pairs"][:, 1], -again["ids"])


def test_no_example_is_drawn_twice_at_once():
    found = replay(capacity=5, cap=100)
    add(found, *range(5))
    random = seeded()
    for _ in range(20):
        places = found.sample(50, random).tolist()
        assert len(places) == len(set(places)) <= 5


def test_an_example_is_replayed_as_often_as_the_cap_allows_and_no_more():
    found = replay(capacity=10, cap=3)
    add(found, *range(10))
    random = seeded()
    uses = np.zeros(10, int)
    for _ in range(200):
        uses[found.sample(5, random)] += 1
    assert uses.tolist() == [3] * 10
    assert found.sample(5, random).tolist() == []
    add(found, 99)
    places = found.sample(50, random)
    assert found.take(places)["ids"].tolist() == [99], "a new example has its own count"


def test_without_room_or_with_nothing_asked_nothing_is_replayed():
    none, full = replay(capacity=0), replay()
    add(none, 1, 2)
    add(full, 1, 2)
    for found, n in ((none, 5), (full, 0), (replay(), 5), (replay(cap=0), 5)):
        assert found.sample(n, seeded()).tolist() == []
    assert len(none) == 0
    uncapped = replay(cap=0)
    add(uncapped, 1)
    assert uncapped.sample(5, seeded()).tolist() == []


def test_adding_nothing_changes_nothing():
    found = replay()
    add(found, 1, 2)
    before = state_digest(found.state())
    add(found)
    assert state_digest(found.state()) == before


def test_the_same_seed_draws_the_same_examples():
    drawn = []
    for seed in (1, 1, 2):
        found = replay(capacity=100)
        add(found, *range(100))
        drawn.append(found.sample(30, seeded(seed)).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_old_and_new_examples_are_drawn_alike():
    found = replay(capacity=50, cap=10_000)
    add(found, *range(120))
    random = seeded()
    uses = np.zeros(50)
    for _ in range(2000):
        uses[found.sample(5, random)] += 1
    assert uses.min() > 0.7 * uses.mean()
    assert uses.max() < 1.3 * uses.mean()


@pytest.mark.parametrize("added", [0, 4, 10, 27])
def test_a_loaded_state_goes_on_as_the_one_that_was_saved(added):
    one, other = replay(), replay()
    random = seeded()
    for n in range(added):
        add(one, n)
        one.sample(2, random)
    other.load(copied(one.state()))
    randoms = [seeded(5), seeded(5)]
    for n in range(100, 117):
        for found, own in zip((one, other), randoms, strict=True):
            add(found, n)
            found.sample(3, own)
    assert state_digest(one.state()) == state_digest(other.state())
    assert kept(one) == kept(other)


@pytest.mark.parametrize("capacity", [0, 1, 4, 9, 10, 11, 30])
@pytest.mark.parametrize("added", [0, 4, 10, 27])
def test_a_buffer_of_another_size_takes_the_newest_over_and_their_uses(added, capacity):
    one, other = replay(), replay(capacity)
    for n in range(added):
        add(one, n)
    for _ in range(one.cap):
        drawn = one.sample(5, seeded())
    spent = set(one.take(drawn)["ids"].tolist())
    other.load(copied(one.state()))
    newest = kept(one)[max(len(one) - capacity, 0) :]
    assert kept(other) == newest
    assert set(other.take(np.flatnonzero(other.spent()))["ids"]) == spent & set(newest)
    everything = list(range(added))[-len(one) :]
    for n in range(100, 140):
        add(other, n)
        everything.append(n)
        room = min(len(newest) + n - 99, capacity)
        assert kept(other) == everything[len(everything) - room :]


def test_a_state_holds_what_is_there_and_no_more():
    found = replay(capacity=1000)
    add(found, 1, 2, 3)
    assert len(found.state()["column.ids"]) == len(found.state()["uses"]) == 3


def test_an_example_is_drawn_as_its_chance_says():
    found = replay(capacity=4, cap=10**6)
    add(found, *range(4))
    random, chances = seeded(), np.array([0.0, 1.0, 1.0, 8.0])
    drawn = np.bincount(
        np.concatenate([found.sample(1, random, chances) for _ in range(2000)]), minlength=4
    )
    np.testing.assert_allclose(drawn / 2000, [0.0, 0.1, 0.1, 0.8], atol=0.04)


def test_where_nothing_has_a_chance_nothing_is_drawn():
    found = replay(cap=1)
    add(found, *range(3))
    found.sample(100, seeded())
    assert found.spent().all()
    assert len(found.sample(5, seeded(), np.where(found.spent(), 0.0, 1.0))) == 0


def test_what_names_a_row_that_is_gone_is_never_drawn_again():
    found = Replay(10, 3, {"items": ((2,), np.int32), "targets": ((), np.int32)})
    items = np.array([[-1, 1], [2, 3], [4, 2], [5, 6]], np.int32)
    found.add({"items": items, "targets": np.array([7, 8, 9, 2], np.int32)})
    found.retire("items", np.array([2, 30], np.int32))
    found.retire("targets", np.array([7], np.int32))
    again = Replay(10, 1_000, {"items": ((2,), np.int32), "targets": ((), np.int32)})
    again.load(copied(found.state()))
    for each in (found, again):
        random = seeded()
        drawn = {place for _ in range(20) for place in each.sample(20, random).tolist()}
        assert drawn == {3}
    found.add({"items": items[:1], "targets": np.array([1], np.int32)})
    assert {p for _ in range(9) for p in found.sample(20, seeded(1)).tolist()} == {4}


def test_an_empty_buffer_has_nothing_to_retire():
    replay().retire("ids", np.array([1, 2], np.int32))
    nothing = replay(capacity=0)
    nothing.retire("ids", np.array([1], np.int32))
    assert len(nothing) == 0
