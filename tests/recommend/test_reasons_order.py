"""The order of reasons, beside what numpy makes of them."""

from __future__ import annotations

import numpy as np

from headwater.recommend._reasons import largest_first
from headwater.types import NO_ROW


def test_shares_come_in_order_and_none_of_nothing():
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, 30, size=(5, 8)).astype(np.int32)
    # Equal shares, shares of nothing, and some that are nothing once they are rounded.
    shares = rng.choice([0.0, 2e-7, -0.25, 0.5, 0.1234567], size=(5, 8, 7)).astype(np.float32)
    sources = rng.integers(-1, 9, size=shares.shape).astype(np.int32)
    experts, said, from_where, ends = largest_first(rows, shares, sources)
    assert len(ends) == (rows != NO_ROW).sum()
    start = 0
    for (b, c), end in zip(np.argwhere(rows != NO_ROW), ends.tolist(), strict=True):
        rounded = shares[b, c].astype(np.float64).round(6)
        order = [e for e in np.argsort(-rounded, kind="stable") if rounded[e] != 0.0]
        assert experts[start:end].tolist() == order
        assert said[start:end].tolist() == rounded[order].tolist()
        assert from_where[start:end].tolist() == sources[b, c, order].tolist()
        start = end
    assert start == len(experts) == len(said) == len(from_where)


def test_of_no_items_there_are_no_reasons():
    found = largest_first(
        np.full((2, 3), NO_ROW, np.int32),
        np.ones((2, 3, 7), np.float32),
        np.zeros((2, 3, 7), np.int32),
    )
    assert [len(part) for part in found] == [0, 0, 0, 0]
