from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import Deploy
from headwater.deploy import check
from headwater.errors import GuardTripped
from headwater.types import TableRows, Update

SETTINGS = Deploy(row_norm_limit=10.0, dense_limit=5.0)


def update(values=((3.0, 4.0), (6.0, 8.0)), dense=(5.0, -5.0)) -> Update:
    array = np.array(values, np.float32).reshape(-1, 2)
    return Update(
        epoch=0,
        sequence=1,
        trained_through=2,
        batch_ends=(2,),
        tables={
            "empty": TableRows(np.zeros(0, np.int32), np.zeros((0, 4), np.float32)),
            "items": TableRows(np.arange(len(array), dtype=np.int32) + 70, array),
        },
        tombstones={},
        dense={"none": np.zeros((0, 3), np.float32), "bias": np.array(dense, np.float32)},
    )


def trip(given: Update) -> GuardTripped:
    with pytest.raises(GuardTripped) as caught:
        check(given, SETTINGS)
    return caught.value


def test_what_is_at_the_limits_passes():
    check(update(), SETTINGS)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_trips(poison):
    in_rows = trip(update(values=((3.0, 4.0), (1.0, poison))))
    assert in_rows.guard == "finite"
    assert in_rows.reason == f"table items, row 71, column 1 is {poison}"
    in_dense = trip(update(dense=(0.0, 0.0, poison)))
    assert in_dense.guard == "finite"
    assert in_dense.reason == f"dense weight bias[2] is {poison}"


def test_a_long_row_trips_and_the_longest_is_named():
    tripped = trip(update(values=((0.0, 10.1), (1.0, 0.0), (9.0, 12.0))))
    assert tripped.guard == "row_norm"
    assert tripped.reason == "table items, row 72 has norm 15, above deploy.row_norm_limit = 10"


def test_a_row_whose_square_overflows_is_long_not_infinite():
    tripped = trip(update(values=((1e30, 0.0),)))
    assert tripped.guard == "row_norm"
    assert "norm 1e+30" in tripped.reason


@pytest.mark.parametrize("weight", [5.5, -5.5])
def test_a_large_dense_weight_trips_either_way(weight):
    tripped = trip(update(dense=(1.0, weight)))
    assert tripped.guard == "dense"
    assert tripped.reason == f"dense weight bias[1] is {weight}, beyond deploy.dense_limit = 5"


def test_dense_weights_of_several_axes_are_checked():
    given = update()
    given.dense["cube"] = np.zeros((2, 3, 4), np.float32)
    check(given, SETTINGS)
    given.dense["cube"][1, 2, 3] = 7.0
    assert "cube[23] is 7" in trip(given).reason


@given(
    st.lists(st.floats(width=32), min_size=2, max_size=8).filter(lambda rows: len(rows) % 2 == 0),
    st.lists(st.floats(width=32), max_size=4),
)
def test_trips_exactly_where_a_plain_reading_of_the_limits_does(values, dense):
    given = update(values=values, dense=dense)
    array = given.tables["items"].values.astype(np.float64)
    norms = np.sqrt((array**2).sum(axis=1))
    fit = (
        bool(np.isfinite(array).all() and (norms <= 10.0).all())
        and all(np.isfinite(dense))
        and all(abs(weight) <= 5.0 for weight in dense)
    )
    near = np.isclose(norms, 10.0, rtol=1e-5).any()
    if not near:
        if fit:
            check(given, SETTINGS)
        else:
            trip(given)
