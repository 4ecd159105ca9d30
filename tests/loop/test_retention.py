"""What the events log no longer holds: the state stays the same, and who needs it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from headwater.config import Config
from headwater.deploy import Snapshots
from headwater.errors import Dropped
from headwater.feedback import Feedback
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.log.served import ServedLog
from headwater.loop import Follower, Learner
from headwater.loop._retention import Retention
from headwater.types import Entry, Event, Item, Request, ServedList
from tests.loop.streams import NOW, assert_equal, counted, events_log, small, views

DAY_OF_VIEWS = 1440  # a view a minute


def config(snapshot_events: int = 300, snapshots_kept: int = 2, **log: float) -> Config:
    deploy = {"snapshot_events": snapshot_events, "snapshots_kept": snapshots_kept}
    return small(deploy=deploy, log=log)


def learn(learner: Learner, publish: bool = True) -> None:
    """All that is in the log, as the trainer role does it."""
    while True:
        learner.retain()
        if not learner.step():
            learner.publish()
            return
        if publish:
            learner.publish()


def learned(config: Config, events: MemoryEventsLog, folder: Path) -> tuple[Learner, Follower]:
    updates = MemoryUpdatesLog()
    learner = Learner(config, events, updates, folder)
    follower = Follower(config, events, updates, folder)
    learn(learner)
    return learner, follower


def oldest(folder: Path) -> int:
    snapshots = Snapshots(folder, keep=9)
    return snapshots.manifest(snapshots.paths()[0]).offset


def settled(learner: Learner) -> None:
    """Until everything that is to go is gone."""
    before = -1
    while before != learner._events.start():
        before = learner._events.start()
        learner.retain()


@pytest.mark.parametrize("log", [{"keep_days": 0.1}, {"keep_megabytes": 0.02}])
def test_the_oldest_events_go_and_the_state_is_the_same(log: dict[str, Any], tmp_path: Path):
    everything, some = events_log(views(1500)), events_log(views(1500))
    whole, _ = learned(config(), everything, tmp_path / "whole")
    learner, _ = learned(config(**log), some, tmp_path / "some")
    settled(learner)
    assert everything.start() == 0
    assert 700 < some.start() <= oldest(tmp_path / "some")
    assert learner.digest() == whole.digest()
    again = Learner(config(**log), some, learner._updates, tmp_path / "some")
    assert (again.epoch, again.digest()) == (1, whole.digest())
    for log_ in (everything, some):
        log_.append(views(400, start=1500), NOW)
    learn(whole)
    learn(again)
    assert again.digest() == whole.digest()


def test_what_is_younger_than_the_setting_stays(tmp_path: Path):
    events = events_log(views(1500))
    learner, _ = learned(config(keep_days=1.0), events, tmp_path)
    settled(learner)
    # The newest snapshot saw 1,500 views; those of its last day are there.
    assert events.start() == 1500 - DAY_OF_VIEWS - 1


def test_a_catalogue_set_before_the_first_event_is_as_old_as_that(tmp_path: Path):
    films: list[Entry] = [Item(f"i{n}", f"Film {n}") for n in range(50)]
    events = events_log([*films, *views(1300)])
    learner, _ = learned(config(keep_days=1.0), events, tmp_path)
    settled(learner)
    assert events.start() == 0, "no view is a day old, and what was told before it neither"
    events.append(views(600, start=1300), NOW)
    learn(learner)
    settled(learner)
    assert events.start() > 50


def test_the_last_minutes_stay_whatever_the_size(tmp_path: Path):
    events = events_log(views(600))
    retention = Retention(config(snapshots_kept=1, keep_megabytes=1e-6), events)
    learned(config(snapshot_events=600), events, tmp_path)
    retention.aim(Snapshots(tmp_path, 9).prune(), 0.0)
    while events.start() < 589:
        retention.step()
    retention.step()
    assert events.start() == 589  # eleven views: ten minutes
    live = Event("live", "view", "u", 1_000_000_000.0 + 60.0 * 600, "i1")
    assert events.append([live], NOW)[0].older_than is None


def test_nothing_goes_before_there_are_all_the_snapshots(tmp_path: Path):
    events = events_log(views(650))
    learner, _ = learned(config(snapshots_kept=3, keep_megabytes=0.001), events, tmp_path)
    settled(learner)
    assert len(Snapshots(tmp_path, 9).paths()) == 2
    assert events.start() == 0
    events.append(views(300, start=650), NOW)
    learn(learner)
    settled(learner)
    assert events.start() == oldest(tmp_path) == 300


@pytest.mark.parametrize("log", [{"keep_megabytes": 1e3}, {"keep_days": 1.0}])
def test_where_nothing_is_to_go_nothing_is_said_to_be_gone(log: dict[str, Any], tmp_path: Path):
    events = events_log(views(650))
    learned(config(), events, tmp_path)
    events.drop(50)
    retention = Retention(config(**log), events)
    with capture_logs() as logs:
        for _ in range(3):
            retention.aim(Snapshots(tmp_path, 9).prune(), 0.0)
            retention.step()
    assert logs == []
    assert events.start() == 50


def test_a_snapshot_is_due_by_time_where_events_are_few(tmp_path: Path):
    events = events_log(views(100))
    learner, _ = learned(config(100_000, keep_days=0.25), events, tmp_path)
    for start in range(100, 1000, 50):
        events.append(views(50, start=start), NOW)
        learn(learner)
    settled(learner)
    assert 1000 - 2.2 * DAY_OF_VIEWS / 4 < events.start() < 1000 - DAY_OF_VIEWS / 4
    backlog = events_log(views(1000))
    learned(config(100_000, keep_days=0.25), backlog, tmp_path / "backlog")
    assert Snapshots(tmp_path / "backlog", 9).paths() == []


def test_who_has_no_snapshot_for_what_is_gone_says_so(tmp_path: Path):
    events = events_log(views(1000))
    learner, follower = learned(config(keep_days=0.01), events, tmp_path)
    settled(learner)
    for kept in (None, tmp_path / "nothing"):
        for role in (Learner, Follower):
            with pytest.raises(Dropped, match=r"begins after offset \d+.*headwater export"):
                role(config(), events, MemoryUpdatesLog(), kept)
    Snapshots(tmp_path, 9).clear()
    with pytest.raises(Dropped, match="restore a backup"):
        follower.catch_up()


def test_a_follower_that_was_left_behind_goes_on_from_the_snapshot(tmp_path: Path):
    events = events_log(views(1000))
    learner, follower = learned(config(keep_days=0.01), events, tmp_path)
    settled(learner)
    assert follower.offset == 0 < events.start()
    follower.catch_up()
    assert (follower.offset, follower.sequence) == (1000, learner.sequence)
    assert_equal(follower.fold.state(), learner.fold.state())
    request = Request(n=10, user_id="u1")
    fresh = Follower(config(), events, learner._updates, tmp_path)
    fresh.catch_up()
    answers = [one.recommend([request], NOW)[0].items for one in (follower, fresh)]
    assert answers[0] == answers[1] != []


def test_the_clock_goes_on_where_the_newest_event_is_gone(tmp_path: Path):
    items = [Item(f"n{k}") for k in range(400)]
    events = events_log([*views(600), *items])
    learner, _ = learned(config(), events, tmp_path)
    learner.snapshot()
    learner.snapshot()
    events.drop(900)
    follower = Follower(config(), events, learner._updates, tmp_path)
    newest_view = 1_000_000_000.0 + 60.0 * 599
    assert follower._clock == (newest_view, NOW)


def test_clicks_that_are_gone_are_passed_over(tmp_path: Path):
    shown = [ServedList(f"r{n}", "u", 1, 1, NOW, ("i1",), (1.0,)) for n in (2, 5)]
    clicks = [
        Event(f"e{n}", "view", "u", 1e9 + n, "i1", recommendation_id=f"r{n}") for n in range(9)
    ]
    events = events_log(clicks)
    feedback = Feedback(ServedLog(None), config())
    feedback._served.served(shown)
    feedback.observe(events.read(0, 1))
    feedback._served.flush()
    events.drop(4)
    feedback.follow(events, 9)
    feedback._served.flush()
    assert [(row.served, row.clicked) for row in feedback.click_through()] == [(2, 1)]
    feedback.close()


def test_blanks_are_folded_as_nothing(tmp_path: Path):
    entries = views(600)
    mine = [k for k, event in enumerate(entries) if isinstance(event, Event) if k % 7 == 0]
    blanked = events_log(entries)
    blanked.blank([k + 1 for k in mine])
    learner, follower = learned(config(), blanked, tmp_path / "blanked")
    follower.catch_up()
    assert_equal(counted(follower), counted(learner))
    others = events_log([event for k, event in enumerate(entries) if k not in mine])
    without, _ = learned(config(), others, tmp_path / "others")
    # They differ in nothing but where the others' entries stand.
    places = {"preprocess.active_users.offsets", "preprocess.active_items.offsets"}
    assert_equal(
        *({k: v for k, v in counted(one).items() if k not in places} for one in (learner, without))
    )
