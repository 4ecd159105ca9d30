"""What goes with an item, and who is like a user."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.loop import Fold
from headwater.recommend import similar_users
from headwater.types import NO_ROW, Request
from tests.recommend.learned import NOW, learned


@pytest.fixture(scope="module")
def fold() -> Fold:
    return learned()


def asked(fold: Fold, item_id: str, n: int = 10, exclude=(), withheld=None):
    alone = Request(n, session_items=(item_id,), exclude=frozenset({item_id, *exclude}))
    contexts = fold.preprocess.contexts([alone], NOW)
    barred = fold.withheld() if withheld is None else withheld
    return contexts, barred, fold.recommender.similar_items(contexts, barred, n)


def test_what_the_same_users_like_goes_together(fold):
    for item in ("i4", "i9"):
        _, _, found = asked(fold, item)
        others = [int(fold.preprocess.items.id(row)[1:]) for row, _, _ in found]
        assert len(set(others)) == 10
        assert int(item[1:]) not in others
        assert sum(other % 2 == int(item[1:]) % 2 for other in others) >= 9


def test_lists_are_fused_by_reciprocal_rank(fold):
    model, n_items = fold.model, fold.n_items
    contexts, withheld, found = asked(fold, "i6", n=n_items)
    k = fold.config.recommend.max_n
    assert k > n_items
    lists = {
        name: [row for row in expert.weigh(contexts).best(withheld, k)[0][0] if row != NO_ROW]
        for name, expert in model.from_history.items()
        if name != "habits"
    }
    vectors = model.sequence.tower.vectors()[:n_items, :-1]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    item = fold.preprocess.items.find("i6")
    cosines = vectors @ vectors[item]
    near = [row for row in np.argsort(-cosines) if cosines[row] > 0 and row != item]
    lists["sequence"] = [row for row in near if not withheld[row]]
    assert set(lists) == {"transitions", "neighbours", "precedents", "content", "sequence"}
    assert all(lists.values())
    expected: dict[int, float] = {}
    for rows in lists.values():
        for place, row in enumerate(rows, start=1):
            expected[row] = expected.get(row, 0.0) + 61 / (60 + place) / len(lists)
    assert {row: pytest.approx(score, abs=4e-6) for row, score, _ in found} == expected
    scores = [score for _, score, _ in found]
    assert scores == sorted(scores, reverse=True)
    for row, score, reasons in found:
        assert score == pytest.approx(sum(reason.contribution for reason in reasons))
        assert {reason.expert for reason in reasons} == {
            name for name, rows in lists.items() if row in rows
        }
        shares = [reason.contribution for reason in reasons]
        assert shares == sorted(shares, reverse=True)
        assert 0 < score <= 1


def test_nothing_that_is_withheld_or_excluded_is_listed(fold):
    _, withheld, before = asked(fold, "i4", n=60)
    first, second = before[0][0], before[1][0]
    withheld = withheld.copy()
    withheld[first] = True
    _, _, after = asked(fold, "i4", 60, [fold.preprocess.items.id(second)], withheld)
    assert {row for row, _, _ in before} - {row for row, _, _ in after} == {first, second}


def test_a_shorter_list_is_the_beginning_of_a_longer_one(fold):
    _, _, long = asked(fold, "i4", n=12)
    _, _, short = asked(fold, "i4", n=5)
    assert short == long[:5]


def test_an_item_that_nothing_is_known_of_goes_with_nothing(fold):
    nothing = fold.preprocess.contexts([Request(5)], NOW)
    assert fold.recommender.similar_items(nothing, fold.withheld(), 5) == []
    assert asked(fold, "i4", withheld=np.ones(fold.n_items, np.bool_))[2] == []


def test_similarity_is_the_cosine_and_above_nothing():
    others = np.array([[0, 1], [3, 0], [0, 0], [-1, 0], [1, 1], [7, 0]], np.float32)
    found = similar_users(np.array([2, 0], np.float32), others, 9)
    assert [place for place, _ in found] == [1, 5, 4]
    assert [similarity for _, similarity in found] == pytest.approx([1, 1, 0.5**0.5])
    assert similar_users(np.array([2, 0], np.float32), others, 1) == [(1, 1.0)]
    assert similar_users(np.zeros(2, np.float32), others, 9) == []
    assert similar_users(np.ones(2, np.float32), others[:0], 9) == []


def test_users_of_one_taste_are_alike(fold):
    active = fold.preprocess.active(20, NOW)
    one = fold.preprocess.contexts([Request(1, "u3")], NOW)
    found = [
        (fold.preprocess.users.id(row), similarity)
        for row, similarity in fold.recommender.similar_users(one, active, 20)
    ]
    assert found[0][0] == "u3"
    assert found[0][1] == pytest.approx(1.0, abs=1e-5)
    nearest = [int(name[1:]) for name, _ in found[1:6]]
    assert all(user % 2 for user in nearest)
