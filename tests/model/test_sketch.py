"""The first look along directions, beside products that are written out and exact scores."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.model._sketch import Sketch, have_room, units_of
from headwater.types import NO_ROW
from tests.model.arrays import copied
from tests.model.test_scan import asked, exact

DIM, K = 24, 13


def basis(seed=3):
    square = np.random.default_rng(seed).normal(size=(DIM, DIM))
    return np.linalg.qr(square)[0][:, :K].astype(np.float32)


def items(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, DIM + 1)).astype(np.float32)


def users(n, seed=1):
    """(n, DIM + 1) vectors of every size within the directions."""
    rng = np.random.default_rng(seed)
    within = rng.normal(size=(n, K)) * np.exp(rng.normal(size=(n, 1)))
    return np.hstack([within @ basis().T, np.ones((n, 1))]).astype(np.float32)


def sketch(of):
    found = Sketch(basis(), units_of(of[:, :-1] @ basis(), of[:, -1]), len(of))
    found.put(np.arange(len(of), dtype=np.int32), of)
    return found


def nothing(of):
    return np.zeros(len(of), np.bool_)


def written_out(found, of, who):
    """(B, N) products of the formula's bytes."""
    s, t = found.units
    bytes_of = np.rint(of[:, :-1] @ basis() / s).clip(-127, 127)
    whole = np.rint(of[:, -1] / t)
    parts = np.rint((of[:, -1] / t - whole) * 64)
    products = []
    for user in who:
        along = user[:-1] @ basis()
        finest = np.abs(along).max() / 127
        n = float(np.clip(np.floor(t / (finest * s)), 1, 254)) if finest else 254.0
        e = np.rint(along / max(finest, t / (n * s)))
        products.append(bytes_of @ e + n * whole + np.rint(n / 64) * parts)
    return np.array(products)


@pytest.mark.parametrize("n_users", [1, 3, 33])
@pytest.mark.parametrize("n_items", [8_700, 8_704])
def test_the_best_ten_are_among_the_forty_that_seem_best(n_users, n_items):
    of, who = items(n_items), users(n_users)
    seeming = sketch(of).best(who, asked([[]] * n_users), nothing(of), 40)
    best = exact(of, who, nothing(of), [[]] * n_users, 10)
    found = [len(set(rows) & set(line.tolist())) for rows, line in zip(best, seeming, strict=True)]
    assert np.mean(found) >= 9.98
    assert all(len(set(line)) == 40 for line in seeming.tolist())


@pytest.mark.parametrize("n_users", [1, 5])
@pytest.mark.parametrize("n_items", [150, 1_000, 3_001, 40_000])
def test_what_seems_best_is_what_has_the_largest_products(n_users, n_items):
    """Those of equal products by row, however early it is told what is worth a closer look."""
    rng = np.random.default_rng(2)
    of, who = items(400)[rng.integers(400, size=n_items)], users(n_users)
    withheld = rng.random(len(of)) < 0.1
    products = written_out(sketch(of), of, who)
    order = [np.lexsort((np.arange(len(of)), -line)) for line in products]
    excluded = [line[:n].tolist() for line, n in zip(order, range(0, 100, 20), strict=False)]
    found = sketch(of).best(who, asked(excluded), withheld, 50)
    for line, barred, rows in zip(order, excluded, found.tolist(), strict=True):
        shown = [row for row in line.tolist() if not withheld[row] and row not in barred]
        assert sorted(rows) == sorted(shown[:50])


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.9, 0.999])
def test_however_many_are_withheld_what_is_left_is_found(share):
    of, who = items(40_000), users(2)
    withheld = np.random.default_rng(5).random(len(of)) < share
    found = sketch(of).best(who, asked([[], []]), withheld, 60)
    for rows, products in zip(found, written_out(sketch(of), of, who), strict=True):
        order = np.lexsort((np.arange(len(of)), -products))
        shown = order[~withheld[order]][:60]
        assert sorted(rows[rows != NO_ROW].tolist()) == sorted(shown.tolist())


def test_where_fewer_may_be_given_the_end_is_no_row():
    of, who = items(30), users(2)
    withheld = nothing(of)
    withheld[10:] = True
    seeming = sketch(of).best(who, asked([[3], []]), withheld, 12)
    assert sorted(seeming[0][seeming[0] != NO_ROW].tolist()) == [0, 1, 2, *range(4, 10)]
    assert sorted(seeming[1][seeming[1] != NO_ROW].tolist()) == list(range(10))


def test_items_that_the_flags_do_not_know_yet_are_not_given():
    of, who = items(30), users(1)
    assert sketch(of).best(who, asked([[]]), np.zeros(20, np.bool_), 30).max() < 20


def test_a_user_of_whom_nothing_is_known_gets_the_highest_biases():
    """Also where they differ by less than a byte would tell."""
    of = items(500)
    of[:, -1] = np.random.default_rng(4).permutation(500) / 500
    who = np.zeros((1, DIM + 1), np.float32)
    who[:, -1] = 1.0
    seeming = sketch(of).best(who, asked([[]]), nothing(of), 20)
    assert set(seeming[0].tolist()) == set(np.argsort(-of[:, -1])[:20].tolist())


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_biases_count_as_much_as_they_do_whatever_their_size(size):
    of, who = items(4_000), users(6)
    of[:, -1] *= size
    seeming = sketch(of).best(who, asked([[]] * 6), nothing(of), 40)
    best = exact(of, who, nothing(of), [[]] * 6, 10)
    found = [len(set(rows) & set(line.tolist())) for rows, line in zip(best, seeming, strict=True)]
    assert np.mean(found) >= 9.8


def test_what_is_found_depends_on_nobody_else():
    of, who = items(9_000), users(20)
    together = sketch(of).best(who, asked([[]] * 20), nothing(of), 30)
    for b in range(20):
        alone = sketch(of).best(who[b : b + 1], asked([[]]), nothing(of), 30)
        assert sorted(alone[0].tolist()) == sorted(together[b].tolist())


def test_an_item_beyond_what_there_is_room_for_is_as_large_as_can_be():
    of, who = items(500), users(1)
    found = sketch(of)
    found.put(np.array([17], np.int32), 1e6 * who)
    assert found.best(who, asked([[]]), nothing(of), 1).tolist() == [[17]]


def test_units_have_room_for_twice_the_vectors_and_four_times_the_biases():
    of = items(500)
    along, biases = of[:, :-1] @ basis(), of[:, -1]
    units = units_of(along, biases)
    assert have_room(units, 1.99 * along, 3.99 * biases)
    assert not have_room(units, 2.01 * along, biases)
    assert not have_room(units, along, 4.01 * biases)


def test_items_that_come_while_it_is_made_have_their_turn_too():
    of, who = items(60), users(2)
    found = Sketch(basis(), units_of(of[:, :-1] @ basis(), of[:, -1]), 40)
    found.put(np.arange(40, dtype=np.int32), of[:40])
    found.had_their_turn(30)
    found.grow(60)
    found.put(np.arange(40, 60, dtype=np.int32), of[40:])
    assert found.left == 30
    found.had_their_turn(40)
    found.grow(60)
    assert found.left == 0
    np.testing.assert_array_equal(
        found.best(who, asked([[], []]), nothing(of), 20),
        sketch(of).best(who, asked([[], []]), nothing(of), 20),
    )


def test_a_loaded_state_finds_the_same():
    of, who = items(400), users(4)
    found = sketch(of)
    other = Sketch.of(copied(found.state()))
    assert other.left == found.left
    np.testing.assert_array_equal(
        other.best(who, asked([[]] * 4), nothing(of), 25),
        found.best(who, asked([[]] * 4), nothing(of), 25),
    )
