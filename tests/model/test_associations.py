from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from headwater.config import Config
from headwater.config import Neighbours as NeighboursSettings
from headwater.config import Transitions as TransitionsSettings
from headwater.deploy import state_digest
from headwater.model import Neighbours, Transitions
from headwater.model.associations import RARE, SMOOTHING, Associations
from tests.model.arrays import batches, contexts, copied, stream

DAY = 86_400.0

KINDS: dict[str, Any] = {
    "directed": {"both_ways": False, "distance_power": 1.0, "popularity_power": 0.0},
    "undirected": {"both_ways": True, "distance_power": 0.5, "popularity_power": 0.25},
}
"""The parameters of the formula, one set for each of the experts that are made of it."""

each_kind = pytest.mark.parametrize("kind", KINDS)


def taught(rows, ends=(), grow_to=0, kind="directed", width=64):
    """Associations after (user, item, time, type) rows, and the items by row."""
    expert = Associations(width, 3, DAY, **KINDS[kind])
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


class Plain:
    """The same by dictionaries and lists: decayed weights, events and scores."""

    def __init__(self, rows, kind="directed", window=3, half_life=DAY):
        self.kind, self.window = KINDS[kind], window
        self.weights: dict[tuple[str, str], float] = defaultdict(float)
        self.events: Counter[str] = Counter()
        types = Config().event_types
        histories: dict[str, list[str]] = defaultdict(list)
        for user, item, time, type in rows:
            if type not in types or not types[type].polarity:
                continue
            history = histories[user]
            if types[type].polarity > 0:
                self.events[str(item)] += 1
                decayed = types[type].weight * 0.5 ** ((rows[-1][2] - time) / half_life)
                self._join(history, str(item), decayed)
            history.append(str(item))

    def _join(self, history, item, decayed):
        for distance, before in enumerate(reversed(history[-self.window :]), start=1):
            weight = decayed / distance ** self.kind["distance_power"]
            self.weights[before, item] += weight
            if self.kind["both_ways"] and before != item:
                self.weights[item, before] += weight

    def score(self, history, item):
        """s(item) of a history with its newest event last."""
        total = 0.0
        for distance, before in enumerate(reversed(history[-self.window :]), start=1):
            row = sum(weight for (j, _), weight in self.weights.items() if j == before)
            reach = distance ** -self.kind["distance_power"]
            total += reach * self.weights.get((before, item), 0.0) / np.sqrt(row + SMOOTHING)
        return total / (self.events[item] + RARE) ** self.kind["popularity_power"]


HISTORIES = [[], [3], [1, 2], [0, 0, 5, 6], [7, 8, 9, 10, 11, 4]]


@each_kind
@pytest.mark.parametrize(("pause", "seed"), [(600.0, 0), (600.0, 1), (20_000.0, 2)])
def test_scores_are_those_of_the_formula(pause, seed, kind):
    rows = [*random_rows(300, seed, pause), (9, 0, 1e9 + 300 * pause + 40 * DAY, "view")]
    expert, items = taught(rows, ends=range(0, 300, 37), kind=kind)
    plain = Plain(rows, kind)
    asked = contexts(HISTORIES)
    found = expert.weigh(asked).scores(np.tile(np.arange(len(items), dtype=np.int32), (5, 1)))
    expected = [
        [plain.score([items[j] for j in history], item) for item in items] for history in HISTORIES
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-12)


def test_the_streams_of_that_test_cross_the_rescale_boundary():
    assert random_rows(300, 2, 20_000.0)[-1][2] - 1e9 > 30 * DAY


def test_a_pause_of_years_leaves_numbers_that_can_be_used():
    expert, _ = taught([("u", 0, 1e9), ("u", 1, 1e9), ("v", 2, 1.3e9), ("v", 0, 1.3e9)])
    found = expert.weigh(contexts([[0], [2]])).scores(np.array([[1], [0]], np.int32))
    assert found[0, 0] == 0.0
    assert found[1, 0] == pytest.approx(1.0 / np.sqrt(1.0 + SMOOTHING))


# --- lists ---------------------------------------------------------------------------------------


@each_kind
def test_candidates_are_the_best_scores_in_order_and_ties_in_order_of_row(kind):
    expert, items = taught(random_rows(400), kind=kind)
    n = len(items)
    asked = contexts(HISTORIES, excluded=[[], [0], [1, 2, 3], [5, 5, 11], []])
    withheld = np.zeros(n, np.bool_)
    withheld[[4, 6]] = True
    every = expert.weigh(asked).scores(np.tile(np.arange(n, dtype=np.int32), (5, 1)))
    for k in (1, 4, 20):
        rows, scores = expert.weigh(asked).best(withheld, k)
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
    found, scores = expert.weigh(contexts([[0]])).best(np.zeros(4, np.bool_), 3)
    assert scores[0, 0] == scores[0, 1] == scores[0, 2] > 0
    assert found.tolist() == [[1, 2, 3]]
    assert [items[row] for row in found[0]] == ["z", "y", "x"]
    assert expert.weigh(contexts([[0]])).best(np.zeros(4, np.bool_), 2)[0].tolist() == [[1, 2]]


def test_asking_changes_nothing():
    expert, items = taught(random_rows(100))
    before = state_digest(expert.state())
    asked = contexts(HISTORIES, excluded=[[0]] * 5)
    expert.weigh(asked).best(np.zeros(len(items), np.bool_), 5)
    expert.weigh(asked).scores(np.zeros((5, 3), np.int32))
    expert.weigh(asked).sources(np.zeros((5, 3), np.int32))
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


@each_kind
def test_nothing_stands_in_a_row_twice(kind):
    expert, _ = taught(random_rows(2000, items=40), kind=kind, width=5)
    for row in expert.state()["successors"]:
        there = row[row >= 0].tolist()
        assert len(there) == len(set(there))


# --- reasons -------------------------------------------------------------------------------------


@each_kind
def test_a_source_is_the_history_item_that_most_of_the_score_comes_from(kind):
    rows = random_rows(400)
    expert, items = taught(rows, kind=kind)
    plain = Plain(rows, kind)
    history = [2, 7, 1]
    asked = contexts([[5], history])
    every = np.tile(np.arange(len(items), dtype=np.int32), (2, 1))
    for row, source in enumerate(expert.weigh(asked).sources(every)[1].tolist()):
        shares = {
            j: plain.score([items[j], *["nothing"] * back], items[row])
            for back, j in enumerate(reversed(history))
        }
        best = max(shares, key=lambda j: shares[j])
        assert source == (best if shares[best] > 0 else -1)


def test_there_is_no_source_in_an_empty_history_nor_for_what_never_followed():
    expert, items = taught([("u", "a", 1e9), ("u", "b", 1e9), ("v", "c", 1e9)])
    rows = np.array([[items.index("b"), items.index("c"), -1]] * 2, np.int32)
    assert expert.weigh(contexts([[], [0]])).sources(rows).tolist() == [[-1, -1, -1], [0, -1, -1]]


# --- the state -----------------------------------------------------------------------------------


@each_kind
def test_a_forgotten_item_goes_with_nothing(kind):
    rows = random_rows(400)
    expert, items = taught(rows, kind=kind)
    gone = [items.index("1"), items.index("3")]
    expert.forget(np.array(gone, np.int32))
    plain = Plain(rows, kind)
    for pair in [pair for pair in plain.weights if {*pair} & {"1", "3"}]:
        del plain.weights[pair]
    every = np.tile(np.arange(len(items), dtype=np.int32), (len(items), 1))
    found = expert.weigh(contexts([[j] for j in range(len(items))])).scores(every)
    expected = [[plain.score([j], item) for item in items] for j in items]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)
    assert not np.isin(expert.state()["successors"], gone).any()
    assert not expert.state()["events"][gone].any()


def test_what_is_left_after_the_loudest_successor_still_speaks():
    rows = [("u", "a", 1e9, "view"), ("u", "quiet", 1e9, "view")]
    rows += [("v", "a", 1e9, "view"), ("v", "loud", 1e9 + 28 * DAY, "view")]
    expert, items = taught(rows)
    expert.forget(np.array([items.index("loud")], np.int32))
    asked = contexts([[items.index("a")]])
    found, scores = expert.weigh(asked).best(np.zeros(3, np.bool_), 3)
    assert found[0].tolist() == [items.index("quiet"), -1, -1]
    plain = Plain(rows)
    del plain.weights["a", "loud"]
    expected = plain.score(["a"], "quiet")
    assert scores[0, 0] == pytest.approx(expected, rel=1e-4)


@each_kind
def test_where_batches_end_and_how_tables_grow_makes_no_difference(kind):
    rows = random_rows(300)
    one, items = taught(rows, kind=kind)
    other, _ = taught(rows, ends=range(0, 300, 7), grow_to=len(items), kind=kind)
    assert state_digest(one.state()) == state_digest(other.state())


# --- the experts ---------------------------------------------------------------------------------

EXPERTS = {
    "transitions": lambda **own: Transitions(TransitionsSettings(**own)),
    "neighbours": lambda **own: Neighbours(NeighboursSettings(**own)),
}
each_expert = pytest.mark.parametrize("make", EXPERTS.values(), ids=EXPERTS)


def learned(make, rows, **own):
    expert = make(**own)
    made, items = batches(Config(), stream(rows))
    expert.grow(len(items))
    expert.learn(made[0])
    return expert, items


def proposed(expert, items, item):
    rows, _ = expert.weigh(contexts([[items.index(item)]])).best(np.zeros(len(items), "?"), 5)
    return [items[row] for row in rows[0] if row >= 0]


def test_transitions_know_what_came_next_and_neighbours_what_came_before_too():
    rows = [("u", item, 1e9) for item in ("first", "second")]
    for make, backwards in ((EXPERTS["transitions"], []), (EXPERTS["neighbours"], ["first"])):
        expert, items = learned(make, rows)
        assert proposed(expert, items, "first") == ["second"]
        assert proposed(expert, items, "second") == backwards


def test_neighbours_take_back_some_of_the_popularity():
    pairs = [("a", "popular")] * 3 + [("a", "rare")] * 2 + [("b", "popular")] * 30
    rows = [(n, item, 1e9) for n, pair in enumerate(pairs) for item in pair]
    for make, best in ((EXPERTS["transitions"], "popular"), (EXPERTS["neighbours"], "rare")):
        expert, items = learned(make, rows)
        assert proposed(expert, items, "a")[0] == best


@each_expert
def test_settings_are_used(make):
    rows = [("u", f"{n}", 1e9) for n in range(9)]
    expert, items = learned(make, rows, window=2, width=4, half_life_days=3.0)
    assert {"3", "4"} <= set(proposed(expert, items, "2")) <= {"0", "1", "3", "4"}
    assert expert.state()["successors"].shape == (9, 4)
    assert expert.half_life == 3 * DAY


@each_expert
def test_a_loaded_state_goes_on_as_the_one_that_was_saved(make):
    made, items = batches(Config(), stream(random_rows(200)), [100])
    one, other = make(), make()
    one.grow(len(items))
    one.learn(made[0])
    other.load(copied(one.state()))
    for expert in (one, other):
        expert.learn(made[1])
    assert state_digest(one.state()) == state_digest(other.state())


@each_expert
def test_nothing_goes_with_anything_before_the_first_event(make):
    expert = make()
    expert.grow(2)
    rows, scores = expert.weigh(contexts([[], [1]])).best(np.zeros(2, np.bool_), 3)
    assert rows.tolist() == [[-1] * 3] * 2
    assert not scores.any()
