"""Guards in the loop: a bad step is never taken, and refolding comes to the same state."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.deploy import PAUSED, Snapshots, decode, state_digest
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Entry, Event, Held, Item, Resume
from tests.loop.streams import (
    NOW,
    all_updates,
    assert_equal,
    counted,
    events_log,
    learn_all,
    small,
    views,
)

PAUSE = small(deploy={"resume_batches": 2})


def held_of(updates: MemoryUpdatesLog) -> list[Held]:
    return [held for stored in all_updates(updates) for held in decode(stored.payload).held]


def without_watch(learner: Learner) -> str:
    state = learner.state()
    return state_digest({name: v for name, v in state.items() if not name.startswith("watch.")})


class WildLoss(Learner):
    """The loss of the batch through 500 is what ``wild`` says."""

    wild = float("nan")

    def learn(self, *arguments: Any, **named: Any) -> None:
        if self.trained_through == 400:
            begin = self.fold.model.sequence.begin

            def wild(*of: Any) -> Any:
                step = begin(*of)
                return lambda: dataclasses.replace(step(), loss=self.wild)

            self.fold.model.sequence.begin = wild  # type: ignore[method-assign,assignment]
        super().learn(*arguments, **named)
        self.fold.model.sequence.__dict__.pop("begin", None)


def test_a_step_of_a_wild_loss_is_not_taken_and_a_refold_agrees(tmp_path: Path) -> None:
    events, updates = events_log(views(1000)), MemoryUpdatesLog()
    learner = WildLoss(PAUSE, events, updates, tmp_path)
    learn_all(learner)
    held = held_of(updates)
    assert [(one.through, one.guard) for one in held] == [
        (500, "loss"),
        (600, PAUSED),
        (700, PAUSED),
    ]
    assert held[0].reason == "the sequence loss is nan"
    again = Learner(PAUSE, events, updates, tmp_path)
    assert (again.epoch, again.digest()) == (1, learner.digest())
    follower = Follower(PAUSE, events, updates, tmp_path)
    follower.catch_up()
    assert_equal(counted(follower), counted(learner))


def test_a_step_that_is_left_leaves_nothing_behind() -> None:
    """But for the watch, which saw it: as if the batch had been counted only."""
    learners = []
    for held in (None, Held(500, "loss", "")):
        learner = (WildLoss if held is None else Learner)(
            PAUSE, events_log(views(500)), MemoryUpdatesLog(), None
        )
        for end in range(100, 501, 100):
            records = learner._events.read(end - 100, 100)
            learner.learn(records, held=held if end == 500 else None)
        learners.append(learner)
    assert without_watch(learners[0]) == without_watch(learners[1])


class Fails(Learner):
    """The gradient of the batch through 300 raises an error, each time."""

    def learn(self, *arguments: Any, **named: Any) -> None:
        step = self.fold.model.mixture.step

        def failing(*of: Any) -> Any:
            if self.trained_through == 300:
                raise ZeroDivisionError("as it happens")
            return step(*of)

        self.fold.model.mixture.step = failing  # type: ignore[method-assign,assignment]
        try:
            super().learn(*arguments, **named)
        finally:
            self.fold.model.mixture.__dict__.pop("step", None)


@pytest.mark.parametrize("published", [True, False])
def test_a_batch_whose_step_fails_is_set_aside_with_its_reason(
    published: bool, tmp_path: Path
) -> None:
    events, updates = events_log(views(700)), MemoryUpdatesLog()
    learner = Fails(PAUSE, events, updates, tmp_path)
    while learner.step():
        if published or learner.trained_through > 300:
            learner.publish()
    trips = [one for one in held_of(updates) if one.guard != PAUSED]
    assert trips == [Held(300, "step", "ZeroDivisionError: as it happens")]
    assert learner.trained_through == 700
    again = Learner(PAUSE, events, updates, tmp_path)
    assert (again.epoch, again.digest()) == (1, learner.digest())


def test_a_stream_that_turns_negative_pauses_learning_and_is_reported(tmp_path: Path) -> None:
    log, updates = MemoryEventsLog(), MemoryUpdatesLog()
    learner = Learner(PAUSE, log, updates, tmp_path)
    parts: list[list[Entry]] = [
        views(1_500),
        views(200, start=1_500, type="dislike"),
        views(600, start=1_700),
    ]
    reports: list[dict[str, Any]] = []
    for part in parts:
        log.append(part, NOW)
        learn_all(learner)
        learner._reports._written_at = 0.0
        log.append([Event("tick" + str(len(reports)), "search", "u0", 1.0)], NOW)
        learn_all(learner)
        reports.append(msgspec.json.decode(all_updates(updates)[-1].report))
    assert [report["paused"] for report in reports] == [0, 2, 0]
    assert [report["guards"]["positive_share"] for report in reports] == [0, 3, 3]
    assert {one["guard"] for one in reports[-1]["tripped"]} == {"positive_share"}


def alerted(*parts: list[Entry]) -> list[tuple[str, Any]]:
    """What is told while views and then ``parts`` are learned, but for changes of the stream."""
    log, told = MemoryEventsLog(), list[tuple[str, Any]]()
    learner = Learner(PAUSE, log, MemoryUpdatesLog(), None)
    learner.on_alert = lambda what, numbers: told.append((what, dict(numbers)))
    for part in (views(1_500), *parts):
        log.append(part, NOW)
        learn_all(learner)
    return [one for one in told if one[0] != "the stream has changed"]


def test_a_pause_is_alerted_of_when_it_begins_and_when_it_ends() -> None:
    negative = views(500, start=1_500, type="dislike")
    found = alerted(negative, views(600, start=2_000))
    assert [what for what, _ in found] == ["guard tripped", "learning goes on"]
    assert (found[0][1]["guard"], found[0][1]["through"]) == ("positive_share", 1_600)
    assert found[1][1]["by"] == "headwater"
    assert 2_200 < found[1][1]["through"] <= 2_600
    again = views(500, start=2_600, type="dislike")
    whats = [what for what, _ in alerted(negative, views(600, start=2_000), again)]
    assert whats == ["guard tripped", "learning goes on", "guard tripped"]


def test_a_pause_that_somebody_ends_names_who_and_why() -> None:
    """And an item that is set meanwhile ends none."""
    negative = views(500, start=1_500, type="dislike")
    item: list[Entry] = [Item("i1", title="Heat")]
    assert [what for what, _ in alerted(negative, item)] == ["guard tripped"]
    found = alerted(negative, item, [Resume("ada", "a sale")])
    assert found[1] == ("learning goes on", {"through": 2_002, "by": "ada", "why": "a sale"})


class Rushed(Learner):
    """From the batch behind 6,000 on, both learning rates are a hundred times too high, until
    what was learned is taken back.
    """

    def learn(self, *arguments: Any, **named: Any) -> None:
        if self.trained_through == 6_000 and "held" not in named:
            for rate in self.stages.optimizer._rates.values():
                rate.factor = 100.0
        super().learn(*arguments, **named)


def test_a_step_that_is_far_too_long_never_goes_live(tmp_path: Path) -> None:
    events, updates = events_log(views(7_000)), MemoryUpdatesLog()
    updates.drop = lambda _: None  # type: ignore[method-assign,assignment]  # all are looked at below
    learner = Rushed(PAUSE, events, updates, tmp_path)
    told: list[tuple[str, Any]] = []
    learner.on_alert = lambda what, numbers: told.append((what, dict(numbers)))
    learn_all(learner)
    held = held_of(updates)
    assert [(one.through, one.guard) for one in held] == [
        (6_100, "stride"),
        (6_200, PAUSED),
        (6_300, PAUSED),
    ]
    assert "step changed weights by " in held[0].reason
    alerts = [(what, numbers["through"]) for what, numbers in told if "through" in numbers]
    assert alerts == [("guard tripped", 6_100), ("learning goes on", 6_400)]
    assert learner.epoch == 1
    assert learner.stages.rates() == {"sequence": 1.0, "mixture": 1.0}
    assert learner.trained_through == learner.gradient_through == 7_000
    kept = Snapshots(tmp_path, 9)
    interim = {one.offset: one.interim for one in map(kept.manifest, kept.paths())}
    assert interim[6_100], "the way back is short, and pushes no version out"

    counted_only = Learner(PAUSE, events, MemoryUpdatesLog(), None)
    for stored in all_updates(updates):
        for end in decode(stored.payload).batch_ends:
            records = events.read(end - 100, 100)
            by_guard = next((one for one in held if one.through == end), None)
            counted_only.learn(records, held=by_guard)
    counted_only.fold.model.changes()  # as if published
    assert without_watch(counted_only) == without_watch(learner)
    again = Learner(PAUSE, events, updates, tmp_path)
    assert (again.epoch, again.digest()) == (1, learner.digest())
    follower = Follower(PAUSE, events, updates, tmp_path)
    follower.catch_up()
    assert_equal(counted(follower), counted(learner))
