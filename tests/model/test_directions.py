"""The directions that users' vectors fill, found from what a trainer's steps have seen."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.model._directions import Directions
from tests.model.arrays import copied

DIM = 32


def space(k, seed=0):
    """(k, DIM) orthonormal rows."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(DIM, DIM)))[0][:k]


def found_by(directions, *sizes):
    basis = directions.find([*sizes])
    assert basis is not None
    return basis


def users(within, n=200, seed=1):
    """(n, DIM) of every size, in all directions of the given rows."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(n, len(within))) @ within * np.exp(2 * rng.normal(size=(n, 1)))
    return found.astype(np.float32)


def seen(within, steps=20, found=None):
    found = found or Directions(DIM)
    for seed in range(steps):
        found.see(users(within, seed=seed))
    return found


def test_what_users_fill_is_found():
    basis = found_by(seen(space(6)), 6, 22)
    assert basis.shape == (DIM, 6)
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-5)
    who = users(space(6), seed=99)
    np.testing.assert_allclose(who @ basis @ basis.T, who, atol=1e-4 * np.abs(who).max())


@pytest.mark.parametrize(("filled", "n"), [(5, 6), (7, 22), (22, 22), (23, DIM)])
def test_as_few_as_keep_enough_of_users_are_taken(filled, n):
    assert found_by(seen(space(filled)), 6, 22).shape == (DIM, n)


def test_users_count_alike_however_large_they_are():
    large, small = space(12)[:6], space(12)[6:]
    found = Directions(DIM)
    found.see(np.concatenate([1_000 * users(large), users(small)]))
    assert found_by(found, 6, 12).shape == (DIM, 12)


def test_nothing_is_found_by_nobody():
    found = Directions(DIM)
    assert found.find([6]) is None
    found.see(np.zeros((5, DIM), np.float32))
    assert found.find([6]) is None
    assert found.steps == 1


def test_directions_hold_until_users_turn_away():
    found = seen(space(6))
    basis = found_by(found, 6, 22)
    assert found.are_kept_by(basis)
    seen(space(6, seed=7), 1, found)
    assert not found.are_kept_by(basis)
    assert found_by(found, 6, 22).shape == (DIM, 22), "both are there for a while"
    seen(space(6, seed=7), 250, found)
    turned = found_by(found, 6, 22)
    assert turned.shape == (DIM, 6)
    assert found.are_kept_by(turned)
    assert not found.are_kept_by(basis)


def test_a_loaded_state_goes_on_as_it_would_have():
    found, other = seen(space(6)), Directions(DIM)
    other.load(copied(found.state()))
    for each in (found, other):
        seen(space(9, seed=7), 3, each)
    assert other.steps == found.steps
    np.testing.assert_array_equal(found_by(other, 6, 22), found_by(found, 6, 22))
