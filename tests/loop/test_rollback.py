"""Rolling back: as if what was set aside had never come, in both roles, whatever crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.deploy import VERSIONS, Manifest, Snapshots, Versions, rollback_to
from headwater.errors import InvalidInput
from headwater.evaluate import Outcomes
from headwater.log.chunks import Entries, chunk
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import (
    Batch,
    Entry,
    Event,
    Item,
    Lineage,
    Request,
    Rollback,
    State,
    UserRemoval,
)
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

CONFIG = small(deploy={"snapshot_events": 200, "snapshots_kept": 9})


def poison(n: int, start: int) -> list[Entry]:
    return [
        Event(f"p{k}", "purchase", f"fake{k % 5}", 1_000_000_000.0 + 60.0 * k, "pushed")
        for k in range(start, start + n)
    ]


def versions(folder: Path) -> Versions:
    return Versions(folder / VERSIONS)


def order(events: MemoryEventsLog, folder: Path, to: int | None = None) -> Rollback:
    listed = versions(folder).listed()
    found = rollback_to(listed, to, through=events.end(), by="ops", why="poison")
    events.append([found], NOW)
    return found


def rows(part: Learner | Follower) -> np.ndarray:
    return part.fold.model.sequence.tower.items.values


def without_knowing(part: Learner | Follower) -> dict[str, np.ndarray]:
    return {k: v for k, v in counted(part).items() if not k.startswith("rollbacks.")}


def test_it_is_as_if_what_was_set_aside_had_never_come(tmp_path: Path) -> None:
    events, updates = events_log(views(400)), MemoryUpdatesLog()
    learner = Learner(CONFIG, events, updates, tmp_path)
    learn_all(learner)
    follower = Follower(CONFIG, events, updates, tmp_path)
    events.append([*poison(150, 400), Item("set", title="In between"), *poison(149, 551)], NOW)
    learn_all(learner)
    follower.catch_up()
    assert Snapshots(tmp_path, 9).manifest(Snapshots(tmp_path, 9).paths()[-1]).offset == 600
    given = order(events, tmp_path, to=2)
    assert (given.first, given.through) == (401, 700)
    events.append(views(200, start=700), NOW)
    learn_all(learner)
    follower.catch_up()
    assert (learner.epoch, follower.epoch, follower.sequence) == (2, 2, learner.sequence)
    assert learner.trained_through == follower.trained_through == events.end()
    assert np.array_equal(rows(learner), rows(follower))
    assert_equal(counted(follower), counted(learner))

    # The same without the poison: the rollback and the poison leave gaps in the offsets.
    clean = events_log([*views(400), Item("set", title="In between"), *views(200, start=700)])
    never = Learner(CONFIG, clean, MemoryUpdatesLog(), None)
    learn_all(never)
    assert learner.fold.preprocess.items.find("pushed") == -1
    assert learner.fold.preprocess.item("set") == Item("set", title="In between")
    ours, its = without_knowing(learner), without_knowing(never)
    differing = {name for name in ours if not np.array_equal(ours[name], its[name])}
    assert not {name for name in differing if "popularity" in name or "transitions" in name}
    answer = follower.recommend([Request(n=50, user_id="u1")], NOW)[0]
    assert "pushed" not in [item.item_id for item in answer.items]
    assert [(v.number, v.state) for v in versions(tmp_path).listed()][:4] == [
        (1, "kept"),
        (2, "kept"),
        (3, "rolled_back"),
        (4, "kept"),
    ]


def test_a_trainer_that_rolls_back_as_it_starts_tells_of_it(tmp_path: Path) -> None:
    events, updates = events_log([*views(400), *poison(100, 400)]), MemoryUpdatesLog()
    learn_all(Learner(CONFIG, events, updates, tmp_path))
    order(events, tmp_path, to=2)
    told: list[str] = []
    Learner(CONFIG, events, updates, tmp_path, on_alert=lambda what, _: told.append(what))
    assert told == ["rolled back"]


@pytest.mark.parametrize("crash", ["order", "discarded", "snapshot", "published"])
def test_whatever_crashes_the_next_trainer_rolls_back(crash: str, tmp_path: Path) -> None:
    events, updates = events_log([*views(400), *poison(300, 400)]), MemoryUpdatesLog()
    learner = Learner(CONFIG, events, updates, tmp_path)
    learn_all(learner)
    before = Follower(CONFIG, events, updates, tmp_path)
    order(events, tmp_path, to=2)

    class Crashed(Exception): ...

    def crashed(*_: Any, **__: Any) -> Any:
        raise Crashed

    if crash != "order":
        place: dict[str, tuple[object, str]] = {
            "discarded": (learner, "_open_epoch"),
            "snapshot": (learner, "_append"),
            "published": (learner, "_alert"),
        }
        setattr(*place[crash], crashed)
        with pytest.raises(Crashed):
            learner.step()
    events.append(views(150, start=700), NOW)
    next_one = Learner(CONFIG, events, updates, tmp_path)
    learn_all(next_one)
    assert next_one.fold.preprocess.items.find("pushed") == -1
    for follower in (before, Follower(CONFIG, events, updates, tmp_path)):
        follower.catch_up()
        assert follower.epoch == next_one.epoch > 1
        assert_equal(counted(follower), counted(next_one))
        assert np.array_equal(rows(follower), rows(next_one))
    again = Learner(CONFIG, events, updates, tmp_path)
    assert (again.epoch, again.digest()) == (next_one.epoch, next_one.digest())


def test_what_was_set_aside_stays_so_when_all_is_learned_again(tmp_path: Path) -> None:
    events, updates = events_log([*views(200), *poison(100, 200)]), MemoryUpdatesLog()
    learner = Learner(CONFIG, events, updates, tmp_path)
    learn_all(learner)
    order(events, tmp_path, to=1)
    learn_all(learner)
    for path in Snapshots(tmp_path, 9).paths():
        path.unlink()
    fresh = Learner(CONFIG, events, MemoryUpdatesLog(), tmp_path)
    learn_all(fresh)
    alone = Follower(CONFIG, events, MemoryUpdatesLog(), None)
    alone.catch_up()
    assert fresh.fold.preprocess.items.find("pushed") == -1
    assert_equal(counted(alone), counted(fresh))
    assert_equal(counted(fresh), counted(learner))


def test_a_second_rollback_adds_to_the_first(tmp_path: Path) -> None:
    events, updates = events_log([*views(400), *poison(100, 400)]), MemoryUpdatesLog()
    learner = Learner(CONFIG, events, updates, tmp_path)
    learn_all(learner)
    order(events, tmp_path)
    events.append([*views(100, start=500), *poison(100, 600), UserRemoval("u3")], NOW)
    learn_all(learner)
    second = order(events, tmp_path, to=1)
    assert second.first == 201
    learn_all(learner)
    assert learner.epoch == 3
    follower = Follower(CONFIG, events, updates, tmp_path)
    follower.catch_up()
    assert_equal(counted(follower), counted(learner))
    assert learner.fold.preprocess.total_events == 200
    listed = versions(tmp_path).listed()
    assert [(v.number, v.offset) for v in listed if v.state == "kept"][:2] == [(1, 200), (4, 400)]
    gone = {(v.epoch, v.offset) for v in listed if v.state == "rolled_back"}
    assert gone == {(1, 400), (2, 600)}


def test_rollbacks_that_follow_each_other_push_out_no_version(tmp_path: Path) -> None:
    events, updates = events_log(views(600)), MemoryUpdatesLog()
    learner = Learner(CONFIG, events, updates, tmp_path)
    learn_all(learner)
    for number in range(5):
        events.append(poison(20, 600 + 20 * number), NOW)
        learn_all(learner)
        order(events, tmp_path)
        learn_all(learner)
        listed = versions(tmp_path).listed()
        assert [(v.number, v.state) for v in listed] == [(1, "kept"), (2, "kept"), (3, "live")]
        assert len(Snapshots(tmp_path, 9).paths()) <= 5
    assert learner.epoch == 6
    order(events, tmp_path, to=1)
    learn_all(learner)
    states = [v.state for v in versions(tmp_path).listed()]
    assert states[:3] == ["kept", "rolled_back", "rolled_back"]
    assert learner.fold.preprocess.total_events == 200


def test_old_rows_do_not_leak_into_the_new_epoch(tmp_path: Path) -> None:
    """Every update after the opening one is of the new epoch, and so is every snapshot."""
    events, updates = events_log([*views(400), *poison(300, 400)]), MemoryUpdatesLog()
    learner = Learner(CONFIG, events, updates, tmp_path)
    while learner.step():
        learner.publish()
    opened = updates.end() + 1
    order(events, tmp_path, to=2)
    learn_all(learner)
    later = [stored for stored in all_updates(updates) if stored.sequence >= opened]
    assert {stored.epoch for stored in later} == {2}
    assert later[0].trained_through == 400
    manifests = [Snapshots(tmp_path, 9).manifest(path) for path in Snapshots(tmp_path, 9).paths()]
    assert all(one.offset <= 400 or one.epoch == 2 for one in manifests)


def test_only_a_kept_version_can_be_returned_to(tmp_path: Path) -> None:
    def refused(to: int | None) -> str:
        with pytest.raises(InvalidInput) as caught:
            rollback_to(versions(tmp_path).listed(), to, through=9, by="", why="")
        return str(caught.value)

    assert "no version is kept yet" in refused(None)
    events = events_log(views(900))
    learn_all(Learner(small(deploy={"snapshot_events": 200}), events, MemoryUpdatesLog(), tmp_path))
    assert [v.state for v in versions(tmp_path).listed()] == ["dropped", "kept", "kept", "live"]
    assert refused(1) == "to is 1, which isn't kept; choose one of 2, 3, 4"
    assert refused(5).startswith("to is 5")


class CannotCount(Learner):
    """Whatever is made of the event of offset 250, it can't be folded."""

    def learn(self, records: Any, **named: Any) -> None:
        if any(record.offset == 250 for record in self.fold.admitted(records)):
            raise ValueError("no way")
        super().learn(records, **named)


@pytest.mark.parametrize("kept", [True, False])
def test_a_batch_that_cannot_even_be_counted_is_set_aside_in_both_roles(
    kept: bool, tmp_path: Path
) -> None:
    events, updates = events_log(views(500)), MemoryUpdatesLog()
    config = CONFIG if kept else small()
    learner = CannotCount(config, events, updates, tmp_path)
    follower = Follower(config, events, updates, tmp_path)
    fold = follower.fold.batch

    def failing(entries: Entries) -> Any:
        if 250 in chunk(entries).offsets:
            raise ValueError("no way")
        return fold(entries)

    follower.fold.batch = failing  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no way"):
        follower.catch_up()
    learn_all(learner)
    assert learner.trained_through == events.end() == 501
    assert learner.fold.preprocess.total_events == 400
    follower.catch_up()
    assert_equal(counted(follower), counted(learner))
    (record,) = events.rollbacks(0)
    assert record.entry == Rollback(
        "1-201-300", 1 if kept else 0, 201, 300, "headwater", "ValueError: no way"
    )


# --- the alarm -----------------------------------------------------------------------------------

WATCHED = small(deploy={"snapshot_events": 1_000, "snapshots_kept": 9}, evaluate={"window": 3_000})
BAD_FROM = 3_300


class TurnsBad(Learner):
    """From some offset on, in the first ``epochs`` epochs, no list holds what came next."""

    epochs = 1

    def _begin(self, found: tuple[State, Manifest] | None, lineage: Lineage) -> None:
        super()._begin(found, lineage)
        honest = self.stages.evaluator.observe

        def observe(batch: Batch, *of: Any, **named: Any) -> Outcomes:
            outcomes = honest(batch, *of, **named)
            if self.epoch <= self.epochs and batch.end > BAD_FROM:
                outcomes.ranks[:, 0] = -1
            return outcomes

        self.stages.evaluator.observe = observe  # type: ignore[method-assign]


class StaysBad(TurnsBad):
    epochs = 9


def test_the_alarm_returns_to_the_version_of_before_it_began(tmp_path: Path) -> None:
    events, updates = events_log(views(5_000)), MemoryUpdatesLog()
    learner = TurnsBad(WATCHED, events, updates, tmp_path)
    alerts: list[tuple[str, Any]] = []
    learner.on_alert = lambda what, numbers: alerts.append((what, numbers))
    learn_all(learner)
    (record,) = events.rollbacks(0)
    order = record.entry
    assert isinstance(order, Rollback)
    assert (order.to, order.first, order.by) == (3, 3_001, "headwater")
    assert BAD_FROM < order.through < 5_000
    assert order.why.startswith("the alarm, since offset 3")
    assert [what for what, _ in alerts if what != "the stream has changed"] == ["rolled back"]
    assert learner.epoch == 2
    follower = Follower(WATCHED, events, updates, tmp_path)
    follower.catch_up()
    assert_equal(counted(follower), counted(learner))
    again = TurnsBad(WATCHED, events, updates, tmp_path)
    assert (again.epoch, again.digest()) == (2, learner.digest())


def test_an_alarm_that_a_rollback_did_not_help_is_reported_only(tmp_path: Path) -> None:
    events, updates = events_log(views(6_400)), MemoryUpdatesLog()
    learner = StaysBad(WATCHED, events, updates, tmp_path)
    alerts: list[str] = []
    learner.on_alert = lambda what, numbers: alerts.append(what)
    learn_all(learner)
    assert len(events.rollbacks(0)) == 1
    assert alerts.count("rolled back") == 1
    assert any(what.startswith("lists are worse") for what in alerts)
    again = StaysBad(WATCHED, events, updates, tmp_path)
    assert (again.epoch, again.digest()) == (learner.epoch, learner.digest())


def test_a_trainer_that_died_between_alarm_and_order_rolls_back_at_its_next_step(
    tmp_path: Path,
) -> None:
    events, updates = events_log(views(5_000)), MemoryUpdatesLog()
    learner = TurnsBad(WATCHED, events, updates, tmp_path)
    while learner._ringing is None:
        learner.step()
        learner.publish()
    assert events.rollbacks(0) == []
    learn_all(TurnsBad(WATCHED, events, updates, tmp_path))
    assert len(events.rollbacks(0)) == 1


def test_the_alarm_can_be_told_to_report_only(tmp_path: Path) -> None:
    events = events_log(views(5_000))
    config = WATCHED.model_copy(
        update={"deploy": WATCHED.deploy.model_copy(update={"automatic_rollback": False})}
    )
    learn_all(TurnsBad(config, events, MemoryUpdatesLog(), tmp_path))
    assert events.rollbacks(0) == []
