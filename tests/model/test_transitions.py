from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from headwater.config import Config
from headwater.config import Transitions as Settings
from headwater.deploy import state_digest
from headwater.model import Transitions
from headwater.model.transitions import _SMOOTHING as SMOOTHING
from tests.model.arrays import batches, contexts, copied, stream

DAY = 86_400.0


def taught(rows, ends=(), grow_to=0, **settings):
    """The expert after (user, item, time, type) rows, and the items by row."""
    expert = Transitions(Settings(**{"width": 64, "window": 3, "half_life_days": 1.0} | settings))
    expert.grow(grow_to)
    made, items = batches(Config(), stream(rows), ends)
    for batch in made:
        expert.grow(len(items))
        expert.learn(batch)
    return expert, items


def random_rows(n, seed=0, pause=600.0, items=12):
    rng = np.random.default_rng(seed)
    times = 1e9 + np.cumsum(rng.exponential(pause, n))
    kinds = ("view", "view", "purchase", "dislike", "impression", "unheard of")
    rows = [
        (rng.integers(4), rng.integers(items), float(time), kinds[rng.integers(len(kinds))])
        for time in times[:-1]
    ]
    # The expert's clock is the newest event that it counted.
    return [*rows, (rng.integers(4), rng.integers(items), float(times[-1]), "view")]


def plain_weights(rows, window=3, half_life=DAY):
    """{(before, after): decayed weight} by dictionaries and lists."""
    types = Config().event_types
    histories: dict[str, list[str]] = defaultdict(list)
    found: dict[tuple[str, str], float] = defaultdict(float)
    for user, item, time, type in rows:
        if type not in types or not types[type].polarity:
            continue
        history = histories[user]
        if types[type].polarity > 0:
            for distance, before in enumerate(reversed(history[-window:]), start=1):
                decay = 0.5 ** ((rows[-1][2] - time) / half_life)
                found[before, str(item)] += types[type].weight * decay / distance
        history.append(str(item))
    return found


def plain_score(weights, history, item, window=3):
    """s(item) of a history with its newest event last."""
    total = 0.0
    for distance, before in enumerate(reversed(history[-window:]), start=1):
        row = sum(weight for (j, _), weight in weights.items() if j == before)
        total += weights.get((before, item), 0.0) / (distance * np.sqrt(row + SMOOTHING))
    return total


HISTORIES = [[], [3], [1, 2], [0, 0, 5, 6], [7, 8, 9, 10, 11, 4]]


@pytest.mark.parametrize(("pause", "seed"), [(600.0, 0), (600.0, 1), (20_000.0, 2)])
def test_scores_are_those_of_the_formula(pause, seed):
    rows = [*random_rows(300, seed, pause), (9, 0, 1e9 + 300 * pause + 40 * DAY, "view")]
    expert, items = taught(rows, ends=range(0, 300, 37))
    weights = plain_weights(rows)
    asked = contexts(HISTORIES)
    found = expert.scores(asked, np.tile(np.arange(len(items), dtype=np.int32), (5, 1)))
    expected = [
        [plain_score(weights, [items[j] for j in history], item) for item in items]
        for history in HISTORIES
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-12)


def test_the_streams_of_that_test_cross_the_rescale_boundary():
    assert random_rows(300, 2, 20_000.0)[-1][2] - 1e9 > 30 * DAY


def test_a_pause_of_years_leaves_numbers_that_can_be_used():
    expert, _ = taught([("u", 0, 1e9), ("u", 1, 1e9), ("v", 2, 1.3e9), ("v", 0, 1.3e9)])
    found = expert.scores(contexts([[0], [2]]), np.array([[1], [0]], np.int32))
    assert found[0, 0] == 0.0
    assert found[1, 0] == pytest.approx(1.0 / np.sqrt(1.0 + SMOOTHING))


# --- lists ---------------------------------------------------------------------------------------


def test_candidates_are_the_best_scores_in_order_and_ties_in_order_of_row():
    expert, items = taught(random_rows(400))
    n = len(items)
    asked = contexts(HISTORIES, excluded=[[], [0], [1, 2, 3], [5, 5, 11], []])
    withheld = np.zeros(n, np.bool_)
    withheld[[4, 6]] = True
    every = expert.scores(asked, np.tile(np.arange(n, dtype=np.int32), (5, 1)))
    for k in (1, 4, 20):
        rows, scores = expert.candidates(asked, withheld, k)
        assert rows.shape == scores.shape == (5, k)
        for b in range(5):
            start, stop = asked.excluded_starts[b : b + 2]
            barred = {*asked.excluded[start:stop].tolist(), 4, 6}
            ranked = sorted((-every[b, i], i) for i in range(n) if i not in barred and every[b, i])
            expected = [i for _, i in ranked[:k]]
            assert rows[b].tolist() == expected + [-1] * (k - len(expected))
            assert scores[b, : len(expected)].tolist() == [every[b, i] for i in expected]
            assert not scores[b, len(expected) :].any()


def test_ties_are_broken_by_row_whichever_came_first():
    rows = [("u", "a", 1e9)]
    for user, successor in (("v", "z"), ("w", "y"), ("x", "x")):
        rows += [(user, "a", 1e9), (user, successor, 1e9)]
    expert, items = taught(rows)
    found, scores = expert.candidates(contexts([[0]]), np.zeros(4, np.bool_), 3)
    assert scores[0, 0] == scores[0, 1] == scores[0, 2] > 0
    assert found.tolist() == [[1, 2, 3]]
    assert [items[row] for row in found[0]] == ["z", "y", "x"]
    assert expert.candidates(contexts([[0]]), np.zeros(4, np.bool_), 2)[0].tolist() == [[1, 2]]


def test_asking_changes_nothing():
    expert, items = taught(random_rows(100))
    before = state_digest(expert.state())
    asked = contexts(HISTORIES, excluded=[[0]] * 5)
    expert.candidates(asked, np.zeros(len(items), np.bool_), 5)
    expert.scores(asked, np.zeros((5, 3), np.int32))
    expert.sources(asked, np.zeros((5, 3), np.int32))
    assert state_digest(expert.state()) == before


# --- rows of fixed width -------------------------------------------------------------------------


def test_a_row_keeps_as_many_successors_as_it_is_wide_and_the_strong_ones():
    often = [
        row
        for k in range(30)
        for row in ((f"u{k}", "a", 1e9), (f"u{k}", "strong" if k % 2 else "strong too", 1e9))
    ]
    once = [row for k in range(50) for row in ((f"v{k}", "a", 1e9), (f"v{k}", f"weak {k}", 1e9))]
    expert, items = taught(often + once, width=4)
    state = expert.state()
    assert state["successors"].shape == (len(items), 4)
    kept = {items[row] for row in state["successors"][items.index("a")]}
    assert {"strong", "strong too"} < kept
    assert len(kept) == 4
    np.testing.assert_allclose(state["sums"], state["weights"].sum(axis=1), rtol=1e-5)


def test_no_successor_stands_in_a_row_twice():
    expert, _ = taught(random_rows(2000, items=40), width=5)
    for row in expert.state()["successors"]:
        there = row[row >= 0].tolist()
        assert len(there) == len(set(there))


# --- reasons -------------------------------------------------------------------------------------


def test_a_source_is_the_history_item_that_most_of_the_score_comes_from():
    rows = random_rows(400)
    expert, items = taught(rows)
    weights = plain_weights(rows)
    history = [2, 7, 1]
    asked = contexts([[5], history])
    every = np.tile(np.arange(len(items), dtype=np.int32), (2, 1))
    for row, source in enumerate(expert.sources(asked, every)[1].tolist()):
        shares = {
            j: plain_score(weights, [items[j], *["nothing"] * back], items[row])
            for back, j in enumerate(reversed(history))
        }
        best = max(shares, key=lambda j: shares[j])
        assert source == (best if shares[best] > 0 else -1)


def test_there_is_no_source_in_an_empty_history_nor_for_what_never_followed():
    expert, items = taught([("u", "a", 1e9), ("u", "b", 1e9), ("v", "c", 1e9)])
    rows = np.array([[items.index("b"), items.index("c"), -1]] * 2, np.int32)
    assert expert.sources(contexts([[], [0]]), rows).tolist() == [[-1, -1, -1], [0, -1, -1]]


# --- the state -----------------------------------------------------------------------------------


def test_a_forgotten_item_neither_follows_nor_is_followed():
    rows = random_rows(400)
    expert, items = taught(rows)
    gone = [items.index("1"), items.index("3")]
    expert.forget(np.array(gone, np.int32))
    weights = {
        (before, after): weight
        for (before, after), weight in plain_weights(rows).items()
        if not {before, after} & {"1", "3"}
    }
    every = np.tile(np.arange(len(items), dtype=np.int32), (len(items), 1))
    found = expert.scores(contexts([[j] for j in range(len(items))]), every)
    expected = [[plain_score(weights, [j], item) for item in items] for j in items]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)
    assert not np.isin(expert.state()["successors"], gone).any()


def test_what_is_left_after_the_loudest_successor_still_speaks():
    rows = [("u", "a", 1e9), ("u", "quiet", 1e9)]
    rows += [("v", "a", 1e9), ("v", "loud", 1e9 + 28 * DAY)]
    expert, items = taught(rows)
    expert.forget(np.array([items.index("loud")], np.int32))
    asked = contexts([[items.index("a")]])
    found, scores = expert.candidates(asked, np.zeros(3, np.bool_), 3)
    assert found[0].tolist() == [items.index("quiet"), -1, -1]
    expected = plain_score({("a", "quiet"): 0.5**28}, ["a"], "quiet")
    assert scores[0, 0] == pytest.approx(expected, rel=1e-4)


def test_where_batches_end_and_how_tables_grow_makes_no_difference():
    rows = random_rows(300)
    one, items = taught(rows)
    other, _ = taught(rows, ends=range(0, 300, 7), grow_to=len(items))
    assert state_digest(one.state()) == state_digest(other.state())


def test_a_loaded_state_goes_on_as_the_one_that_was_saved():
    made, items = batches(Config(), stream(random_rows(200)), [100])
    one, other = Transitions(Settings()), Transitions(Settings())
    one.grow(len(items))
    one.learn(made[0])
    other.load(copied(one.state()))
    for expert in (one, other):
        expert.learn(made[1])
    assert state_digest(one.state()) == state_digest(other.state())


def test_nothing_follows_before_the_first_event():
    expert = Transitions(Settings())
    expert.grow(2)
    rows, scores = expert.candidates(contexts([[], [1]]), np.zeros(2, np.bool_), 3)
    assert rows.tolist() == [[-1] * 3] * 2
    assert not scores.any()
