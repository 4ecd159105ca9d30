"""The first look at items in bytes, beside scoring every one of them."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.model import _scan
from headwater.model._scan import Scan
from headwater.types import NO_ROW, Contexts
from tests.model.arrays import contexts

DIM = 16


def vectors(n, seed=0):
    """(n, DIM + 1) vectors of sizes of every order, with biases."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(n, DIM + 1)) * np.exp(rng.normal(size=(n, 1)))
    return found.astype(np.float32)


def users(n, seed=1):
    found = vectors(n, seed)
    found[:, -1] = 1.0
    return found


def scan(of):
    found = Scan(DIM)
    found.grow(len(of))
    found.put(np.arange(len(of), dtype=np.int32), of)
    return found


def asked(excluded):
    """Contexts that exclude the given rows each."""
    found: Contexts = contexts([[]] * len(excluded))
    found.excluded = np.array([row for rows in excluded for row in rows], np.int32)
    found.excluded_starts = np.cumsum([0, *map(len, excluded)]).astype(np.int64)
    return found


def exact(of, who, withheld, excluded, n):
    scores = who @ of.T
    scores[:, withheld] = -np.inf
    for b, rows in enumerate(excluded):
        scores[b, rows] = -np.inf
    return [
        [row for row in np.argsort(-line, kind="stable")[:n].tolist() if np.isfinite(line[row])]
        for line in scores
    ]


@pytest.mark.parametrize("n_users", [1, 3, 33])
def test_the_best_ten_are_among_the_sixty_that_seem_best(n_users, monkeypatch):
    monkeypatch.setattr(_scan, "_PRODUCTS", 1_000 * n_users)  # so that there are many blocks
    of, who = vectors(8_700), users(n_users)
    nothing = np.zeros(len(of), np.bool_)
    seeming = scan(of).best(who, asked([[]] * n_users), nothing, 60)
    best = exact(of, who, nothing, [[]] * n_users, 10)
    found = [len(set(rows) & set(line.tolist())) for rows, line in zip(best, seeming, strict=True)]
    assert np.mean(found) >= 9.98
    assert all(len(set(line)) == 60 for line in seeming.tolist())


@pytest.mark.parametrize("n_users", [1, 5])
def test_what_seems_best_is_what_has_the_highest_scores_in_bytes(n_users, monkeypatch):
    """Those of equal scores by row, whatever the size of a block."""
    rng = np.random.default_rng(2)
    of, who = vectors(3_000)[rng.integers(3_000, size=3_000)], users(n_users)
    codes = np.rint(of[:, :-1] * (127 / np.abs(of[:, :-1]).max(axis=1, keepdims=True)))
    of = of.copy()
    of[:, :-1] = codes * 2.0 ** rng.integers(-3, 3, size=(len(of), 1)) / 128
    of[:, -1] = np.round(of[:, -1])
    who[:, :-1] = np.rint(who[:, :-1] * (127 / np.abs(who[:, :-1]).max(axis=1, keepdims=True)))
    nothing = np.zeros(len(of), np.bool_)
    best = exact(of.astype(np.float64), who.astype(np.float64), nothing, [[]] * n_users, 50)
    for products in (1, 700 * n_users, 1_000_000):
        monkeypatch.setattr(_scan, "_PRODUCTS", products)
        seeming = scan(of).best(who, asked([[]] * n_users), nothing, 50)
        assert np.sort(seeming, axis=1).tolist() == np.sort(best, axis=1).tolist()


def test_it_tells_what_is_best_by_more_than_the_bytes_round_off():
    of = vectors(2_000)
    of[[7, 1_500], :-1] = 40.0
    who = np.abs(users(2))
    nothing = np.zeros(len(of), np.bool_)
    seeming = scan(of).best(who, asked([[], []]), nothing, 2)
    assert np.sort(seeming, axis=1).tolist() == [[7, 1_500], [7, 1_500]]


def test_nobody_is_given_what_is_withheld_or_excluded():
    of, who = vectors(300), users(3)
    nothing = np.zeros(300, np.bool_)
    best = exact(of, who, nothing, [[]] * 3, 40)
    withheld = nothing.copy()
    withheld[best[0][:5]] = True
    excluded = [best[0][10:20], [], [*best[2][:20], 100_000]]
    seeming = scan(of).best(who, asked(excluded), withheld, 250)
    for line, barred in zip(seeming.tolist(), excluded, strict=True):
        assert not set(line) & {*barred, *np.flatnonzero(withheld).tolist()}
        assert len(set(line)) == 250


def test_where_fewer_may_be_given_the_end_is_no_row():
    of, who = vectors(30), users(2)
    withheld = np.zeros(30, np.bool_)
    withheld[10:] = True
    seeming = scan(of).best(who, asked([[3], []]), withheld, 12)
    assert sorted(seeming[0][seeming[0] != NO_ROW].tolist()) == [0, 1, 2, *range(4, 10)]
    assert sorted(seeming[1][seeming[1] != NO_ROW].tolist()) == list(range(10))


def test_items_that_the_flags_do_not_know_yet_are_not_given():
    of, who = vectors(30), users(1)
    seeming = scan(of).best(who, asked([[]]), np.zeros(20, np.bool_), 30)
    assert seeming.max() < 20


def test_an_item_that_changed_is_found_by_what_it_is_now():
    of, who = vectors(500), users(1)
    found = scan(of)
    nothing = np.zeros(500, np.bool_)
    last = exact(of, who, nothing, [[]], 500)[0][-1]
    found.put(np.array([last], np.int32), 50 * who)
    assert found.best(who, asked([[]]), nothing, 1).tolist() == [[last]]


def test_a_user_of_whom_nothing_is_known_gets_the_highest_biases():
    of = vectors(500)
    who = np.zeros((1, DIM + 1), np.float32)
    who[:, -1] = 1.0
    seeming = scan(of).best(who, asked([[]]), np.zeros(500, np.bool_), 20)
    assert set(seeming[0].tolist()) == set(np.argsort(-of[:, -1])[:20].tolist())


def test_what_is_found_depends_on_nobody_else():
    of, who = vectors(3_000), users(20)
    nothing = np.zeros(len(of), np.bool_)
    together = scan(of).best(who, asked([[]] * 20), nothing, 30)
    for b in range(20):
        alone = scan(of).best(who[b : b + 1], asked([[]]), nothing, 30)
        np.testing.assert_array_equal(alone[0], together[b])


def test_a_loaded_state_finds_the_same():
    of, who = vectors(400), users(4)
    found, other = scan(of), Scan(DIM)
    other.load(found.state())
    nothing = np.zeros(400, np.bool_)
    np.testing.assert_array_equal(
        other.best(who, asked([[]] * 4), nothing, 25), found.best(who, asked([[]] * 4), nothing, 25)
    )


def test_the_nearest_by_the_angle_are_found_whatever_their_lengths_and_biases():
    of = vectors(3_000)
    there = np.ones(len(of), np.bool_)
    there[::3] = False
    lengths = np.linalg.norm(of[:, :-1], axis=1)
    cosines = of[:, :-1] @ of[6, :-1] / lengths / lengths[6]
    cosines[~there] = -1.0
    found = scan(of).near(6, there, 60)
    assert len(found) == 60
    assert there[found].all()
    assert set(np.argsort(-cosines)[:40].tolist()) <= set(found.tolist())
    few = np.zeros(len(of), np.bool_)
    few[np.argsort(cosines)[-3:]] = True
    assert sorted(scan(of).near(6, few, 60)) == sorted(np.argsort(cosines)[-3:])
