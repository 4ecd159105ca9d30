from __future__ import annotations

from statistics import mean, variance

import numpy as np
import pytest

from headwater.config import Optimize
from headwater.deploy import state_digest
from headwater.optimize import Optimizer

BATCHES = 20
"""Micro-batches of 100 predictions in a window."""


def optimizer(**settings):
    own = {"every": 100 * BATCHES, "learning_rate_factor": 1.5, "learning_rate_span": 4.0}
    return Optimizer(Optimize.model_validate(own | settings), ("sequence", "mixture"))


def window(found, level, seed=0, noise=0.1, offset=0, name="sequence", batches=BATCHES):
    """Feeds a window of losses around ``level``; returns the losses and the changes."""
    losses = np.random.default_rng(seed).normal(level, noise, batches).tolist()
    changes = []
    for n, loss in enumerate(losses):
        changes += found.observe({name: loss}, 100, offset + n)
    return losses, changes


def test_a_rate_starts_at_the_configured_value():
    found = optimizer()
    assert (found.rate("sequence"), found.rate("mixture")) == (1.0, 1.0)


def test_a_loss_that_rises_raises_the_rate_and_one_that_settles_brings_it_back():
    found = optimizer()
    seen = []
    for seed, level in enumerate([3.0, 3.0, 4.0, 4.0, 4.0]):
        window(found, level, seed)
        seen.append(found.rate("sequence"))
    assert seen == [1.0, 1.0, 1.5, 1.0, 1.0]
    assert found.rate("mixture") == 1.0, "the other part's loss said nothing"


@pytest.mark.parametrize(("span", "highest"), [(4.0, 4.0), (2.0, 2.0), (1.0, 1.0)])
def test_a_rate_stays_between_the_configured_one_and_its_span(span, highest):
    found = optimizer(learning_rate_span=span)
    seen = []
    for step in range(8):
        window(found, 3.0 + step, step)
        seen.append(found.rate("sequence"))
    assert max(seen) == highest
    assert seen == sorted(seen)
    for step in range(8):
        window(found, 3.0 - 0.1 * step, step)
        seen.append(found.rate("sequence"))
    assert seen[-1] == min(seen) == 1.0


def test_a_change_says_what_caused_it():
    found = optimizer()
    before, none = window(found, 3.0, 1)
    now, (change,) = window(found, 4.0, 2, offset=5000)
    assert none == []
    assert change.name == "sequence.learning_rate_factor"
    assert (change.before, change.after) == (1.0, 1.5)
    assert change.offset == 5000 + BATCHES - 1
    assert change.because == {
        "loss": pytest.approx(mean(now), abs=1e-6),
        "loss_before": pytest.approx(mean(before), abs=1e-6),
        "standard_error": pytest.approx(
            ((variance(now) + variance(before)) / BATCHES) ** 0.5, abs=1e-5
        ),
    }
    _, (back,) = window(found, 4.0, 3, offset=6000)
    assert (back.before, back.after) == (1.5, 1.0)


def test_nothing_that_stays_as_it_is_is_a_change():
    found = optimizer()
    changes = [change for seed in range(10) for change in window(found, 3.0 - 0.3 * seed, seed)[1]]
    assert changes == []


def test_noise_alone_rarely_raises_a_rate():
    found = optimizer()
    raised = [
        change
        for seed in range(600)
        for change in window(found, 3.0, seed, noise=0.5)[1]
        if change.after > change.before
    ]
    assert len(raised) <= 600 * 0.02


def test_a_rise_smaller_than_the_noise_isnt_seen_and_a_larger_one_is():
    for rise, seen in ((0.02, False), (0.2, True)):
        found = optimizer()
        window(found, 3.0, 1)
        window(found, 3.0 + rise, 2)
        assert (found.rate("sequence") > 1.0) == seen


def test_it_looks_once_in_so_many_predictions():
    found = optimizer()
    window(found, 3.0)
    window(found, 9.0, batches=BATCHES - 1)
    assert found.rate("sequence") == 1.0
    assert found.observe({"sequence": 9.0}, 99, 1) == []
    assert len(found.observe({"sequence": 9.0}, 1, 2)) == 1


def test_batches_without_predictions_or_losses_move_nothing():
    found = optimizer()
    for level in (3.0, 9.0):
        for _ in range(BATCHES):
            assert found.observe({"sequence": level, "mixture": level}, 0, 1) == []
    other = optimizer()
    for _ in range(5 * BATCHES):
        assert other.observe({"sequence": float("nan"), "mixture": float("inf")}, 100, 1) == []
    assert other.rate("sequence") == other.rate("mixture") == 1.0


def test_a_single_loss_is_no_evidence():
    found = optimizer()
    window(found, 3.0)
    assert found.observe({"sequence": 9.0}, 100 * BATCHES, 1) == []


def test_losses_that_are_not_numbers_are_left_out():
    one, other = optimizer(), optimizer()
    for level, seed in ((3.0, 1), (4.0, 2)):
        for loss in window(one, level, seed)[0]:
            other.observe({"sequence": float("nan")}, 0, 1)
            other.observe({"sequence": loss}, 100, 1)
    assert other.rate("sequence") == one.rate("sequence") == 1.5


@pytest.mark.parametrize("place", [0, 5, BATCHES, BATCHES + 7, 2 * BATCHES])
def test_a_loaded_state_goes_on_as_the_one_that_was_saved(place):
    losses = [3.0 + 0.01 * n for n in range(BATCHES)] + [4.0 + 0.01 * n for n in range(2 * BATCHES)]
    one, other = optimizer(), optimizer()
    for loss in losses[:place]:
        one.observe({"sequence": loss, "mixture": -loss}, 100, 1)
    other.load({name: value.copy() for name, value in one.state().items()})
    for loss in losses[place:]:
        said = [
            found.observe({"sequence": loss, "mixture": -loss}, 100, 2) for found in (one, other)
        ]
        assert said[0] == said[1]
    assert one.rate("sequence") == other.rate("sequence")
    assert state_digest(one.state()) == state_digest(other.state())
