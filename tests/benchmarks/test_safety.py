"""The safety benchmark: poisons are what they say, and a run measures clean users alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.safety import gate, measuring, poison, trials
from benchmarks.safety.measuring import recovery, run
from benchmarks.safety.trials import FAKE, PUSHED, TRIALS
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
    assert poisoned("silent") == []
    for name, likes, users in (
        ("1 % fake users push an item", 10, 10),
        ("10 fake users push an item", 100, 10),
        ("one user pushes an item", 100, 1),
    ):
        pushed = poisoned(name)
        fakes = [event for event in pushed if event.user_id.startswith(FAKE)]
        assert (len(fakes), len({event.user_id for event in fakes})) == (likes, users)
        assert len({event.event_id for event in fakes}) == likes
        assert {event.item_id for event in fakes} == {PUSHED}
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
    assert found["shown"] == 0.0


def test_goals_are_of_what_is_left_and_of_how_often_a_pushed_item_is_shown() -> None:
    def found(left: float, shown: float) -> dict[str, Any]:
        one = {"left": left, "shown": shown}
        return {"trials": {"one": {"guarded": one, "unguarded": one}}}

    assert not poison.missed(found(0.91, 0.04))
    assert poison.missed(found(0.89, 0.0))
    assert poison.missed(found(1.0, 0.06))
    rolled_back = found(0.5, 0.9)
    rolled_back["trials"]["one"]["rolled back"] = {"left": 0.95, "shown": 0.0}
    assert not poison.missed(rolled_back)


@pytest.mark.parametrize("lift", [0.0, 0.05])
def test_drawn_gains_have_the_lift_that_is_asked_for(lift: float) -> None:
    random = np.random.default_rng(0)
    one = random.random(5_000) * (random.random(5_000) < 0.3)
    other = np.where(random.random(5_000) < 0.2, random.random(5_000), one)
    draws = [gate.drawn(one, other, lift, random) for _ in range(50)]
    means = [challenger.mean() / live.mean() - 1.0 for challenger, live in draws]
    assert np.mean(means) == pytest.approx(lift, abs=0.004)
    assert all(((a + b) > 0).any() and a.shape == (gate.EVENTS,) for a, b in draws)


def test_the_gate_finds_what_is_much_better_and_not_what_is_the_same() -> None:
    live = np.tile([0.0, 0.0, 1.0, 0.5], gate.EVENTS // 4)
    assert gate.promoted(live, live) is None
    better = np.tile([1.0, 0.0, 1.0, 0.5], gate.EVENTS // 4)
    found = gate.promoted(better, live)
    assert found is not None
    assert found % 100 == 0
    assert gate.missed({"alike": {"runs": 100, "promoted": 2}, "better": {}})
