from __future__ import annotations

import numpy as np
import pytest

from headwater.preprocess._tokens import tokens_of
from headwater.types import Item


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [(8.0, 15.99, True), (7.99, 8.0, False), (0.3, 0.49, True), (1e-300, 1e300, False)],
)
def test_prices_of_one_band_have_one_token(one, other, alike):
    found = [tokens_of(Item("i", price=price), 16) for price in (one, other)]
    assert (found[0] == found[1]) is alike


def test_what_costs_nothing_is_in_no_band():
    assert tokens_of(Item("i", price=0.0), 16) == tokens_of(Item("i"), 16) == []


def shared(one, other):
    found = [set(tokens_of(Item("i", vectors={"image": list(v)}), 16)) for v in (one, other)]
    assert len(found[0]) == len(found[1]) == 4
    return len(found[0] & found[1])


def test_the_nearer_two_vectors_are_the_more_tokens_they_share():
    random = np.random.default_rng(0)
    means = []
    for noise in (0.0, 0.1, 0.5, 3.0):
        vectors = random.normal(size=(200, 32))
        near = vectors + noise * random.normal(size=vectors.shape)
        means.append(np.mean([shared(*pair) for pair in zip(vectors, near, strict=True)]))
    assert means[0] == 4.0
    assert means == sorted(means, reverse=True)
    assert means[1] > 2.5
    assert means[3] < 0.5


def test_only_the_direction_of_a_vector_counts():
    vector = np.random.default_rng(1).normal(size=8)
    for scale in (1e-300, 1e300):
        assert shared(vector, scale * vector) == 4
    assert tokens_of(Item("i", vectors={"image": [0.0, 0.0]}), 16) == []
    assert len(set(tokens_of(Item("i", vectors={"a": [1.0], "b": [1.0]}), 16))) == 8


def test_words_come_last_where_there_is_no_room_for_all():
    item = Item("i", title="Tent", categories=("camp",), price=99.0, vectors={"v": [1.0, -2.0]})
    assert tokens_of(item, 6)[:2] == ["category:camp", "price:6"]
    assert all(token.startswith("vector:v:") for token in tokens_of(item, 6)[2:])
    assert tokens_of(item, 7)[-1] == "word:tent"
