from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from headwater.preprocess import joined, taken
from headwater.types import Batch, Contexts
from tests.model.arrays import batches, small, stream


def one() -> Batch:
    """Ratings, so that lists of exclusions differ in length; the first is empty."""
    random = np.random.default_rng(3)
    rows = [
        (f"u{random.integers(4)}", f"i{random.integers(9)}", 60.0 * k, "rating") for k in range(40)
    ]
    return batches(small(), stream(rows))[0][0]


def same(found: Batch, wanted: Batch) -> None:
    for record, other in ((found, wanted), (found.contexts, wanted.contexts)):
        for field in fields(record):
            if field.name != "contexts":
                value, expected = getattr(record, field.name), getattr(other, field.name)
                assert np.array_equal(value, expected), field.name
                assert np.asarray(value).dtype == np.asarray(expected).dtype, field.name


def excluded(contexts: Contexts, b: int) -> list[int]:
    rows: list[int] = contexts.excluded[slice(*contexts.excluded_starts[b : b + 2])].tolist()
    return rows


@pytest.mark.parametrize("cut", [0, 1, 17, 40])
def test_what_is_taken_apart_and_joined_is_the_same(cut: int) -> None:
    batch = one()
    parts = [taken(batch, np.arange(cut)), taken(batch, np.arange(cut, 40))]
    same(joined(parts), batch)


def test_each_row_keeps_its_own_exclusions_in_any_order() -> None:
    batch = one()
    rows = np.array([30, 0, 12, 12])
    found = taken(batch, rows)
    assert found.items.tolist() == batch.items[rows].tolist()
    for place, row in enumerate(rows.tolist()):
        assert excluded(found.contexts, place) == excluded(batch.contexts, row)
    assert len(excluded(found.contexts, 0)) > 1
    assert excluded(found.contexts, 1) == []
