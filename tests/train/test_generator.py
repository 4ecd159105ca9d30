from __future__ import annotations

import numpy as np

from headwater.deploy import state_digest
from headwater.train._generator import Generator
from tests.model.arrays import examples, small
from tests.model.test_sequence import expert
from tests.train.test_trainer import course, taught

ITEMS, DRAWS = 300, 20


def drawn(liked, repetitions):
    """How often each item was drawn of so many times, and how often it should have been."""
    found = expert(items=ITEMS)
    found.tower.items.values[liked, -1] += 3.0
    lesson = examples([[1, 2, 3], [4], [5, 6]], [10, 11, 12])
    known, random = np.arange(ITEMS, dtype=np.int32), np.random.default_rng(0)
    often, expected = np.zeros(ITEMS), np.zeros(ITEMS)
    for _ in range(repetitions):
        generator = Generator(found, lesson, known, DRAWS, random)
        often[generator.rows] += 1
        expected += 1 - generator.absent(known)
    return often / repetitions, expected / repetitions


def test_what_is_ranked_high_is_drawn_more_often():
    liked = [20, 40, 60]
    often, _ = drawn(liked, 100)
    assert often[liked].min() > 3 * np.delete(often, liked).mean()


def test_items_are_drawn_as_often_as_it_says():
    liked = np.arange(0, ITEMS, 3)
    often, expected = drawn(liked, 300)
    others = np.delete(np.arange(ITEMS), liked)
    for group in (liked, others):
        assert abs(often[group].mean() / expected[group].mean() - 1) < 0.1


def test_only_known_items_are_drawn():
    found = expert(items=ITEMS)
    known = np.arange(7, ITEMS, 5, dtype=np.int32)
    lesson = examples([[1, 2, 3]], [10])
    generator = Generator(found, lesson, known, DRAWS, np.random.default_rng(0))
    assert 0 < len(generator.rows) <= DRAWS
    assert np.isin(generator.rows, known).all()


def test_a_step_has_them_among_its_negatives_and_its_correction():
    settings = {"negatives": 8, "replay": 0.0}
    without, found = (taught(small(sequence=settings | {"hard_negatives": n})) for n in (0, 6))
    _, n_items = course()
    rows = np.arange(n_items, dtype=np.int32)
    # The first step finds the same model and draws the same uniform ones.
    assert set(without.negatives[0]) < set(found.negatives[0])
    assert len(found.negatives[0]) <= len(without.negatives[0]) + 6
    assert (found.log_qs[-1](rows) > without.log_qs[-1](rows)).all(), "more are candidates"


def test_two_runs_with_them_are_equal_bit_for_bit():
    config = small(sequence={"negatives": 8, "hard_negatives": 6})
    assert state_digest(taught(config).state()) == state_digest(taught(config).state())
