from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from headwater.deploy import state_digest
from headwater.loop import Fold
from headwater.model import EXPERTS, _leaders
from headwater.recommend._first import first
from headwater.testing import checkerboard
from headwater.types import NO_ROW, Item, Request
from tests.model.arrays import small
from tests.recommend.learned import NOW, learned, learner, numbers, ratings, requests


@pytest.fixture(scope="module")
def fold() -> Fold:
    return learned()


def ranked(fold, asked=None, n=0, withheld=None):
    contexts = fold.preprocess.contexts(asked or requests(), NOW)
    shown = fold.withheld() if withheld is None else withheld
    return contexts, fold.recommender.rank(contexts, shown, n)


def shown(rows):
    return [row for row in rows.tolist() if row != NO_ROW]


def test_a_list_is_the_union_of_what_the_experts_propose(fold):
    contexts, ranking = ranked(fold)
    for b in range(len(contexts)):
        listed = shown(ranking.rows[b])
        proposed = set().union(*(shown(ranking.expert_rows[name][b]) for name in EXPERTS))
        assert len(listed) == len(set(listed))
        assert set(listed) == proposed
        assert ranking.rows[b].tolist() == listed + [-1] * (ranking.rows.shape[1] - len(listed))


def test_every_expert_proposes_something_of_its_own(fold):
    _, ranking = ranked(fold, [Request(10, f"u{n}") for n in range(20)])
    lists = [ranking.expert_rows[name] for name in EXPERTS]
    for one, other in combinations(lists, 2):
        assert (one != other).any()


def test_nothing_that_is_withheld_or_excluded_is_in_any_list(fold):
    withheld = fold.withheld().copy()
    barred = {fold.preprocess.items.find("i2"), fold.preprocess.items.find("i5")}
    withheld[list(barred)] = True
    contexts, ranking = ranked(fold, n=60, withheld=withheld)
    for rows in (ranking.rows, *ranking.expert_rows.values()):
        for b in range(len(contexts)):
            start, stop = contexts.excluded_starts[b : b + 2]
            assert not set(shown(rows[b])) & (barred | set(contexts.excluded[start:stop].tolist()))
    assert contexts.excluded_starts[-1] == 3


def test_excluding_the_most_popular_items_leaves_popularity_a_full_list(fold):
    hot = frozenset(f"i{n}" for n in range(8))
    _, ranking = ranked(fold, [Request(10, exclude=hot), Request(10)])
    popular = ranking.expert_rows["popularity"]
    assert [len(shown(rows)) for rows in popular] == [10, 10]
    assert not {int(id[1:]) for id in map(fold.preprocess.items.id, popular[0])} & set(range(8))


def test_scores_are_those_of_the_mixture_and_fall(fold):
    contexts, ranking = ranked(fold)
    expected = fold.model.mixture.scores(ranking.features)
    there = ranking.rows != NO_ROW
    np.testing.assert_allclose(ranking.scores[there], expected[there], atol=1e-5)
    assert (ranking.scores[~there] == -np.inf).all()
    for b in range(len(contexts)):
        own = ranking.scores[b][there[b]]
        assert (np.diff(own) <= 0).all()
        assert len(own) > 1
        assert own[0] > own[-1]


def test_the_features_of_a_list_stay_with_their_items(fold):
    _, ranking = ranked(fold)
    column = fold.recommender.features.names.index("item.log_events")
    there = ranking.rows != NO_ROW
    events = fold.model.popularity.events[ranking.rows[there]]
    order = np.argsort(events, kind="stable")
    assert (np.diff(ranking.features[there][order, column]) >= 0).all()
    assert len(np.unique(events)) > 5


@pytest.mark.parametrize("n", [1, 10, 40, 41, 500])
def test_a_longer_list_than_the_experts_usually_give_is_filled(fold, n):
    assert small().mixture.candidates == 10 < fold.eligible().sum() < 41
    contexts, ranking = ranked(fold, n=n)
    excluded = np.diff(contexts.excluded_starts)
    for b in range(len(contexts)):
        assert len(shown(ranking.rows[b])) >= min(n, fold.eligible().sum() - excluded[b])


def test_a_catalogue_smaller_than_a_list_is_no_error():
    fold = learner(checkerboard(5), small(mixture={"candidates": 50})).fold
    assert fold.n_items < 10
    _, ranking = ranked(fold, [Request(10, "u0"), Request(10)], 10)
    assert [len(shown(rows)) for rows in ranking.rows] == [fold.n_items] * 2


def test_who_had_everything_gets_an_empty_list():
    fold = learner([event for event in ratings(400) if event.user_id == "u4"]).fold
    _, ranking = ranked(fold, [Request(10, "u4"), Request(10)])
    assert shown(ranking.rows[0]) == []
    assert (ranking.scores[0] == -np.inf).all()
    assert len(shown(ranking.rows[1])) == fold.n_items


def test_before_the_first_event_there_is_nothing_to_rank():
    fold = Fold(small())
    _, ranking = ranked(fold)
    assert (ranking.rows == NO_ROW).all()
    assert (ranking.scores == -np.inf).all()
    assert ranking.features.shape == (*ranking.rows.shape, len(fold.recommender.features))
    assert list(ranking.expert_rows) == list(EXPERTS)
    assert fold.recommender.popular(5, fold.withheld()) == ([], [])


def test_listed_items_are_ranked_where_that_is_enough_only():
    new = [Item(f"i{n}", title="new") for n in range(100, 103)]
    seen = learner([*checkerboard(200), *new], small(recommend={"catalogue": "seen"})).fold
    listed = learner([*checkerboard(200), *new], small()).fold
    asked = [Request(200, "u0")]
    assert not {100, 101, 102} & set(numbers(seen, ranked(seen, asked, 200)[1].rows[0]))
    found = ranked(listed, asked, 200)[1]
    assert {100, 101, 102} < set(numbers(listed, found.rows[0]))
    assert np.isfinite(found.features[0][found.rows[0] >= 0]).all()


def test_ranking_changes_nothing(fold):
    before = state_digest(fold.state())
    ranked(fold, n=60)
    fold.recommender.popular(10, fold.withheld())
    assert state_digest(fold.state()) == before


def test_the_same_question_has_the_same_answer(fold):
    one, other = ranked(fold)[1], ranked(fold)[1]
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.scores, other.scores)


# --- what is popular -----------------------------------------------------------------------------


def test_the_popular_items_come_in_order_of_their_share(fold):
    rows, shares = fold.recommender.popular(7, fold.withheld())
    scores = fold.model.popularity.scores()
    assert rows == sorted(range(fold.n_items), key=lambda row: (-scores[row], row))[:7]
    assert shares == scores[rows].tolist()
    assert np.mean([int(fold.preprocess.items.id(row)[1:]) < 8 for row in rows]) == 1.0


def test_what_is_withheld_is_not_popular(fold):
    withheld = fold.withheld()
    rows, _ = fold.recommender.popular(3, withheld)
    withheld[rows[1]] = True
    assert rows[1] not in fold.recommender.popular(50, withheld)[0]
    named = fold.model.popularity.eligible() & fold.eligible()
    assert len(fold.recommender.popular(50, withheld)[0]) == named.sum() - 1
    assert fold.recommender.popular(0, withheld) == ([], [])


@pytest.mark.parametrize("leaders", [3, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
def test_what_is_popular_is_the_first_of_all_that_may_be_shown(monkeypatch, leaders, share):
    monkeypatch.setattr(_leaders, "_LEADERS", leaders)
    fold = learned()
    scores = fold.model.popularity.scores()
    withheld = np.random.default_rng(0).random(len(scores)) < share
    order = [row for row in np.lexsort((np.arange(len(scores)), -scores)) if not withheld[row]]
    order = [row for row in order if scores[row] > 0]
    for n in (1, 10, len(scores)):
        rows, shares = fold.recommender.popular(n, withheld)
        assert rows == order[:n]
        np.testing.assert_allclose(shares, scores[rows], rtol=1e-12)


@pytest.mark.parametrize("n", [1, 5, 20, 500])
def test_what_is_served_is_the_head_of_the_whole_ranking(fold, n):
    contexts, ranking = ranked(fold, n=20)
    served = fold.recommender.rank(contexts, fold.withheld(), 20, whole=False)
    np.testing.assert_array_equal(served.rows, ranking.rows[:, :20])
    few = first(ranking.rows, ranking.scores, ranking.features, n)
    for found, whole in zip(few, (ranking.rows, ranking.scores, ranking.features), strict=True):
        np.testing.assert_array_equal(found, whole[:, :n])


def test_of_equal_scores_what_stands_before_is_served_before():
    rng = np.random.default_rng(0)
    scores = rng.integers(4, size=(50, 30)).astype(np.float32)
    rows = np.tile(np.arange(30, dtype=np.int32), (50, 1))
    features = rng.random((50, 30, 3)).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :7]
    best, of_best, seen = first(rows, scores, features, 7)
    np.testing.assert_array_equal(best, order)
    np.testing.assert_array_equal(of_best, np.take_along_axis(scores, order, axis=1))
    np.testing.assert_array_equal(seen, np.take_along_axis(features, order[:, :, None], axis=1))
