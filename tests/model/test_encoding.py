"""User vectors without a framework beside those of the encoder that is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.model._encoder import GAP_BUCKETS, Encoder
from headwater.model._encoding import Encoding, gap_buckets, nearest

DIM, LENGTH, TYPES = 12, 20, 3


def encoder(layers, heads=3, seed=0):
    torch.manual_seed(seed)
    found = Encoder(DIM, layers, heads, LENGTH, TYPES)
    with torch.no_grad():
        for weight in found.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return found


def histories(lengths, seed):
    """Items (their numbers don't matter), types, gaps, and a vector of each event."""
    rng = np.random.default_rng(seed)
    shape = (len(lengths), LENGTH)
    there = np.arange(LENGTH) >= LENGTH - np.array(lengths)[:, None]
    items = np.where(there, rng.integers(50, size=shape), -1).astype(np.int32)
    types = np.where(there, rng.integers(TYPES, size=shape), 0).astype(np.uint8)
    gaps = np.where(there, rng.integers(GAP_BUCKETS, size=shape), 0).astype(np.uint8)
    vectors = rng.normal(size=(int(there.sum()), DIM + 1)).astype(np.float32)
    return items, types, gaps, vectors


def by_torch(found, items, types, gaps, vectors):
    of_columns = np.zeros((*items.shape, DIM), np.float32)
    of_columns[items >= 0] = vectors[:, :-1]
    with torch.inference_mode():
        users = found(
            torch.from_numpy(of_columns),
            torch.from_numpy(items >= 0),
            torch.from_numpy(types.astype(np.int64)),
            torch.from_numpy(gaps.astype(np.int64)),
            torch.full((len(items), 1), LENGTH - 1),
        )
    return users[:, 0].numpy()


@pytest.mark.parametrize(("layers", "heads"), [(0, 1), (1, 1), (1, 3), (3, 2)])
@given(lengths=st.lists(st.integers(0, LENGTH), min_size=1, max_size=9), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_they_are_those_of_the_encoder(layers, heads, lengths, seed):
    found = encoder(layers, heads, seed)
    asked = histories(lengths, seed)
    users = Encoding(found).encode(*asked)
    np.testing.assert_allclose(users[:, :-1], by_torch(found, *asked), atol=2e-5, rtol=1e-4)
    assert (users[:, -1] == 1.0).all()


def test_what_the_encoder_learns_is_seen_at_once():
    found = encoder(1)
    encoding, asked = Encoding(found), histories([3, 20, 0], 0)
    before = encoding.encode(*asked)
    with torch.no_grad():
        for weight in found.parameters():
            weight.mul_(0.5)
    after = encoding.encode(*asked)
    assert (after[:2, :-1] != before[:2, :-1]).any(axis=1).all()
    np.testing.assert_allclose(after[:, :-1], by_torch(found, *asked), atol=2e-5)


def test_the_weights_of_a_history_sum_to_1_and_an_empty_column_has_none():
    items, types, gaps, _ = histories([4, 0, 20], 1)
    weights = Encoding(encoder(1)).weights(items, types, gaps)
    np.testing.assert_allclose(weights.sum(axis=1), [1, 0, 1], rtol=1e-6)
    assert not weights[items < 0].any()
    assert (weights[items >= 0] > 0).all()


@given(lengths=st.lists(st.integers(0, LENGTH), min_size=1, max_size=5), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_nearest_is_the_item_whose_weighted_vector_has_the_largest_product(lengths, seed):
    items, types, gaps, vectors = histories(lengths, seed)
    weights = Encoding(encoder(1)).weights(items, types, gaps)
    rng = np.random.default_rng(seed)
    candidates = rng.normal(size=(len(lengths), 7, DIM + 1)).astype(np.float32)
    of_columns = np.zeros((*items.shape, DIM), np.float32)
    of_columns[items >= 0] = vectors[:, :-1]
    products = np.einsum("bl,bld,bcd->bcl", weights, of_columns, candidates[:, :, :-1])
    products[np.broadcast_to((items < 0)[:, None], products.shape)] = -np.inf
    expected = np.take_along_axis(items, products.argmax(axis=2), axis=1)
    np.testing.assert_array_equal(nearest(items, weights, vectors, candidates), expected)


def test_buckets_of_times_to_the_next_event():
    items = np.array([[-1, -1, 5, 6, 7]], np.int32)
    times = np.array([[0.0, 0.0, 100.0, 100.0, 110.0]])
    found = gap_buckets(times, items, np.array([1e12]))
    expected = [0, 0, 0, int(np.log1p(10) / np.log(3) + 0.5), GAP_BUCKETS - 1]
    assert found.tolist() == [expected]
    before = gap_buckets(times, items, np.array([50.0]))
    assert before[0, -1] == 0, "a request that is behind the newest event came at once"
