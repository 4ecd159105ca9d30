"""The formulas that Headwater grew from, on the expert that serves.

A user is a weighted sum of behaviours, u = sum_t w_t x_t with sum_t w_t = 1; an item is a weighted
sum of features, i = sum_j w_j i_j; the score is u . i. With no transformer layers, the sequence
expert is these formulas, the bias and the item's own row aside.
"""

from __future__ import annotations

import numpy as np
import pytest

from headwater.config import Content as ContentSettings
from headwater.config import Sequence as Settings
from headwater.model import Content, SequenceExpert
from headwater.types import TableRows
from tests.model.arrays import LENGTH, contexts, examples

VIEW, PURCHASE = 1, 2


def nothing():
    """What is known of items: nothing."""
    return Content(ContentSettings())


def linear_expert(vectors, dim=4, **weights):
    """An expert without layers, whose item rows and history weights are the given ones."""
    found = SequenceExpert(Settings(dim=dim, layers=0), LENGTH, np.zeros(3, np.bool_), nothing(), 0)
    found.grow(len(vectors))
    found.tower.items.put(
        TableRows(np.arange(len(vectors), dtype=np.int32), np.array(vectors, np.float32))
    )
    learned = found.dense.values()
    own = {f"sequence.{name}": np.array(value, np.float32) for name, value in weights.items()}
    assert own.keys() <= learned.keys()
    found.dense.put(own)
    return found


def put_tokens(found, tokens_of, rows):
    """Gives items tokens, and these the rows."""
    for item, tokens in tokens_of.items():
        found.tower.content.describe(np.array([item], np.int32), np.array([tokens], np.int32))
    found.tower.describe(np.array([*tokens_of], np.int32))
    values = np.zeros((len(rows), found.tower.tokens.dim), np.float32)
    values[:, : rows.shape[1]] = rows
    found.tower.tokens.put(TableRows(np.arange(len(rows), dtype=np.int32), values))


def random_vectors(n, dim=4):
    return np.random.default_rng(0).normal(size=(n, dim + 1))


HISTORIES = [[0], [3, 1, 2], [5, 5, 4, 0, 7, 6, 1], list(range(8)) * 2, []]


@pytest.mark.parametrize("learned", [False, True])
def test_a_user_is_a_weighted_sum_of_behaviours(learned):
    weights = {}
    if learned:
        rng = np.random.default_rng(1)
        sizes = {"recency": LENGTH, "type_weight": 3, "gap_weight": 16}
        weights = {name: rng.normal(size=size) for name, size in sizes.items()}
    vectors = random_vectors(8)
    found = linear_expert(vectors, **weights)
    kinds = [[VIEW, PURCHASE] * 8] * len(HISTORIES)
    asked = contexts(HISTORIES, types=[k[: len(h)] for k, h in zip(kinds, HISTORIES, strict=True)])
    users, w = found.encode(asked)[:, :-1], found.history_weights(asked)
    for b, history in enumerate(HISTORIES):
        x = vectors[history[-LENGTH:], :-1]
        w_t = w[b, LENGTH - len(x) :]
        assert w[b].sum() == pytest.approx(1.0 if history else 0.0, abs=1e-6)
        assert (w_t > 0).all()
        np.testing.assert_allclose(users[b], w_t @ x, atol=1e-5)


def test_the_weights_are_a_softmax_of_recency_type_and_gap():
    rng = np.random.default_rng(1)
    recency, kind, gap = rng.normal(size=LENGTH), rng.normal(size=3), rng.normal(size=16)
    found = linear_expert(random_vectors(8), recency=recency, type_weight=kind, gap_weight=gap)
    asked = contexts([[4, 2, 6]], types=[[VIEW, PURCHASE, VIEW]])
    asked.history_times[0, -3:] = asked.times[0] - np.array([90_000.0, 3_600.0, 5.0])
    seconds = np.array([86_400.0, 3_595.0, 5.0])
    buckets = np.floor(np.log(1.0 + seconds) / np.log(3.0) + 0.5).astype(int)
    logits = recency[[2, 1, 0]] + kind[[VIEW, PURCHASE, VIEW]] + gap[buckets]
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found.history_weights(asked)[0, -3:], expected, rtol=1e-5)


def test_the_score_is_the_inner_product_of_user_and_item_and_a_bias():
    vectors = random_vectors(8)
    found = linear_expert(vectors)
    asked = contexts(HISTORIES)
    users = found.encode(asked)
    scores = found.scores(users, np.tile(np.arange(8, dtype=np.int32), (len(HISTORIES), 1)))
    np.testing.assert_allclose(
        scores, users[:, :-1] @ vectors[:, :-1].T + vectors[:, -1], atol=1e-5
    )


def test_an_item_is_a_weighted_sum_of_features_and_its_own_row():
    vectors, features = random_vectors(4), np.random.default_rng(1).normal(size=(6, 5))
    found = linear_expert(vectors)
    tokens_of = {0: [2], 1: [4, 0, 5], 3: [1, 2, 3, 5]}
    put_tokens(found, tokens_of, features)
    for item in range(4):
        tokens = tokens_of.get(item, [])
        w_j = np.full(len(tokens), 1 / np.sqrt(max(len(tokens), 1)))
        expected = vectors[item] + w_j @ features[tokens]
        np.testing.assert_allclose(found.tower.vectors()[item], expected, atol=1e-5)
    users = found.encode(contexts([[1, 3]]))
    vectors = found.tower.vectors()
    scores = found.scores(users, np.arange(4, dtype=np.int32)[None])
    np.testing.assert_allclose(
        scores, users[:, :-1] @ vectors[:, :-1].T + vectors[:, -1], atol=1e-5
    )


def test_the_worked_example_scores_1_92():
    # A purchase weighs half as much again as a view: w = (3/5, 2/5) after the softmax.
    behaviours = np.array([[2.0, 0.0], [0.0, 2.0]])
    rows = [[*behaviours[0], 0, 0, 0], [*behaviours[1], 0, 0, 0], [0, 0, 0, 0, 0]]
    found = linear_expert(
        rows,
        recency=np.zeros(LENGTH),
        gap_weight=np.zeros(16),
        type_weight=np.log([1.0, 0.4, 0.6]),
    )
    asked = contexts([[0, 1]], types=[[PURCHASE, VIEW]])
    # A film with the features "comedy" and "drama", of equal weight, and no row of its own.
    features, feature_weights = np.array([[1.4, 0.6], [0.2, 1.8]]), np.array([[0.5], [0.5]])
    put_tokens(found, {2: [0, 1]}, feature_weights * np.sqrt(2) * features)
    np.testing.assert_allclose(found.tower.vectors()[2], [0.8, 1.2, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.history_weights(asked)[0, -2:], [0.6, 0.4], rtol=1e-6)
    users = found.encode(asked)
    np.testing.assert_allclose(users[0], [1.2, 0.8, 0, 0, 1], rtol=1e-6)
    score = found.scores(users, np.array([[2]], np.int32))
    assert score[0, 0] == pytest.approx(1.92, rel=1e-6)


def test_a_layer_adds_to_the_formula():
    plain = SequenceExpert(Settings(dim=4, layers=0), LENGTH, np.zeros(3, np.bool_), nothing(), 0)
    deep = SequenceExpert(Settings(dim=4, layers=1), LENGTH, np.zeros(3, np.bool_), nothing(), 0)
    for found in (plain, deep):
        found.grow(8)
    asked = contexts(HISTORIES[:4])
    assert np.abs(plain.encode(asked) - deep.encode(asked)).max(axis=1).min() > 1e-4
    np.testing.assert_array_equal(plain.history_weights(asked), deep.history_weights(asked))


def test_the_weights_are_learned():
    # What comes next is always the item bought, however many were viewed since.
    found = SequenceExpert(
        Settings(dim=8, layers=0, learning_rate=0.05), LENGTH, np.zeros(3, np.bool_), nothing(), 0
    )
    found.grow(20)
    rng = np.random.default_rng(0)

    def lesson():
        histories = rng.integers(20, size=(50, 4))
        made = examples(histories.tolist(), histories[:, 0].tolist())
        made.types[:, -4] = PURCHASE
        return made

    for _ in range(80):
        found.step(lesson(), np.arange(20, dtype=np.int32), None, 1.0).take()
    weights = found.history_weights(contexts([[1, 2, 3, 4]], types=[[PURCHASE, VIEW, VIEW, VIEW]]))
    assert weights[0, -4] > 0.8
