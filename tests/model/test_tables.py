from __future__ import annotations

import numpy as np
import pytest

from headwater.deploy import state_digest
from headwater.model import Table
from headwater.types import TableRows
from tests.model.arrays import copied


def table(size, seed=0, dim=3):
    made = Table("rows", dim, 0.05, seed)
    made.grow(size)
    return made


def rows(*numbers):
    return np.array(numbers, np.int32)


def test_a_step_is_row_wise_adagrad():
    found = table(5)
    start = found.values.copy()
    first = np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 6.0]], np.float32)
    second = np.array([[3.0, 0.0, 0.0]], np.float32)
    found.descend(rows(1, 4), first, 0.1)
    found.descend(rows(1), second, 0.2)
    # Row 1: acc = (1 + 4 + 4) / 3 = 3, then 3 + 9 / 3 = 6. Row 4: acc = 36 / 3 = 12.
    by_hand = start.copy()
    by_hand[1] -= 0.1 * first[0] / np.sqrt(3.0) + 0.2 * second[0] / np.sqrt(6.0)
    by_hand[4] -= 0.1 * first[1] / np.sqrt(12.0)
    np.testing.assert_allclose(found.values, by_hand, rtol=1e-6)


def test_a_gradient_of_nothing_changes_nothing():
    found = table(2)
    start = found.values.copy()
    found.descend(rows(0, 1), np.zeros((2, 3), np.float32), 0.1)
    np.testing.assert_array_equal(found.values, start)


def test_only_the_given_rows_are_written():
    found = table(5000)
    start = found.values.copy()
    touched = rows(0, 17, 1024, 4999)
    found.descend(touched, np.ones((4, 3), np.float32), 0.1)
    changed = np.flatnonzero((found.values != start).any(axis=1))
    assert changed.tolist() == touched.tolist()
    changes, cleared = found.take_changes()
    assert changes.rows.tolist() == touched.tolist()
    np.testing.assert_array_equal(changes.values, found.values[touched])
    assert len(cleared) == 0


def test_changes_are_taken_once():
    found = table(5)
    found.descend(rows(2), np.ones((1, 3), np.float32), 0.1)
    found.clear(rows(4))
    changes, cleared = found.take_changes()
    assert (changes.rows.tolist(), cleared.tolist()) == ([2], [4])
    changes, cleared = found.take_changes()
    assert (changes.rows.tolist(), changes.values.shape, cleared.tolist()) == ([], (0, 3), [])


@pytest.mark.parametrize("sizes", [[3000], [1, 2, 3000], [1024, 1025, 2047, 3000], range(1, 3001)])
def test_first_values_depend_on_seed_and_row_alone(sizes):
    grown = table(0, seed=7)
    for size in sizes:
        grown.grow(size)
    assert len(grown) == 3000
    np.testing.assert_array_equal(grown.values, table(10_000, seed=7).values[:3000])
    assert (grown.values != table(3000, seed=8).values).all()


def test_first_values_are_small_and_about_nothing():
    found = table(20_000).values
    assert abs(found.mean()) < 0.001
    assert found.std() == pytest.approx(0.05, rel=0.02)
    assert len(np.unique(found[:, 0])) > 19_900, "blocks repeat each other"


def test_a_cleared_row_is_new_again():
    found, never = table(3000), table(3000)
    for _ in range(3):
        found.descend(rows(5, 2000), np.ones((2, 3), np.float32), 0.1)
    found.clear(rows(5, 2000))
    np.testing.assert_array_equal(found.values, never.values)
    for one in (found, never):
        one.descend(rows(5, 2000), np.full((2, 3), 2.0, np.float32), 0.1)
    np.testing.assert_array_equal(found.values, never.values)


def test_a_row_that_was_cleared_and_learned_again_is_both():
    found = table(5)
    found.descend(rows(1), np.ones((1, 3), np.float32), 0.1)
    found.clear(rows(1))
    assert found.take_changes()[0].rows.tolist() == []
    found.clear(rows(1))
    found.descend(rows(1), np.ones((1, 3), np.float32), 0.1)
    changes, cleared = found.take_changes()
    assert (changes.rows.tolist(), cleared.tolist()) == ([1], [1])


def test_a_follower_that_puts_the_changes_has_the_same_values():
    found, follower = table(10), table(2)
    for step in range(5):
        found.descend(rows(step, 9), np.full((2, 3), 1.0 + step, np.float32), 0.1)
    changes, _ = found.take_changes()
    follower.put(changes)
    np.testing.assert_array_equal(follower.values, found.values)
    assert follower.take_changes()[0].rows.tolist() == [], "what was put isn't published again"
    follower.put(TableRows(rows(), np.zeros((0, 3), np.float32)))
    assert len(follower) == 10


def test_a_loaded_state_goes_on_as_the_one_that_was_saved():
    found, other = table(1500), Table("rows", 3, 0.05, 0)
    found.descend(rows(3, 1400), np.ones((2, 3), np.float32), 0.1)
    found.clear(rows(8))
    other.load(copied(found.state()))
    assert state_digest(other.state()) == state_digest(found.state())
    for one in (found, other):
        one.grow(2500)
        one.descend(rows(3, 2400), np.full((2, 3), 0.3, np.float32), 0.1)
    assert state_digest(other.state()) == state_digest(found.state())
    assert [c.tolist() for c in (found.take_changes()[0].rows, found.take_changes()[1])] == [
        [3, 1400, 2400],
        [],
    ]


def test_the_state_is_as_large_as_the_rows_that_are_used():
    assert len(table(1500).state()["values"]) == 1500
    assert len(table(0).state()["values"]) == 0


def test_rows_of_several_blocks_are_cleared_together():
    one, fresh = table(3000), table(3000)
    gone = rows(3, 1023, 1024, 2500)
    one.descend(gone, np.ones((4, one.dim), np.float32), 0.1)
    one.clear(gone)
    np.testing.assert_array_equal(one.values, fresh.values)
    changes, cleared = one.take_changes()
    assert (len(changes.rows), cleared.tolist()) == (0, gone.tolist())
