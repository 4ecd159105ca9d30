"""Two models on the same events: who is better, whenever one looks."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from headwater.evaluate import ALPHA, compared, lift, verdict
from headwater.evaluate._comparison import _BETS, _evidence
from headwater.types import Comparison, Doubles


def gains(random: np.random.Generator, n: int, hit: float) -> Doubles:
    """NDCG@10 of ``n`` events: mostly none, else that of a place among ten."""
    places = random.integers(0, 10, n)
    return np.where(random.random(n) < hit, 1.0 / np.log2(places + 2.0), 0.0)


def sums_of(challenger: Doubles, live: Doubles) -> Comparison:
    return compared(Comparison(), challenger, live)


def test_the_order_and_the_size_of_batches_do_not_matter() -> None:
    random = np.random.default_rng(0)
    challenger, live = gains(random, 900, 0.3), gains(random, 900, 0.3)
    sums = Comparison()
    for start in range(0, 900, 90):
        sums = compared(sums, challenger[start : start + 90], live[start : start + 90])
    whole = sums_of(challenger, live)
    assert sums.n == whole.n == 900
    assert sums.products == pytest.approx(whole.products)
    assert _evidence(sums, 0.1, 1.0) == pytest.approx(_evidence(whole, 0.1, 1.0))


@pytest.mark.parametrize("margin", [-0.5, 0.0, 0.3])
def test_evidence_does_not_grow_on_average_where_there_is_nothing_to_find(margin: float) -> None:
    """E[e] <= 1 for gains of a challenger whose lift is the margin; exactly, not by drawing."""
    live = np.array([0.0, 0.5, 0.0, 0.6])
    # At each of the four events the challenger has one of two gains, with the mean it should.
    means = (1.0 + margin) * live
    for sign in (1.0, -1.0):
        total = 0.0
        for choice in range(16):
            high = np.array([choice >> k & 1 for k in range(4)], bool)
            chance = np.where(high, means, 1.0 - means).prod()
            total += chance * exp(_evidence(sums_of(high.astype(float), live), margin, sign))
        assert total <= 1.0


def test_models_that_are_alike_are_told_apart_as_seldom_as_promised() -> None:
    random = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        sums = Comparison()
        for _ in range(40):
            sums = compared(sums, gains(random, 100, 0.3), gains(random, 100, 0.3))
            if verdict(sums, 0.0) is not None:
                wrong += 1
                break
    assert wrong <= ALPHA * 200


def test_a_better_model_is_found_and_a_worse_one_too() -> None:
    random = np.random.default_rng(2)
    live = gains(random, 8_000, 0.3)
    better = np.where(random.random(8_000) < 0.06, 1.0, live)
    assert verdict(sums_of(better, live), 0.0) == "better"
    assert verdict(sums_of(live, better), 0.0) == "worse"
    assert verdict(sums_of(better, live), 0.36) is None
    assert verdict(sums_of(better, live), 1.0) == "worse"
    assert verdict(sums_of(live[:50], live[:50]), 0.0) is None


def test_not_worse_is_shown_of_a_model_that_is_the_same() -> None:
    live = gains(np.random.default_rng(3), 8_000, 0.3)
    assert verdict(sums_of(live, live), -0.05) == "better"
    assert verdict(sums_of(live, live), 0.0) is None


def test_the_interval_holds_the_lift_and_narrows() -> None:
    random = np.random.default_rng(4)
    live = gains(random, 20_000, 0.3)
    noise = random.random(20_000)
    challenger = np.where(noise < 0.05, 1.0, np.where(noise < 0.1, 0.0, live))
    truth = (0.05 + 0.9 * live.mean()) / live.mean() - 1.0
    widths = []
    for n in (1_000, 5_000, 20_000):
        sums = sums_of(challenger[:n], live[:n])
        found = lift(sums)
        assert found.low is not None
        assert found.high is not None
        assert found.value is not None
        assert found.low < truth < found.high
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
        # An end is where the test of that lift is just decided: what is shown is what decides.
        assert verdict(sums, found.low - 1e-6) == "better"
        assert verdict(sums, found.low + 1e-6) is None
        assert verdict(sums, found.high + 1e-6) == "worse"
        assert verdict(sums, found.high - 1e-6) is None
    assert widths == sorted(widths, reverse=True)


def test_before_there_is_anything_to_say_nothing_is_said() -> None:
    nothing = lift(Comparison())
    assert (nothing.n, nothing.value, nothing.low, nothing.high) == (0, None, None, None)
    assert verdict(Comparison(), 0.0) is None
    zeros = np.zeros(500)
    found = lift(sums_of(zeros, zeros))
    assert (found.n, found.value, found.low) == (500, None, None)
    assert 0 < _BETS.min() < _BETS.max() < 1
