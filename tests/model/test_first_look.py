"""Which items are looked at first, by what and in which turn, by a trainer and by who follows."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.model import _first_look
from headwater.model._first_look import FirstLook
from headwater.model._scan import Scan
from tests.model.arrays import copied
from tests.model.test_scan import asked, exact

DIM, N = 24, 600


class Catalogue:
    """Items whose vectors may be set, looked at by a trainer (or by who follows one)."""

    def __init__(self, n=N, seed=0):
        self.vectors = np.random.default_rng(seed).normal(size=(n, DIM + 1)).astype(np.float32)
        self.look = FirstLook("items", DIM, 10, lambda rows: self.vectors[rows])
        self.look.grow(n)

    def put(self, row, vector):
        self.vectors[row] = vector
        self.look.look_at(np.array([row], np.int32))

    def step(self, within, seed=0, tokens=False):
        self.look.follow_step(users(within, 40, seed)[:, :-1], tokens=tokens)

    def best(self, who, n=60):
        return self.look.best(who, asked([[]] * len(who)), np.zeros(len(self.vectors), bool), n)


def sketched():
    """A catalogue of a trainer that has made a sketch along ``space()``."""
    catalogue = Catalogue()
    for step in range(4):
        catalogue.step(space(), step)
    assert catalogue.look.sketch
    return catalogue


def space(seed=0, k=9):
    """(k, DIM) orthonormal rows."""
    square = np.random.default_rng(seed).normal(size=(DIM, DIM))
    return np.linalg.qr(square)[0][:k].astype(np.float32)


def users(within, n, seed):
    along = np.random.default_rng(seed).normal(size=(n, len(within)))
    return np.hstack([along @ within, np.ones((n, 1))]).astype(np.float32)


def found_of_the_best(catalogue, who):
    """Share of each user's ten best items that is among the sixty that are found."""
    nothing = np.zeros(len(catalogue.vectors), np.bool_)
    best = exact(catalogue.vectors, who, nothing, [[]] * len(who), 10)
    lines = catalogue.best(who).tolist()
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, lines, strict=True)])


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """A question after each second step, and turns that take three steps or updates."""
    monkeypatch.setattr(_first_look, "_EVERY", 2)
    monkeypatch.setattr(_first_look, "_SWEPT", N // 3)
    monkeypatch.setattr(_first_look, "_TURNS", 3)


def test_all_columns_are_looked_at_until_there_is_a_sketch():
    catalogue, who = Catalogue(), users(space(), 5, 1)
    plain = Scan(DIM)
    plain.grow(N)
    plain.put(np.arange(N, dtype=np.int32), catalogue.vectors)
    nothing = np.zeros(N, np.bool_)
    for step in range(3):
        assert catalogue.look.sketch is None
        np.testing.assert_array_equal(
            catalogue.best(who), plain.best(who, asked([[]] * 5), nothing, 60)
        )
        catalogue.step(space(), step)
    catalogue.step(space(), 3)
    sketch = catalogue.look.sketch
    assert sketch
    assert sketch.basis.shape == (DIM, 9)
    assert found_of_the_best(catalogue, who) == 1.0


def test_a_sketch_is_looked_at_while_the_next_one_is_made():
    catalogue = sketched()
    first = catalogue.look.sketch
    for step in range(40):
        if catalogue.look.sketch is not first:
            break
        before = found_of_the_best(catalogue, users(space(7), 5, 1))
        catalogue.step(space(7), step)
    assert step > 2, "it takes three steps to look at all items"
    assert before < 0.9, "the first one knows nothing of these directions"
    for step in range(60):
        catalogue.step(space(7), step)
    assert found_of_the_best(catalogue, users(space(7), 5, 1)) == 1.0


def test_what_changes_meanwhile_is_found_by_both():
    catalogue = sketched()
    first = catalogue.look.sketch
    catalogue.step(space(7), 0)
    catalogue.step(space(7), 1)
    who = users(space(), 1, 5)
    for row in (3, 400):
        catalogue.put(row, 2 * who[0])
        assert row in catalogue.best(who, 2)[0]
    while catalogue.look.sketch is first:
        catalogue.step(space(7), 2)
    assert {3, 400} == set(catalogue.best(who, 2)[0].tolist())


def test_directions_that_hold_are_kept():
    catalogue = sketched()
    first = catalogue.look.sketch
    for step in range(20):
        catalogue.step(space(), step)
    assert catalogue.look.sketch is first


def test_a_sketch_of_more_directions_than_are_filled_makes_place_for_one_of_fewer():
    catalogue = Catalogue()
    for step in range(6):
        catalogue.step(space(k=20), step)
    assert catalogue.look.sketch
    assert catalogue.look.sketch.basis.shape == (DIM, 21)
    for step in range(300):
        catalogue.step(space(k=20)[:5], step)
    assert catalogue.look.sketch.basis.shape == (DIM, 5)
    assert found_of_the_best(catalogue, users(space(k=20)[:5], 5, 1)) == 1.0


def test_items_that_outgrow_the_units_have_a_new_sketch():
    catalogue = sketched()
    first = catalogue.look.sketch
    assert first
    catalogue.vectors[:, :-1] *= 3
    catalogue.look.look_at(np.arange(N, dtype=np.int32))
    for step in range(6):
        catalogue.step(space(), step)
    assert catalogue.look.sketch
    assert catalogue.look.sketch.units[0] > 2 * first.units[0]
    assert found_of_the_best(catalogue, users(space(), 5, 1)) == 1.0


def test_new_items_are_found_at_once_and_while_a_sketch_is_made():
    catalogue, who = Catalogue(), users(space(), 1, 5)
    for step in range(8):
        if step in (1, 2, 6):
            catalogue.vectors = np.vstack([catalogue.vectors, (2 + step) * who])
            catalogue.look.grow(len(catalogue.vectors))
            assert catalogue.best(who, 1).tolist() == [[len(catalogue.vectors) - 1]]
        catalogue.step(space(), step)
    assert catalogue.look.sketch
    assert catalogue.look.sketch.n_items == N + 3
    assert set(catalogue.best(who, 3)[0].tolist()) == {N, N + 1, N + 2}


def test_who_follows_has_the_same_sketch_after_as_many_turns():
    learned, served = Catalogue(), Catalogue()
    for step in range(6):
        learned.step(space(), step)
        served.look.put(learned.look.values())
        served.look.follow_update(tokens=False)
        while served.look.look_on(50):
            pass
    sketch = served.look.sketch
    assert sketch
    assert learned.look.sketch
    for name, value in learned.look.sketch.state().items():
        np.testing.assert_array_equal(sketch.state()[name], value)
    served.look.put(learned.look.values())
    served.look.follow_update(tokens=False)
    assert not served.look.look_on(), "there is nothing to do for directions that it has"
    assert served.look.sketch is sketch


def test_where_no_update_comes_it_is_the_turn_of_all_items():
    served = sketched()
    served.vectors[:] = Catalogue(seed=1).vectors
    served.look.follow_update(tokens=True)
    while served.look.look_on(50):
        pass
    assert served.look.rest(), "a third had its turn"
    served.look.look_on()
    assert served.look.rest(), "an update doesn't wait for the others"
    while served.look.look_on(50):
        pass
    assert not served.look.rest()
    looked_again = copied(served.look.state())
    served.look.look_again()
    for name, value in served.look.state().items():
        np.testing.assert_array_equal(looked_again[name], value)


def test_a_sketch_is_made_while_there_is_time_and_no_update_waits_for_it():
    learned, served = Catalogue(), Catalogue()
    for step in range(4):
        learned.step(space(), step)
    served.look.put(learned.look.values())
    served.look.follow_update(tokens=True)
    assert served.look.look_on(), "what an update waits for are its own turns"
    assert served.look.sketch is None
    slices = 0
    while served.look.look_on(50):
        slices += 1
    assert slices == 2 * N // 3 // 50 - 1
    assert served.look.sketch


def test_who_follows_makes_one_sketch_after_the_other():
    served, values = Catalogue(), []
    for seed in (0, 7):
        learned = Catalogue()
        for step in range(4):
            learned.step(space(seed), step)
        values.append(learned.look.values())
    served.look.put(values[0])
    served.look.look_again()
    first = served.look.sketch
    served.look.put(values[1])
    served.look.put(values[0])
    assert served.look.sketch is first
    served.look.look_again()
    assert served.look.sketch
    np.testing.assert_array_equal(served.look.sketch.basis, values[1]["items.directions"])


def test_a_catalogue_of_which_every_item_is_scored_has_no_bytes():
    catalogue = Catalogue(n=10)
    for step in range(6):
        catalogue.step(space(), step, tokens=True)
    catalogue.look.put({"items.directions": space().T, "items.units": np.ones(2, np.float32)})
    assert catalogue.look.values() == {}
    assert sum(v.nbytes for k, v in catalogue.look.state().items() if "scan" in k) == 0
    assert catalogue.look.sketch is None


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 9])
def test_a_loaded_state_goes_on_as_it_would_have(steps):
    """Without a sketch, while one is made, with one, and while the next one is made."""
    one, other = Catalogue(), Catalogue()
    for step in range(steps):
        one.step(space(7 if step > 5 else 0), step)
    other.look.load(copied(one.look.state()))
    for step in range(8):
        for each in (one, other):
            each.step(space(7), step, tokens=step % 2 == 0)
        assert one.look.state().keys() == other.look.state().keys()
        for name, value in one.look.state().items():
            np.testing.assert_array_equal(other.look.state()[name], value)
