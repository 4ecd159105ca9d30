"""Vectors of items: of their own rows and of their tokens'."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import Content as Settings
from headwater.model import Content, _first_look, _tower
from headwater.model._first_look import FirstLook
from headwater.model._scan import Scan
from headwater.model._sketch import Sketch
from headwater.model._tower import Tower
from tests.model.arrays import copied

DIM, ITEMS, WIDTH = 4, 12, 5
NOBODY = np.zeros((0, DIM), np.float32)


def tower(items=ITEMS, seed=0, exact_items=1_000):
    made = Tower(DIM, Content(Settings(tokens=WIDTH)), exact_items, seed)
    made.grow(items)
    return made


def describe(found, item, *tokens):
    rows = np.array([item], np.int32)
    found.content.describe(rows, np.array([[*tokens]], np.int32).reshape(1, len(tokens)))
    found.describe(rows)


def descend(found, *rows, seed=0, users=NOBODY):
    gradients = np.random.default_rng(seed).normal(size=(len(rows), DIM + 1)).astype(np.float32)
    found.descend(np.array(rows, np.int32), gradients, users, 0.1)
    return gradients


def summed(found):
    """Every vector as the formula has it, from the two tables."""
    vectors = found.items.values.copy()
    for item in range(len(vectors)):
        tokens = [t for t in found.content.item_tokens[item] if t >= 0]
        if tokens:
            vectors[item] += found.tokens.values[tokens].sum(axis=0) / np.sqrt(len(tokens))
    return vectors


# --- what a vector is ----------------------------------------------------------------------------


def test_without_tokens_an_item_is_its_row_and_nothing_is_copied():
    found = tower()
    descend(found, 1, 2)
    assert np.shares_memory(found.vectors(), found.items.values)
    np.testing.assert_array_equal(found.vectors_of(np.array([2, 0])), found.items.values[[2, 0]])


def test_an_item_that_was_put_a_moment_ago_is_what_its_tokens_say():
    found = tower()
    describe(found, 3, 1, 4)
    expected = found.tokens.values[[1, 4]].sum(axis=0) / np.sqrt(2)
    np.testing.assert_allclose(found.vectors()[3], expected, atol=1e-7)


def test_what_was_learned_of_an_item_stays_when_it_is_described():
    found = tower()
    descend(found, 3)
    row = found.items.values[3].copy()
    describe(found, 3, 1)
    np.testing.assert_array_equal(found.items.values[3], row)


def test_an_item_that_loses_its_tokens_begins_as_one_that_never_had_any():
    found, fresh = tower(), tower()
    describe(found, 3, 1)
    describe(found, 3)
    np.testing.assert_array_equal(found.vectors(), fresh.vectors())


def test_token_rows_and_item_rows_begin_differently():
    found = tower()
    describe(found, 0, *range(WIDTH))
    assert (found.tokens.values[:WIDTH] != found.items.values[:WIDTH]).all()


# --- a step --------------------------------------------------------------------------------------


def test_a_token_gets_the_gradients_of_all_items_that_have_it():
    found = tower()
    describe(found, 0, 1, 2)
    describe(found, 1, 2, 3, 4)
    describe(found, 2, 5)
    before = found.tokens.values.copy()
    g = descend(found, 0, 1)
    sums = {1: g[0] / 2**0.5, 2: g[0] / 2**0.5 + g[1] / 3**0.5, 3: g[1] / 3**0.5}
    for token, gradient in sums.items():
        step = 0.1 * gradient / np.sqrt(np.mean(gradient**2))
        np.testing.assert_allclose(found.tokens.values[token], before[token] - step, atol=1e-5)
    np.testing.assert_array_equal(found.tokens.values[[0, 5]], before[[0, 5]])


def test_a_step_changes_no_row_that_it_does_not_touch():
    found = tower()
    for item in range(ITEMS):
        describe(found, item, item, item + 1)
    found.take_changes()
    descend(found, 2, 7)
    changes, _ = found.take_changes()
    assert changes["sequence.items"].rows.tolist() == [2, 7]
    assert changes["sequence.tokens"].rows.tolist() == [2, 3, 7, 8]


def test_what_is_learned_of_an_item_is_learned_of_its_like():
    found = tower()
    describe(found, 0, 1)
    describe(found, 1, 1)
    describe(found, 2, 3)
    before = found.vectors().copy()
    descend(found, 0)
    moved = found.vectors() - before
    assert np.dot(moved[1], moved[0]) > 0
    assert not moved[2].any()


# --- kept vectors are those of the tables ---------------------------------------------------------


ITEM = st.integers(0, ITEMS + 5)
TOKENS = st.lists(st.integers(0, 7), max_size=WIDTH, unique=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("describe"), ITEM, TOKENS),
        st.tuples(st.just("descend"), st.lists(ITEM, min_size=1, unique=True)),
        st.tuples(st.just("forget"), ITEM),
        st.tuples(st.just("forget_tokens")),
        st.tuples(st.just("look")),
        st.tuples(st.just("reload")),
    ),
    max_size=25,
)


def taken(found, step, n):
    match step:
        case ("describe", item, tokens):
            describe(found, item, *tokens)
        case ("descend", items):
            users = np.random.default_rng(n).normal(size=(5, DIM)).astype(np.float32)
            descend(found, *sorted(items), seed=n, users=users)
        case ("forget", item):
            describe(found, item)
            found.forget(np.array([item], np.int32))
        case ("forget_tokens",):
            found.forget_tokens(found.content.forget_unused())


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_whatever_happens_kept_vectors_are_those_of_the_tables_in_both_roles(steps):
    learned, served = tower(ITEMS + 6), tower(ITEMS + 6)
    for n, step in enumerate(steps):
        taken(learned, step, n)
        if step[0] != "descend":
            taken(served, step, n)
        if step[0] == "reload":
            other = tower(0)
            other.content.load(copied(learned.content.state()))
            other.load(copied(learned.state()))
            learned = other
        served.put(*learned.take_changes())
        if step[0] == "look":
            np.testing.assert_allclose(learned.vectors(), summed(learned), atol=1e-5)
        np.testing.assert_array_equal(learned.vectors(), served.vectors())
    np.testing.assert_allclose(learned.vectors(), summed(learned), atol=1e-5)
    every = np.arange(ITEMS + 6, dtype=np.int32)
    np.testing.assert_array_equal(learned.vectors(), learned.vectors_of(every))


def test_a_put_costs_one_vector_and_a_step_those_that_share_a_token(monkeypatch):
    found, composed = tower(), []
    honest = _tower._compose

    def compose(rows, *rest):
        composed.append(len(rows))
        honest(rows, *rest)

    monkeypatch.setattr(_tower, "_compose", compose)
    describe(found, 0, 1)
    found.vectors()
    found.vectors()
    describe(found, 5, 1)
    found.vectors()
    descend(found, 7)
    found.vectors()
    descend(found, 5)
    found.vectors()
    assert composed == [ITEMS, 1, 1, 2]


# --- the first look in bytes ----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_bytes_are_those_of_the_vectors_once_all_had_their_turn(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_first_look, "_TURNS", 1)
        patch.setattr(_first_look, "_EVERY", 1)
        compare_bytes_with_vectors(steps)


def compare_bytes_with_vectors(steps):
    learned, served = tower(ITEMS + 6, exact_items=4), tower(ITEMS + 6, exact_items=4)
    for n, step in enumerate(steps):
        taken(learned, step, n)
        if step[0] != "descend":
            taken(served, step, n)
        if step[0] == "reload":
            other = tower(0, exact_items=4)
            other.content.load(copied(learned.content.state()))
            other.load(copied(learned.state()))
            learned = other
        served.first_look.put(learned.first_look.values())
        served.put(*learned.take_changes())
    while served.first_look.look_on(3):
        pass
    assert_bytes_are_those_of_the_vectors(learned, follows=False)
    assert_bytes_are_those_of_the_vectors(served)


def assert_bytes_are_those_of_the_vectors(found, follows=True):
    """Of all columns, in who follows; along directions, in both."""
    every = np.arange(len(found.items), dtype=np.int32)
    sketch = found.first_look.sketch
    if sketch:
        drawn = Sketch(sketch.basis, sketch.units, len(every))
        drawn.put(every, found.vectors())
        np.testing.assert_array_equal(sketch.state()["codes"], drawn.state()["codes"])
    if follows or not sketch:
        fresh = Scan(DIM)
        fresh.grow(len(every))
        fresh.put(every, found.vectors())
        for name, value in fresh.state().items():
            np.testing.assert_array_equal(found.first_look.scan.state()[name], value)


def watched(monkeypatch):
    """A list that grows by the rows of the items that are added up, each time some are."""
    composed = []
    honest = _tower._compose

    def compose(rows, *rest):
        composed.append(rows.tolist())
        honest(rows, *rest)

    monkeypatch.setattr(_tower, "_compose", compose)
    return composed


def test_a_step_on_tokens_looks_again_at_as_many_items_in_a_large_catalogue(monkeypatch):
    monkeypatch.setattr(_first_look, "_SWEPT", 5)
    monkeypatch.setattr(_first_look, "_STEPS", 1)
    found = tower(100, exact_items=4)
    for item in range(100):
        describe(found, item, item % 3)
    composed = watched(monkeypatch)
    for step in range(3):
        descend(found, 7, seed=step)
    assert composed == [one for first in (0, 5, 10) for one in ([7], list(range(first, first + 5)))]


def test_an_update_makes_few_bytes_anew_and_the_others_when_there_is_time(monkeypatch):
    monkeypatch.setattr(_first_look, "_SWEPT", 20)
    monkeypatch.setattr(_first_look, "_TURNS", 2)
    learned, served = tower(100, exact_items=4), tower(100, exact_items=4)
    for found in (learned, served):
        for item in range(100):
            describe(found, item, item % 3)
    composed = watched(monkeypatch)

    def update(seed):
        descend(learned, 7, seed=seed)
        changes = learned.take_changes()
        composed.clear()
        served.put(*changes)

    update(0)
    assert composed == [[7]]
    composed.clear()
    assert served.first_look.look_on(30)
    assert composed == [list(range(30))]
    update(1)
    assert composed == [list(range(30, 40)), [7]], "what was left comes before the next update"
    composed.clear()
    assert not served.first_look.look_on(1_000)
    assert composed == [list(range(40, 80))]
    assert not served.first_look.look_on(1_000)
    assert len(composed) == 1


def test_all_items_of_a_small_catalogue_have_their_turn_in_a_few_updates(monkeypatch):
    learned, served = tower(100, exact_items=4), tower(100, exact_items=4)
    for found in (learned, served):
        for item in range(100):
            describe(found, item, item % 3)
    looked = []
    honest = FirstLook._sweep

    def sweep(found, n, parts):
        if found is served.first_look:
            looked.append(n)
        honest(found, n, parts)

    monkeypatch.setattr(FirstLook, "_sweep", sweep)
    for seed in range(_first_look._TURNS):
        assert sum(looked) < 100
        descend(learned, 7, seed=seed)
        served.put(*learned.take_changes())
        served.first_look.look_on(1_000)
    assert 100 <= sum(looked) < 100 + _first_look._TURNS


def test_who_looks_again_has_the_bytes_of_every_vector_at_once(monkeypatch):
    monkeypatch.setattr(_first_look, "_SWEPT", 5)
    found = tower(100, exact_items=4)
    for item in range(100):
        describe(found, item, item % 3)
    descend(found, 7)
    with pytest.raises(AssertionError):
        assert_bytes_are_those_of_the_vectors(found)
    found.first_look.look_again()
    assert_bytes_are_those_of_the_vectors(found)


def test_bytes_grow_with_the_catalogue_though_fewer_would_be_looked_at_by_other_settings():
    found, other = tower(20, exact_items=4), tower(0, exact_items=1_000)
    other.load(copied(found.state()))
    other.grow(300)
    for item in (19, 25, 299):
        describe(other, item, item % 3)
        descend(other, item)
    other.first_look.look_again()
    assert_bytes_are_those_of_the_vectors(other)


def test_products_are_those_with_each_vector():
    found = tower()
    describe(found, 3, 1, 4)
    rows = np.array([[3, 0, 3], [5, 3, 1]], np.int32)
    users = np.random.default_rng(0).normal(size=(2, DIM + 1)).astype(np.float32)
    expected = np.einsum("bd,bcd->bc", users, found.vectors()[rows])
    np.testing.assert_allclose(found.products(users, rows), expected, atol=1e-6)
    np.testing.assert_array_equal(found.products(users, rows), found.products(users, rows))


# --- items that are gone --------------------------------------------------------------------------


def test_of_a_forgotten_token_nothing_is_left_and_that_is_told_once():
    found, fresh = tower(), tower()
    describe(found, 0, 0, 1)
    describe(fresh, 0, 0, 1)
    descend(found, 0)
    found.take_changes()
    describe(found, 0)
    unused = found.content.forget_unused()
    found.forget_tokens(unused)
    np.testing.assert_array_equal(found.tokens.values, fresh.tokens.values)
    assert found.take_changes()[1]["sequence.tokens"].tolist() == [0, 1]
    found.forget_tokens(unused)
    assert found.take_changes()[1]["sequence.tokens"].tolist() == []


def test_an_item_that_was_put_again_stays_at_zero_when_its_tombstone_comes_late():
    learned, served = tower(), tower()
    descend(learned, 3)
    served.put(*learned.take_changes())
    for each in (learned, served):
        each.forget(np.array([3], np.int32))
    removal = learned.take_changes()
    describe(served, 3, 1)
    served.put(*removal)
    assert not served.items.values[3].any()
    describe(learned, 3, 1)
    np.testing.assert_array_equal(served.vectors(), learned.vectors())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_row_depends_on_the_seed_and_its_number_alone(seed):
    one, other = tower(3, seed), tower(3000, seed)
    np.testing.assert_array_equal(one.vectors(), other.vectors()[:3])
