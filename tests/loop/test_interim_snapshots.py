"""Few events with large updates: the updates log stays short, and the versions as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headwater.deploy import VERSIONS, Snapshots, Versions, rollback_to
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner, _keeping
from tests.loop.streams import NOW, assert_equal, counted, events_log, learn_all, small, views

CONFIG = small(deploy={"snapshot_events": 300, "snapshots_kept": 2}, train={"batch_events": 20})


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interim snapshot is due after a hundredth of the bytes of the one before."""
    monkeypatch.setattr(_keeping, "MOST_LOGGED", 1)
    monkeypatch.setattr(_keeping, "SNAPSHOTS_LOGGED", 0.01)


def kept(folder: Path) -> list[tuple[int, bool]]:
    """Offset of every snapshot, oldest first, and whether it is an interim one."""
    snapshots = Snapshots(folder, 9)
    manifests = [snapshots.manifest(path) for path in snapshots.paths()]
    return [(one.offset, one.interim) for one in manifests]


def lived(folder: Path, n: int) -> tuple[Learner, MemoryEventsLog, MemoryUpdatesLog]:
    events, updates = events_log(views(n)), MemoryUpdatesLog()
    learner = Learner(CONFIG, events, updates, folder)
    learn_all(learner)
    return learner, events, updates


def test_the_log_is_short_and_the_versions_are_kept(tmp_path: Path) -> None:
    learner, _, updates = lived(tmp_path, 1_190)
    found = kept(tmp_path)
    assert found[:2] == [(600, False), (900, False)]
    assert [interim for _, interim in found[2:]] == [True, True]
    needed = updates.read(0, 1_000)
    assert needed[0].trained_through > found[-2][0] > 900
    assert len(needed) < 15, "of 29 of 20 events each, since the oldest version"
    listed = Versions(tmp_path / VERSIONS).listed()
    assert [(one.offset, one.state) for one in listed] == [
        (300, "dropped"),
        (600, "kept"),
        (900, "live"),
    ]
    learner.snapshot()
    assert kept(tmp_path) == [(900, False), (found[-1][0], True), (1_190, False)]


def test_state_and_restart_are_the_same_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, events, updates = lived(tmp_path / "some", 800)
    assert kept(tmp_path / "some")[-1][1]
    again = Learner(CONFIG, events, updates, tmp_path / "some")
    follower = Follower(CONFIG, events, updates, tmp_path / "some")
    follower.catch_up()
    monkeypatch.undo()
    without, _, _ = lived(tmp_path / "none", 800)
    assert not any(interim for _, interim in kept(tmp_path / "none"))
    assert learner.digest() == again.digest() == without.digest()
    assert again.epoch == 1
    assert follower.trained_through == 800
    assert_equal(counted(follower), counted(learner))
    followed, learned = (one.fold.model.sequence.tower.items.values for one in (follower, learner))
    assert np.array_equal(followed, learned)


def test_a_restart_from_one_does_not_put_off_the_next_version(tmp_path: Path) -> None:
    _, events, updates = lived(tmp_path, 500)
    assert kept(tmp_path)[-1][1]
    events.append(views(200, start=500), NOW)
    learn_all(Learner(CONFIG, events, updates, tmp_path))
    listed = Versions(tmp_path / VERSIONS).listed()
    assert [one.offset for one in listed] == [300, 600]


def test_short_lives_leave_no_long_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, events, updates = lived(tmp_path, 20)
    events.append(views(40, start=20), NOW)
    learner = Learner(CONFIG, events, updates, tmp_path)
    before = kept(tmp_path)
    monkeypatch.setattr(_keeping, "MOST_LOGGED", 1_000_000_000)
    learn_all(learner)
    a_life = sum(len(stored.payload) for stored in updates.read(1, 9))
    monkeypatch.setattr(_keeping, "MOST_LOGGED", 3 * a_life)
    for start in range(60, 260, 40):
        events.append(views(40, start=start), NOW)
        learn_all(Learner(CONFIG, events, updates, tmp_path))
    assert before == [(20, True)] < kept(tmp_path)[-1:]


def test_a_damaged_interim_snapshot_is_passed_over(tmp_path: Path) -> None:
    learner, events, updates = lived(tmp_path, 800)
    newest = Snapshots(tmp_path, 9).paths()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    again = Learner(CONFIG, events, updates, tmp_path)
    assert (again.epoch, again.digest()) == (1, learner.digest()), (
        "by the one before and its updates"
    )


def test_a_version_is_returned_to_past_them(tmp_path: Path) -> None:
    learner, events, _ = lived(tmp_path, 1_000)
    listed = Versions(tmp_path / VERSIONS).listed()
    events.append([rollback_to(listed, 2, through=events.end(), by="ops", why="")], NOW)
    learn_all(learner)
    assert (learner.epoch, learner.fold.preprocess.total_events) == (2, 600)
