"""Calibration: what is given a probability comes next as often, or the error says by how much."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.config import Config
from headwater.evaluate import Evaluator, Outcomes, Report, compare
from headwater.evaluate._calibration import calibration_error, reliability
from headwater.types import NO_ROW, Ranking
from tests.evaluate.streams import EXPERTS, batch, ranking

N = 4_000


def outcomes(sharpness: float, n: int = N) -> Outcomes:
    """Lists of 20 whose items come next by the softmax of scores, which are told ``sharpness``
    times as large.
    """
    random = np.random.default_rng(2)
    scores = np.sort(random.normal(0.0, 2.0, (n, 20)), axis=1)[:, ::-1].astype(np.float32)
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    drawn = (np.cumsum(chances, axis=1) > random.random((n, 1))).argmax(axis=1)
    rows = np.tile(np.arange(20, dtype=np.int32), (n, 1))
    made = ranking(rows, **dict.fromkeys(EXPERTS, rows))
    made.scores = sharpness * scores
    return compare(EXPERTS, batch(drawn.tolist()), made, np.ones(20, np.int64), 20)


def test_probabilities_that_are_true_have_no_error_beyond_chance() -> None:
    sums = reliability(outcomes(1.0))
    error = calibration_error(sums)
    assert error.n == 10 * N
    assert error.low == pytest.approx(0.0, abs=1e-3)
    assert error.value < 0.005 < error.high < 0.05
    shares = sums[:, 2] / sums[:, 0]
    assert shares == pytest.approx(sums[:, 1] / sums[:, 0], abs=0.05)


@pytest.mark.parametrize("sharpness", [0.2, 4.0])
def test_too_sure_and_not_sure_enough_are_errors(sharpness: float) -> None:
    error = calibration_error(reliability(outcomes(sharpness)))
    assert 0.02 < error.low <= error.value <= error.high


def test_the_error_is_what_the_formula_says() -> None:
    sums = np.zeros((9, 3))
    sums[2], sums[8] = (300.0, 6.0, 3.0), (100.0, 80.0, 60.0)
    assert calibration_error(sums).value == pytest.approx(0.75 * 0.01 + 0.25 * 0.2)


def test_an_empty_and_a_short_list_count_for_what_they_show() -> None:
    rows = np.array([[3, 1, NO_ROW], [NO_ROW] * 3], np.int32)
    made = ranking(rows, **dict.fromkeys(EXPERTS, rows))
    made.scores = np.array([[1.0, 1.0, -np.inf], [-np.inf] * 3], np.float32)
    with np.errstate(all="raise"):
        found = compare(EXPERTS, batch([1, 2]), made, np.ones(5, np.int64), 5)
    assert found.confidence[0, :2].tolist() == [0.5, 0.5]
    assert np.isnan(found.confidence[0, 2:]).all()
    assert np.isnan(found.confidence[1]).all()
    assert reliability(found).sum(axis=0).tolist() == [2.0, 1.0, 1.0]


def _lists(n: int) -> Ranking:
    rows = np.tile(np.arange(12, dtype=np.int32), (n, 1))
    return ranking(rows, **dict.fromkeys(EXPERTS, rows))


def test_the_report_has_it_for_the_second_half() -> None:
    report = Report(EXPERTS)
    assert report.results(20)["calibration"] == {
        "n": 0,
        "ece@10": None,
        "low": None,
        "high": None,
        "bins": [],
    }
    for part in (outcomes(4.0, 1_000), outcomes(1.0, 1_000)):
        report.add(part)
    found = report.results(20)["calibration"]
    assert found["n"] == 10_000
    assert found["ece@10"] < 0.02
    assert sum(one["n"] for one in found["bins"]) == 10_000
    for one in found["bins"]:
        assert one["above"] <= one["predicted"] <= one["below"]


def test_the_evaluator_tells_it_and_keeps_it() -> None:
    evaluator = Evaluator(Config(), EXPERTS)
    assert evaluator.calibration() == []
    targets = batch(np.random.default_rng(0).integers(0, 12, 500).tolist())
    evaluator.observe(targets, _lists(500), np.ones(12, np.int64), 12)
    (found,) = evaluator.calibration()
    assert (found.window, found.segment) == ("newest", "calibration")
    assert found.values["mixture.ece@10"].value < 0.02
    above = found.values["mixture.observed@10.above_0.05"]
    assert above.low < 1 / 12 < above.high
    again = Evaluator(Config(), EXPERTS)
    again.load({name: array.copy() for name, array in evaluator.state().items()})
    assert again.calibration() == evaluator.calibration()
