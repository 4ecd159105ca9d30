"""The safety benchmark: poisons are what they say, and a run measures clean users alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.safety import measuring, trials
from benchmarks.safety.measuring import recovery, run
from benchmarks.safety.trials import FAKE, TRIALS
from headwater.types import Event

EVENTS = [Event(f"e{n}", "rating", f"u{n % 7}", float(n), f"i{n % 5}") for n in range(1_000)]


def poisoned(name: str) -> list[Event]:
    (trial,) = (trial for trial in TRIALS if trial.name == name)
    return trial.events(EVENTS, np.random.default_rng(0))


def test_poisons_are_what_they_say() -> None:
    assert poisoned("nothing") == EVENTS
    assert {event.type for event in poisoned("all negative")} == {"dislike"}
    flipped = [event.type == "dislike" for event in poisoned("10 % flipped")]
    assert 70 <= sum(flipped) <= 130
    assert {event.item_id for event in poisoned("all one item")} == {"pushed"}
    pushed = poisoned("1 % fake users push an item")
    fakes = [event for event in pushed if event.user_id.startswith(FAKE)]
    assert len({event.user_id for event in fakes}) == len(fakes) == 10
    assert [event for event in pushed if event not in fakes] == EVENTS


def test_recovery_is_the_first_stretch_that_is_as_good_again() -> None:
    assert recovery([0.1, 0.46, 0.2], [0.5, 0.5, 0.2]) == 500
    assert recovery([0.1], [0.5]) is None


@pytest.mark.parametrize("guarded", [True, False])
def test_a_run_counts_what_tripped_and_what_is_left(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "POISONED", 200)
    monkeypatch.setattr(measuring, "AFTER", 300)
    monkeypatch.setattr(measuring, "_STRETCH", 100)
    (trial,) = (trial for trial in trials.TRIALS if trial.name == "NaN in rows")
    found = run(trial, guarded, before=400)
    assert len(found["stretches"]) >= 3
    assert found["failed"] == ""
    assert found["tripped"] == ({"finite": 1} if guarded else {})
    assert (found["ndcg@10"] > 0.0) >= guarded
