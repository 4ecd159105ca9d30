from __future__ import annotations

from math import log1p, sqrt

import numpy as np
import pytest

from headwater.config import Content as Settings
from headwater.deploy import state_digest
from headwater.model import Content
from tests.model.arrays import contexts, copied


def described(items, window=3, tokens=4, postings=100):
    """The expert after items were put: a list of (row, token rows)."""
    found = Content(Settings(window=window, tokens=tokens, postings=postings))
    put(found, items)
    return found


def put(found, items):
    width = max((len(tokens) for _, tokens in items), default=0)
    padded = np.full((len(items), max(width, 1)), -1, np.int32)
    for place, (_, tokens) in enumerate(items):
        padded[place, : len(tokens)] = tokens
    rows = np.array([row for row, _ in items], np.int32)
    found.grow(int(rows.max(initial=-1)) + 1)
    found.describe(rows, padded)


def random_items(n, seed=0):
    rng = np.random.default_rng(seed)
    return [(row, rng.permutation(9)[: rng.integers(0, 6)].tolist()) for row in range(n)]


class Plain:
    """The formula by dictionaries: idf, unit vectors, and a history's sum of them."""

    def __init__(self, items, window=3, tokens=4):
        self.window = window
        self.tokens = {row: found[:tokens] for row, found in items}
        self.described = sum(bool(found) for found in self.tokens.values())

    def vector(self, row):
        weights = {}
        for token in self.tokens.get(row, []):
            frequency = sum(token in found for found in self.tokens.values())
            weights[token] = log1p(self.described / frequency)
        norm = sqrt(sum(weight**2 for weight in weights.values()))
        return {token: weight / norm for token, weight in weights.items()}

    def likeness(self, row, other):
        one, two = self.vector(row), self.vector(other)
        return sum(weight * two.get(token, 0.0) for token, weight in one.items())

    def score(self, history, row):
        newest_first = list(reversed(history[-self.window :]))
        return sum(self.likeness(j, row) / sqrt(d) for d, j in enumerate(newest_first, start=1))

    def idf(self, token):
        frequency = sum(token in found for found in self.tokens.values())
        return log1p(self.described / frequency)

    def evidence(self, history, row):
        newest_first = list(reversed(history[-self.window :]))
        own = self.vector(row)
        rare = 0.0
        for d, j in enumerate(newest_first, start=1):
            shared = {
                token: weight * own.get(token, 0.0) for token, weight in self.vector(j).items()
            }
            rare += sum(s for t, s in shared.items() if self.idf(t) > log1p(200)) / sqrt(d)

        def rarest(of_items):
            shared = own.keys() & {token for j in of_items for token in self.tokens[j]}
            return max(map(self.idf, shared), default=0.0) / log1p(self.described)

        return [self.score(history, row), rare, rarest(newest_first), rarest(newest_first[:1])]


HISTORIES = [[], [3], [1, 2], [0, 0, 5, 6], [7, 8, 9, 10, 11, 4]]


def every(n):
    return np.tile(np.arange(n, dtype=np.int32), (len(HISTORIES), 1))


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_formula(seed):
    items = random_items(20, seed)
    found, plain = described(items), Plain(items)
    expected = [[plain.score(history, row) for row in range(20)] for history in HISTORIES]
    np.testing.assert_allclose(
        found.weigh(contexts(HISTORIES)).scores(every(20)), expected, atol=1e-5
    )


def test_evidence_tells_what_few_items_have_from_what_many_have():
    # All have token 0, one in 50 has token 1, and two each have one of the others.
    items = [(row, [0, *([1] if row % 50 == 0 else []), 2 + row // 2]) for row in range(500)]
    found, plain = described(items), Plain(items)
    histories, rows = [[], [3, 0, 2, 7], [100]], [1, 6, 50, 9, 100]
    told = found.weigh(contexts(histories)).evidence(np.tile(np.array(rows, np.int32), (3, 1)))
    expected = [[plain.evidence(history, row) for row in rows] for history in histories]
    np.testing.assert_allclose(told, expected, atol=1e-5)
    assert not told[0].any()
    _, rare, rarest, of_last = told[1].T
    assert (rare > 0).tolist() == [True, True, False, False, False]
    assert rarest[0] == rarest[1] > rarest[2] > rarest[3] > 0
    assert of_last[1] > of_last[0] == of_last[3] > 0


def test_a_new_description_replaces_the_old_one():
    items = random_items(20)
    changed = dict([*items, (3, [0, 1]), (5, []), (6, [8])])
    found, plain = described(items), Plain(changed.items())
    put(found, [(3, [7]), (5, []), (3, [0, 1]), (6, [8])])
    expected = [[plain.score(history, row) for row in range(20)] for history in HISTORIES]
    np.testing.assert_allclose(
        found.weigh(contexts(HISTORIES)).scores(every(20)), expected, atol=1e-5
    )


def test_a_forgotten_item_is_like_nothing():
    items = random_items(20)
    found = described(items)
    found.forget(np.array([1, 6], np.int32))
    plain = Plain([(row, [] if row in (1, 6) else tokens) for row, tokens in items])
    expected = [[plain.score(history, row) for row in range(20)] for history in HISTORIES]
    np.testing.assert_allclose(
        found.weigh(contexts(HISTORIES)).scores(every(20)), expected, atol=1e-5
    )
    rows, _ = found.weigh(contexts(HISTORIES)).best(np.zeros(20, np.bool_), 20)
    assert not np.isin(rows, [1, 6]).any()


def test_candidates_are_the_best_scores_in_order():
    items = random_items(20)
    found = described(items)
    asked = contexts(HISTORIES, excluded=[[], [0], [1, 2, 3], [5, 5, 11], []])
    withheld = np.zeros(20, np.bool_)
    withheld[[4, 6]] = True
    scores = found.weigh(asked).scores(every(20))
    for k in (1, 4, 30):
        rows, best = found.weigh(asked).best(withheld, k)
        assert rows.shape == best.shape == (5, k)
        for b in range(5):
            start, stop = asked.excluded_starts[b : b + 2]
            barred = {*asked.excluded[start:stop].tolist(), 4, 6}
            allowed = [row for row in range(20) if row not in barred and scores[b, row] > 0]
            shown = rows[b][rows[b] >= 0].tolist()
            assert len(shown) == len(set(shown)) == min(k, len(allowed))
            assert set(shown) <= set(allowed)
            assert best[b, : len(shown)].tolist() == scores[b, shown].tolist()
            expected = sorted(scores[b, allowed].tolist(), reverse=True)[:k]
            assert best[b, : len(shown)].tolist() == expected


def test_candidates_are_the_newest_items_of_a_token():
    found = described([(row, [0]) for row in range(10)], postings=3)
    rows, _ = found.weigh(contexts([[0]])).best(np.zeros(10, np.bool_), 10)
    assert {row for row in rows[0].tolist() if row >= 0} == {7, 8, 9}


def test_an_item_that_is_put_again_and_again_takes_no_others_place():
    found = described([(row, [0]) for row in range(4)], postings=4)
    for _ in range(10):
        put(found, [(2, [0, 1])])
    rows, _ = found.weigh(contexts([[0]])).best(np.zeros(4, np.bool_), 10)
    assert {row for row in rows[0].tolist() if row >= 0} == {0, 1, 2, 3}


def test_a_source_is_the_history_item_that_most_of_the_score_comes_from():
    items = random_items(20)
    found, plain = described(items), Plain(items)
    history = [2, 7, 1]
    sources = found.weigh(contexts([[], history])).sources(every(20)[:2])
    assert (sources[0] == -1).all()
    for row, source in enumerate(sources[1].tolist()):
        shares = {
            j: plain.likeness(j, row) / sqrt(d) for d, j in enumerate(reversed(history), start=1)
        }
        best = max(shares.values())
        assert source == -1 if best == 0 else shares[source] == pytest.approx(best)


def test_without_descriptions_nothing_is_like_anything():
    found = described([(row, []) for row in range(5)])
    asked = contexts([[1], []])
    rows, _ = found.weigh(asked).best(np.zeros(5, np.bool_), 3)
    assert (rows == -1).all()
    assert not found.weigh(asked).evidence(every(5)[:2]).any()
    assert (found.weigh(asked).sources(every(5)[:2]) == -1).all()


def test_asking_changes_nothing():
    found = described(random_items(20))
    before = state_digest(found.state())
    asked = contexts(HISTORIES, excluded=[[0]] * 5)
    found.weigh(asked).best(np.zeros(20, np.bool_), 5)
    found.weigh(asked).scores(every(20))
    found.weigh(asked).sources(every(20))
    assert state_digest(found.state()) == before


def test_how_tables_grow_makes_no_difference():
    items = random_items(30)
    one, other = described(items), described(items[:1])
    for item in items[1:]:
        put(other, [item])
    assert state_digest(one.state()) == state_digest(other.state())


def test_a_loaded_state_goes_on_as_the_one_that_was_saved():
    items = random_items(30)
    one = described(items[:15])
    other = Content(Settings(window=3, tokens=4, postings=100))
    other.load(copied(one.state()))
    for found in (one, other):
        put(found, items[15:])
    assert state_digest(one.state()) == state_digest(other.state())


def test_a_row_that_another_item_has_now_is_posted_under_its_own_tokens_alone():
    found = described([(row, [0, 1]) for row in range(4)], postings=4)
    found.forget(np.array([1, 3], np.int32))
    put(found, [(1, [1, 2])])
    postings = found.state()["postings"]
    assert [sorted(rows[rows >= 0].tolist()) for rows in postings] == [[0, 2], [0, 1, 2], [1]]
    rows, _ = found.weigh(contexts([[0]])).best(np.zeros(4, np.bool_), 10)
    assert {row for row in rows[0].tolist() if row >= 0} == {0, 1, 2}


def test_a_token_that_an_item_loses_lists_it_no_more():
    found = described([(0, [0]), (1, [0])])
    put(found, [(0, [1])])
    assert found.state()["postings"][0].tolist().count(0) == 0
    assert 1 in found.state()["postings"][0]


def test_tokens_that_no_item_has_are_given_up():
    found = described([(0, [0, 1]), (1, [1, 2])])
    assert found.forget_unused().tolist() == []
    found.forget(np.array([0], np.int32))
    put(found, [(1, [2])])
    assert found.forget_unused().tolist() == [0, 1]
    state = found.state()
    assert state["posted"].tolist() == [0, 0, 1]
    assert (state["postings"][:2] == -1).all()
