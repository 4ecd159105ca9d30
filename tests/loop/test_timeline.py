"""The timeline of a learner, and the reception, which goes by the clock."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headwater.evaluate._drift import KINDS
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner, _report
from headwater.loop._timeline import Reception
from headwater.types import Event, StreamChange
from tests.loop.streams import NOW, all_updates, learn_all, small, views


def test_a_change_is_told_reported_and_kept_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_report, "_DRAINED_SECONDS", 0.0)
    config = small(deploy={"snapshot_events": 100_000})
    log, updates = MemoryEventsLog(), MemoryUpdatesLog()
    learner = Learner(config, log, updates, tmp_path)
    told: list[tuple[str, Any]] = []
    learner.on_alert = lambda what, numbers: told.append((what, dict(numbers)))
    log.append(views(5_000), NOW)
    log.append(views(1_000, start=5_000, type="like"), NOW)
    learn_all(learner)
    changes = [numbers for what, numbers in told if what == "the stream has changed"]
    (change,) = [one for one in changes if one["what"] == "types"]
    assert change["offset"] == 6_000
    report = msgspec.json.decode(all_updates(updates)[-1].report)
    assert report["timeline"] == changes
    assert report["changes"]["types"] == 1
    learner.snapshot()
    again = Learner(config, log, updates, tmp_path)
    assert again.digest() == learner.digest()
    assert again.stages.timeline.report()["timeline"] == [StreamChange(**one) for one in changes]


def test_lists_that_do_worse_than_they_did_are_told(tmp_path: Path) -> None:
    log, updates = MemoryEventsLog(), MemoryUpdatesLog()
    learner = Learner(small(deploy={"snapshot_events": 100_000}), log, updates, tmp_path)
    told: list[Any] = []
    learner.on_alert = lambda what, numbers: told.append(dict(numbers))
    random = np.random.default_rng(0)
    log.append(views(4_000), NOW)
    learn_all(learner)
    assert not [one for one in told if one.get("what") == "gains"]
    at_random = [
        msgspec.structs.replace(event, item_id=f"r{random.integers(400)}")
        for event in views(2_000, start=4_000)
        if isinstance(event, Event)
    ]
    log.append(at_random, NOW)
    learn_all(learner)
    (change,) = [one for one in told if one.get("what") == "gains"]
    assert 4_000 < change["offset"] < 5_000
    assert change["reason"].startswith("NDCG@10 is below 0.7 of 0.")
    (hits,) = [one for one in told if one.get("what") == "hit_rate"]
    assert 4_000 < hits["offset"] < 5_000
    changes = learner.stages.timeline.report()["changes"]
    assert changes["gains"] == changes["hit_rate"] == 1
    assert StreamChange(**change) in learner.stages.timeline.report()["timeline"]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.events = self.letters = 0
        self.reception = Reception(lambda: self.now)

    def run(self, seconds: int, events: int = 0, letters: int = 0) -> list[str]:
        """So many seconds, with so many events and letters in each."""
        told = []
        for _ in range(seconds):
            self.now += 1.0
            self.events += events
            self.letters += letters
            found = self.reception.look(self.events, lambda: self.letters)
            told += [alert for alert, _ in found]
        return told


def test_a_silence_is_told_once_and_again_when_it_comes_again() -> None:
    clock = Clock()
    assert clock.run(600, events=5) == []
    assert clock.run(290) == []
    assert clock.run(2_000) == ["the stream is silent"]
    assert clock.reception.report()["silent"]
    assert clock.run(600, events=5) == []
    assert not clock.reception.report()["silent"]
    assert clock.run(2_000) == ["the stream is silent"]


def busy(folder: Path) -> tuple[Clock, Learner, MemoryEventsLog, MemoryUpdatesLog]:
    """A learner that has had events every ten seconds, the clock it goes by, and both logs."""
    clock, log, updates = Clock(), MemoryEventsLog(), MemoryUpdatesLog()
    learner = Learner(small(), log, updates, folder)
    learner._reception = clock.reception
    for start in range(0, 400, 100):
        log.append(views(100, start=start), 1_000_000_000.0 + 60.0 * start)
        clock.now += 10.0
        learn_all(learner)
    return clock, learner, log, updates


def test_a_silence_is_told_though_a_report_was_just_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, learner, _, updates = busy(tmp_path)
    before = updates.end()
    monkeypatch.setattr(_report, "_DRAINED_SECONDS", 600.0)
    for seconds in (10.0, 3_600.0):
        clock.now += seconds
        learner.step()
    learner.publish()
    assert [stored.report for stored in updates.read(before, 9)] == [b""]
    monkeypatch.setattr(_report, "_DRAINED_SECONDS", 0.0)
    learner.publish()
    assert msgspec.json.decode(all_updates(updates)[-1].report)["reception"]["silent"]
    learner.publish()
    assert updates.end() == before + 2


def test_a_silence_is_reported_though_no_event_tells_of_it(tmp_path: Path) -> None:
    clock, learner, log, updates = busy(tmp_path)
    before = updates.end()
    learner._reports._written_at = 0.0
    for seconds in (10.0, 3_600.0, 3_600.0):
        clock.now += seconds
        learner.step()
        learner.publish()
    assert updates.end() == before + 1
    newest = all_updates(updates)[-1]
    report = msgspec.json.decode(newest.report)
    assert report["reception"] == {"silent": True, "refusing": False}
    assert report["trained_through"] == newest.trained_through == 400
    follower = Follower(small(), log, updates, tmp_path)
    follower.catch_up()
    assert follower.sequence == newest.sequence
    again = Learner(small(), log, updates, tmp_path)
    assert (again.epoch, again.digest()) == (1, learner.digest())


def test_a_stream_that_is_slow_anyway_is_not_silent_soon() -> None:
    clock = Clock()
    for _ in range(300):
        clock.run(1, events=1)
        clock.run(9)
    assert clock.run(3_000) == []
    assert clock.run(9_000) == ["the stream is silent"]


def test_where_nothing_ever_came_nothing_is_silent() -> None:
    assert Clock().run(10_000) == []


@pytest.mark.parametrize(("events", "letters", "told"), [(9, 1, 0), (5, 5, 1), (0, 1, 1)])
def test_much_that_is_refused_is_told_once(events: int, letters: int, told: int) -> None:
    clock = Clock()
    clock.run(60, events=10)
    found = clock.run(600, events, letters)
    assert found.count("much of what comes is refused") == told
    clock.run(60, events=10)
    assert not clock.reception.report()["refusing"]


def test_operators_find_every_alert_in_their_guide() -> None:
    root = Path(_report.__file__).parents[2]
    told = set[str]()
    for path in (root / "headwater/loop").glob("*.py"):
        told |= set(re.findall(r"""_alert\(\s*"([^"]+)\"""", path.read_text()))
        told |= set(re.findall(r"""return \[\("([^"]+)",""", path.read_text()))
    assert {"guard tripped", "learning goes on", "the stream is silent", "rolled back"} <= told
    guide = (root / "docs/operations.md").read_text()
    assert [what for what in sorted(told) if f"`{what}`" not in guide] == []
    for kind in KINDS:
        assert f"`{kind}` |" in guide, kind
