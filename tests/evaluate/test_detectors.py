"""ADWIN on the hit rate and Page-Hinkley on the losses: what they tell of, and when."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from headwater.deploy import state_digest
from headwater.evaluate import HitRate, Losses
from headwater.evaluate._detectors import DELTA, THRESHOLD, TOLERATED, PageHinkley, adwin
from headwater.types import Doubles, StreamChange


class Predictions:
    """Hits at random, handed on in batches."""

    def __init__(self, size: int = 100) -> None:
        self.random = np.random.default_rng(3)
        self.rate = HitRate()
        self.size = size
        self.offset = 0

    def run(self, n: int, share: float) -> list[StreamChange]:
        hits = (self.random.random(n) < share).astype(np.float64)
        offsets = self.offset + 1 + np.arange(n)
        self.offset += n
        found = []
        for start in range(0, n, self.size):
            part = slice(start, start + self.size)
            found += self.rate.observe(offsets[part], hits[part])
        return found


def test_a_fall_of_the_hit_rate_is_told_once_and_a_rise_is_not() -> None:
    predictions = Predictions()
    assert predictions.run(15_000, 0.2) == []
    (fall,) = predictions.run(6_000, 0.08)
    assert (fall.what, 15_000 < fall.offset < 16_000) == ("hit_rate", True)
    assert 0.2 < fall.size < 0.6
    assert "20." in fall.reason or "19." in fall.reason
    assert fall.reason.endswith("% before (ADWIN)")
    assert predictions.run(6_000, 0.3) == []


def test_where_batches_end_and_a_restart_make_no_difference_to_hits() -> None:
    one, other = Predictions(100), Predictions(37)
    for n, share in ((12_000, 0.2), (9_000, 0.22), (1_200, 0.05), (700, 0.05)):
        found = one.run(n, share)
        loaded = HitRate()
        loaded.load({name: array.copy() for name, array in other.rate.state().items()})
        other.rate = loaded
        assert other.run(n, share) == found
        assert state_digest(one.rate.state()) == state_digest(other.rate.state())


def test_what_is_remembered_of_hits_is_bounded() -> None:
    predictions = Predictions()
    for _ in range(6):
        assert predictions.run(10_000, 0.2) == []
        assert len(predictions.rate.state()["hits"]) <= 20_000


def test_the_window_is_that_of_rivers_adwin() -> None:
    """Its engine is taken by a name of its own, that another version may not have."""
    from river.drift import ADWIN

    window, theirs = adwin(), ADWIN(delta=DELTA)
    assert window is not None
    random = np.random.default_rng(0)
    found = []
    for k, hit in enumerate(np.repeat([0.2, 0.05, 0.3], 1_500) > random.random(4_500)):
        theirs.update(float(hit))
        assert window.update(float(hit)) == theirs.drift_detected
        if theirs.drift_detected:
            found.append(k)
            window = adwin()
            assert window is not None
    assert len(found) >= 2


def test_without_river_nothing_is_told_of_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river._river_rust.drift", None)
    predictions = Predictions()
    assert predictions.run(5_000, 0.2) + predictions.run(5_000, 0.01) == []
    assert not len(predictions.rate.state()["hits"])


def rising(seed: int, *, by: float, at: int = 200, n: int = 400) -> Doubles:
    values = np.random.default_rng(seed).normal(1.6, 0.03, n)
    values[at:] += by
    return values


@pytest.mark.parametrize("seed", range(5))
def test_page_hinkley_is_rivers(seed: int) -> None:
    from river.drift import PageHinkley as Theirs

    values = rising(seed, by=0.1)
    warm = values[:50]
    error = np.sqrt((np.diff(warm) ** 2).sum() / (2 * 49))
    test = PageHinkley()
    theirs = Theirs(min_instances=1, delta=TOLERATED, threshold=THRESHOLD, alpha=1.0, mode="up")
    rang = None
    for k, value in enumerate(values.tolist()):
        found = test.update(value)
        if k >= 50:
            theirs.update(value / error)
            assert (found is not None) == theirs.drift_detected
        if found is not None:
            rang = k
            assert 0.0 < found < 0.2
            break
    assert rang is not None
    assert 200 <= rang < 220


def told(values: Doubles, *, size: int = 100, name: str = "mixture") -> list[StreamChange]:
    """Of these losses, by micro-batches of so many events; the other loss stays as it is."""
    losses = Losses(("sequence", "mixture"))
    found = []
    parts = max(100 // size, 1)
    for k, loss in enumerate(np.exp(np.repeat(values, parts)).tolist()):
        of = {"sequence": (3.0, 50), "mixture": (3.0, 50), name: (loss, 50)}
        found += losses.observe(of, size, (k + 1) * size)
        again = Losses(("sequence", "mixture"))
        again.load({name: array.copy() for name, array in losses.state().items()})
        losses = again
    return found


@pytest.mark.parametrize("name", ["sequence", "mixture"])
def test_a_loss_that_rises_is_told_and_one_that_falls_or_stays_is_not(name: str) -> None:
    (rise,) = told(rising(0, by=0.15), name=name)
    assert (rise.what, 20_000 < rise.offset <= 21_500) == ("loss", True)
    assert 1.0 < rise.size < 1.2
    assert rise.reason == (
        f"the {name} loss is {rise.size:.2f} times its running mean (Page-Hinkley)"
    )
    assert told(rising(0, by=0.0)) == []
    assert told(rising(0, by=-0.5)) == []


def test_small_micro_batches_are_taken_together() -> None:
    values = rising(1, by=0.15)
    assert told(values, size=20) == told(values)


def test_a_loss_of_no_examples_says_nothing() -> None:
    losses = Losses(("sequence",))
    for k in range(200):
        assert losses.observe({"sequence": (float("nan"), 0)}, 100, k) == []
    assert not losses.state()["test.sequence"].any()
