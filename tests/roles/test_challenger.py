"""The challenger role: a trial from its addition to its end, whoever stops in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headwater.config import Config, overridden
from headwater.deploy import Challengers, Snapshots
from headwater.errors import InvalidInput
from headwater.evaluate import verdict
from headwater.log.gains import GainsLog
from headwater.log.memory import MemoryUpdatesLog
from headwater.log.sqlite import SqliteUpdatesLog
from headwater.loop import Fold, Follower, Learner, _shadow
from headwater.roles import challenger as role
from headwater.roles.challenger import Arena, said_of, wanted
from headwater.types import Canary, Challenger, Lift, Promotion, Trial
from tests.loop.streams import NOW, events_log, learn_all, small, views


class System:
    """What the roles of one data folder share; the live trainer learns when it is told to."""

    def __init__(self, data: Path, *, n: int = 1_500, events: int = 10_000) -> None:
        self.data = data
        self.config = small(
            deploy={"snapshot_events": 500}, challengers={"share": 1.0, "events": events}
        )
        self.events = events_log(views(n))
        self.updates = MemoryUpdatesLog()
        self.gains = GainsLog(data / "gains.db")
        self.challengers = Challengers(data / "challengers")
        self.live = self.learner()
        learn_all(self.live)
        # So that every challenger begins at the start, and is compared from there on.
        Snapshots(data / "snapshots", 1).clear()

    def learner(self) -> Learner:
        live = Learner(
            self.config,
            self.events,
            self.updates,
            self.data / "snapshots",
            challengers=self.data / "challengers",
        )
        live.on_gains = self.gains.add
        return live

    def arena(self, kind: type[Arena] = Arena) -> Arena:
        return kind(self.config, self.data, self.events, self.gains)

    def add(self, settings: dict[str, Any], **named: Any) -> int:
        how = {"policy": "better", "delta": 0.0, "by": "a test", "why": "to see", **named}
        return self.challengers.add(settings, **how).number

    def trial(self, number: int) -> Trial:
        return next(t for c, t in self.challengers.listed() if c.number == number)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., System]]:
    monkeypatch.setattr(role, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(role, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(role, "TAKEN_OVER_SECONDS", 0.2)
    made: list[System] = []

    def system(**named: Any) -> System:
        made.append(System(tmp_path, **named))
        return made[-1]

    yield system
    for one in made:
        one.gains.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_challenger_that_is_shown_to_be_no_worse_is_promoted(make: Any) -> None:
    system = make()
    number = system.add({"mixture.candidates": 19}, policy="not-worse", delta=0.5)
    assert wanted(system.data)
    system.arena().run()
    trial = system.trial(number)
    assert (trial.state, trial.ended_at is not None) == ("promoted", True)
    assert trial.why.startswith("no worse by 50.0%: NDCG@10 ")
    (record,) = system.events.promotions(0)
    assert isinstance(record.entry, Promotion)
    assert (record.entry.challenger, record.entry.by) == (number, "headwater")
    assert record.entry.settings == {"mixture.candidates": 19}
    assert not wanted(system.data)
    assert system.challengers.snapshots(number).is_dir(), "the live model hasn't taken it over"
    learn_all(system.live)
    assert system.live.version == 2
    system.arena().run()
    assert not system.challengers.snapshots(number).is_dir()


def test_a_challenger_is_promoted_once_it_has_come_to_where_the_live_model_is(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon it is shown to be good: what it lacks would have to be learned meanwhile."""
    monkeypatch.setattr(_shadow, "KEEPING_UP", 0)
    system = make(n=3_000)
    shown: list[int] = []

    class Looks(Arena):
        def _judged(self, challenger: Challenger, shadow: Any) -> Trial | None:
            if verdict(shadow.trial.sums, challenger.margin) == "better":
                shown.append(shadow.trained_through)
            return super()._judged(challenger, shadow)

    number = system.add({"mixture.candidates": 19}, policy="not-worse", delta=0.5)
    system.arena(Looks).run()
    trial = system.trial(number)
    assert trial.state == "promoted"
    assert shown[0] < 2_000, "it was to be seen before"
    assert trial.trained_through == system.live.trained_through == 3_000


def test_a_challenger_that_is_shown_to_be_worse_is_retired(make: Any) -> None:
    system = make()
    number = system.add({"mixture.candidates": 19}, delta=1.0)
    system.arena().run()
    trial = system.trial(number)
    assert (trial.state, trial.why.split(":")[0]) == ("retired", "shown not to be better by 100.0%")
    assert trial.lift is not None
    assert trial.lift.high is not None
    assert trial.lift.high < 1.5
    assert system.events.promotions(0) == []
    assert not system.challengers.snapshots(number).exists()


def test_a_challenger_that_nothing_is_shown_of_is_retired_in_the_end(make: Any) -> None:
    system = make(events=1_000)
    number = system.add({"mixture.candidates": 20})  # as the live model has it
    system.arena().run()
    trial = system.trial(number)
    assert trial.state == "retired"
    assert trial.why.startswith("not shown to be better: NDCG@10 +0.0% (")
    assert 1_000 <= trial.sums.n < 1_100


def running(arena: Arena) -> threading.Thread:
    thread = threading.Thread(target=arena.run, daemon=True)
    thread.start()
    return thread


def test_a_trial_goes_on_where_it_was_stopped(make: Any) -> None:
    system = make(events=100_000)
    number = system.add({"mixture.candidates": 20})
    for length in (1_500, 2_000):
        arena = system.arena()
        thread = running(arena)
        until(lambda: system.trial(number).trained_through == length)  # noqa: B023
        arena.stop()
        thread.join(30.0)
        assert system.trial(number).state == "running"
        system.events.append(views(500, start=1_500), NOW)
        learn_all(system.live)
    sums = system.trial(number).sums
    assert 1_500 < sums.n <= 2_000
    assert sums.challenger == pytest.approx(sums.live), "each event counted once, and for both"


@pytest.mark.parametrize("how", ["retired", "promoted"])
def test_a_trial_ends_as_somebody_orders(how: str, make: Any) -> None:
    system = make(events=100_000)
    number = system.add({"mixture.candidates": 20})
    arena = system.arena()
    thread = running(arena)
    until(lambda: system.trial(number).sums.n > 0)
    if how == "retired":
        system.challengers.retire(number, "ops", "")
    else:
        order = Promotion(f"challenger-{number}", number, {"mixture.candidates": 20}, "ops", "now")
        system.events.append([order], NOW)
    thread.join(30.0)
    assert not thread.is_alive()
    trial = system.trial(number)
    assert trial.state == how
    assert trial.why == ("ops" if how == "retired" else "ops: now")
    assert trial.lift is not None, "how it did is still to be seen"
    assert trial.lift.n == trial.sums.n > 0


def test_a_challenger_that_cannot_run_is_retired_with_the_reason_and_the_next_one_runs(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = make(events=1_000)
    first = system.add({"sequence.dim": 4})
    second = system.add({"mixture.candidates": 19}, delta=0.9)
    fold = Fold.batch
    monkeypatch.setattr(
        Fold,
        "batch",
        lambda self, records: 1 / 0 if self.config.sequence.dim == 4 else fold(self, records),
    )
    system.arena().run()
    assert system.trial(first).state == "retired"
    assert "ZeroDivisionError" in system.trial(first).why
    assert system.trial(second).why.startswith("shown not to be better by 90.0%")


def test_a_challenger_that_fails_keeps_what_was_compared(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = make()
    number = system.add({"mixture.candidates": 20})
    monkeypatch.setattr(role, "LOOK_SECONDS", 0.0)
    fold = Fold.batch
    monkeypatch.setattr(
        Fold, "batch", lambda self, records: 1 / (records[0].offset < 1_000) and fold(self, records)
    )
    system.arena().run()
    trial = system.trial(number)
    assert (trial.state, trial.why) == ("retired", "ZeroDivisionError: division by zero")
    assert trial.lift.n == trial.sums.n > 0
    assert trial.compared_through > 500


def test_a_canary_lasts_from_when_the_challenger_keeps_up_until_its_trial_ends(make: Any) -> None:
    system = make(events=100_000)
    number = system.add({"mixture.candidates": 19}, canary=0.25)
    thread = running(system.arena())
    until(lambda: system.challengers.canary() is not None)
    canary = system.challengers.canary()
    assert (canary.number, canary.settings) == (number, {"mixture.candidates": 19})
    assert canary.share == 0.25
    until(lambda: system.trial(number).canary_since is not None)
    with closing(SqliteUpdatesLog(system.challengers.updates(number))) as updates:
        until(lambda: updates.end() > 0)
        follower = Follower(
            overridden(system.config, canary.settings),
            system.events,
            updates,
            system.challengers.snapshots(number),
        )
        system.events.append(views(100, start=1_500), NOW)
        learn_all(system.live)

        def follows() -> bool:
            follower.catch_up()
            return follower.trained_through == 1_600

        until(follows)
        assert follower.version == -number
    system.challengers.retire(number, "ops", "no more")
    thread.join(30.0)
    assert system.challengers.canary() is None
    assert not system.challengers.updates(number).exists()
    assert system.trial(number).canary_since is not None


def test_a_challenger_that_is_to_serve_nobody_begins_no_canary(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = make(events=1_000)
    begun: list[Any] = []
    monkeypatch.setattr(Challengers, "begin_canary", lambda self, canary: begun.append(canary))
    system.add({"mixture.candidates": 20})
    system.arena().run()
    assert begun == []


def test_a_canary_that_a_crash_left_behind_ends_with_its_trial(make: Any) -> None:
    system = make(events=100_000)
    number = system.add({"mixture.candidates": 20}, canary=0.5)
    system.challengers.begin_canary(Canary(number, {"mixture.candidates": 20}, 0.5))
    system.challengers.retire(number, "ops", "no more")
    system.arena().run()
    assert system.trial(number).state == "retired"
    assert system.challengers.canary() is None


# --- what is kept of them ------------------------------------------------------------------------


def test_what_makes_no_challenger_is_refused(make: Any) -> None:
    system = make(n=50)
    for settings, named, field in (
        ({"sequence.dim": 4}, {"delta": -0.1}, "delta"),
        ({"sequence.dim": 4}, {"delta": float("nan")}, "delta"),
        ({"sequence.dim": 4}, {"canary": 0.6}, "canary"),
        ({"sequence.dim": 4}, {"canary": float("nan")}, "canary"),
    ):
        with pytest.raises(InvalidInput) as caught:
            system.add(settings, **named)
        assert caught.value.field == field
    with pytest.raises(InvalidInput, match="there is none of that number"):
        system.challengers.retire(7, "ops", "")
    number = system.add({"sequence.dim": 4})
    with pytest.raises(InvalidInput, match="has no snapshot yet"):
        system.challengers.promotion(number, "ops", "")
    system.challengers.record(number, Trial(state="retired", ended_at=1.0))
    with pytest.raises(InvalidInput, match="was retired"):
        system.challengers.promotion(number, "ops", "")


def test_numbers_go_on_and_only_the_newest_are_listed(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.deploy import _challengers

    monkeypatch.setattr(_challengers, "KEPT", 3)
    challengers = make(n=50).challengers
    for n in range(1, 6):
        added = challengers.add({"sequence.dim": n}, policy="better", delta=0.0, by="", why="")
        assert added.number == n
        challengers.record(n, Trial(state="retired", ended_at=float(n)))
    challengers.add({"sequence.dim": 9}, policy="better", delta=0.0, by="", why="")
    assert [one.number for one, _ in challengers.listed()] == [4, 5, 6]


def test_a_folder_that_cannot_be_read_stops_no_supervisor(tmp_path: Path) -> None:
    assert not wanted(tmp_path)
    (tmp_path / "challengers" / "0001").mkdir(parents=True)
    assert not wanted(tmp_path), "it was being made"
    (tmp_path / "challengers" / "0001" / "challenger.json").write_text("{")
    assert not wanted(tmp_path)


def test_a_lift_in_words() -> None:
    assert said_of(Lift(9_000, 0.12, 0.1, 0.2, 0.15, None)) == (
        "NDCG@10 +20.0% (+15.0% to ?) over 9,000 events"
    )
    assert said_of(None) == "no gain of the live model in 0 events"


def test_the_margin_of_a_policy() -> None:
    fields: dict[str, Any] = {"settings": {}, "by": "", "why": "", "created_at": 0.0}
    assert Challenger(1, policy="better", delta=0.02, **fields).margin == 0.02
    assert Challenger(1, policy="not-worse", delta=0.02, **fields).margin == -0.02
    assert Config().challengers.share == 0.5
