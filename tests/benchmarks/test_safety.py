"""The safety benchmark: poisons are what they say, and a run measures clean users alone."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.safety import gate, measuring, poison, trials, tuning
from benchmarks.safety.figures import Figure, missed
from benchmarks.safety.measuring import Warm, recovery, run
from benchmarks.safety.swaps import SMALL
from benchmarks.safety.trials import FAKE, PUSHED, TRIALS
from headwater.config import Config
from headwater.log.gains import Gains
from headwater.types import Event, Promotion

ROOT = Path(__file__).parents[2]
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
    with Warm(guarded, 400) as warm:
        found = run(trial, warm)
    assert len(found["stretches"]) >= 3
    assert found["failed"] == ""
    assert found["tripped"] == ({"finite": 1} if guarded else {})
    assert (found["ndcg@10"] > 0.0) >= guarded
    assert found["shown"] == 0.0


def test_goals_are_of_what_is_left_and_of_how_often_a_pushed_item_is_shown() -> None:
    def found(left: float, shown: float) -> dict[str, Any]:
        one = {"left": left, "shown": shown}
        return {"trials": {"one": {"guarded": one, "unguarded": one}}}

    assert not missed(poison.figures(found(0.91, 0.04)))
    assert missed(poison.figures(found(0.89, 0.0)))
    assert missed(poison.figures(found(1.0, 0.06)))
    rolled_back = found(0.5, 0.9)
    rolled_back["trials"]["one"]["rolled back"] = {"left": 0.95, "shown": 0.0}
    assert not missed(poison.figures(rolled_back))


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
    assert missed(
        gate.figures(
            {
                "alike": {"runs": 100, "promoted": 2, "by_z": 9},
                "better": {"runs": 10, "promoted": 10, "by_z": 10},
            }
        )
    )


def test_a_figure_meets_its_goal_from_either_side() -> None:
    assert Figure("a", 0.5, "at most", 0.5).met
    assert not Figure("a", 0.51, "at most", 0.5).met
    assert Figure("a", 0.5, "at least", 0.5, peer=0.4, peer_name="b").row()["met"]
    assert not Figure("a", None, "at least", 0.0).met
    assert missed([Figure("a", 1, "at most", 0), Figure("b", 0, "at most", 0)]) == ["a"]


def test_a_z_test_that_is_looked_at_often_promotes_what_is_the_same() -> None:
    random = np.random.default_rng(0)
    pairs = [random.random((2, gate.EVENTS)) for _ in range(50)]
    assert sum(gate.by_z(*pair) for pair in pairs) > 2
    assert sum(gate.promoted(*pair) is not None for pair in pairs) == 0
    assert gate.by_z(np.ones(gate.EVENTS), pairs[0][0])


def test_a_tuner_is_run_beside_the_stream_by_the_role_of_challengers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Config.model_validate(
        {**SMALL, "deploy": {"snapshot_events": 500}, "challengers": {"share": 1.0}}
    )
    plain = tuning.run(config, 3_200, tune=False)
    tuned = tuning.run(config, 3_200, tune=True)
    assert not np.isnan(plain.gains[100:]).all()
    found = tuned.figures(plain)
    assert found["tried"] >= 1
    if not found["promoted"]:
        assert found["lift"] == 0.0
    assert 0.5 < found["end_of_default"] < 2.0


def test_gains_behind_a_promotion_are_those_of_their_events(tmp_path: Path) -> None:
    run = tuning.Run(Config.model_validate(SMALL), tmp_path, 900)
    with closing(run.written):
        assert run.advance()
        run.log.append([Promotion("one", 1, {}, "", "")], 2e9)
        assert run.advance(), "a promotion whose challenger isn't there leaves the live model"
        assert not run.advance()
        assert run.log.end() == 901
        run.live.on_gains = None
        run.gains[:] = np.nan
        run._note(Gains(500, 502, 1, np.array([500, 502]), np.array([0.25, 0.5])))
    assert run.gains[499] == 0.25
    assert run.gains[500] == 0.5
    assert np.isnan(run.gains).sum() == 898


POISONS = {
    "ten item rows of NaN": "NaN in rows",
    "learning rate": "learning rate × 100",
    "all negative": "all negative",
    "no event comes": "silent",
    "one event in ten negative": "10 % flipped",
    "all events name one item": "all one item",
    "1 % of the events": "1 % fake users push an item",
    "ten users like": "10 fake users push an item",
    "one user likes": "one user pushes an item",
}


def test_the_guide_for_operators_says_what_was_measured() -> None:
    guide = (ROOT / "docs/operations.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/safety.json").read_text())
    for start, name in POISONS.items():
        (row,) = [line for line in guide.splitlines() if line.startswith(f"| {start}")]
        _, _, guarded, unguarded, *_ = row.split("|")
        trial = found["poison"]["trials"][name]
        assert guarded.strip().startswith(f"{trial['guarded']['left']:.0%}".replace("%", " %"))
        if "rolled back" in trial:
            assert f"after a rollback {trial['rolled back']['left']:.0%}"[:-1] in guarded
        if unguarded.strip() != "the same":
            assert unguarded.strip().startswith(f"{trial['unguarded']['left']:.0%}"[:-1])
    rollback = found["rollback"]
    assert f"none of {rollback['small']['answers']:,} answers failed" in guide
    for version in ("newest", "oldest"):
        assert f"{rollback[version]['seconds']['most']:.2f} s" in guide
