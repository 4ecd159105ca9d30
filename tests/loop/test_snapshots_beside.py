"""Snapshots that are finished in another thread while learning goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event as Signal
from threading import current_thread, main_thread

import pytest

from headwater.deploy import Manifest, Snapshots
from headwater.errors import SnapshotError
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner
from headwater.types import Rollback, State
from tests.loop.streams import NOW, events_log, small, views

CONFIG = small(
    deploy={"snapshot_events": 200, "snapshots_kept": 1}, train={"publish_milliseconds": 0.0}
)


class Held:
    """Keeps the other thread from finishing a snapshot until it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may = Signal()
        self.fails = False
        honest = Snapshots.begin

        def begin(of: Snapshots, state: State, manifest: Manifest) -> Callable[[], Path]:
            finish = honest(of, state, manifest)

            def held() -> Path:
                if current_thread() is not main_thread():
                    assert self.may.wait(30)
                    if self.fails:
                        raise SnapshotError("no space")
                return finish()

            return held

        monkeypatch.setattr(Snapshots, "begin", begin)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    made = Held(monkeypatch)
    yield made
    made.may.set()


def learned(events: MemoryEventsLog, updates: MemoryUpdatesLog, folder: Path, n: int) -> Learner:
    learner = Learner(CONFIG, events, updates, folder)
    while learner.trained_through < n:
        learner.step()
        learner.publish_due()
    return learner


def offsets(folder: Path) -> list[int]:
    found = Snapshots(folder, 9)
    return [found.manifest(path).offset for path in found.paths()]


def test_learning_goes_on_and_no_update_is_dropped_before_it_is_there(
    tmp_path: Path, held: Held
) -> None:
    events, updates = events_log(views(500)), MemoryUpdatesLog()
    learner = learned(events, updates, tmp_path, 500)
    assert offsets(tmp_path) == []
    assert [stored.sequence for stored in updates.read(0, 9)] == [1, 2, 3, 4, 5]
    held.may.set()
    learner.snapshot()
    assert offsets(tmp_path) == [500]
    assert updates.read(0, 9) == []


def test_who_has_nothing_to_publish_counts_on_it_as_well(tmp_path: Path, held: Held) -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    learner = learned(events, updates, tmp_path, 300)
    held.may.set()
    assert learner._keeping._writing is not None
    learner._keeping._writing[0].result()
    learner.publish()
    assert offsets(tmp_path) == [200]
    assert [stored.sequence for stored in updates.read(0, 9)] == [3]


def test_who_publishes_meanwhile_neither_waits_nor_begins_another(
    tmp_path: Path, held: Held
) -> None:
    config, events = small(log={"keep_days": 0.3}), events_log(views(100))
    learner = Learner(config, events, MemoryUpdatesLog(), tmp_path)
    for start in (100, 200, 300):
        learner.step()
        learner.publish_due()
        events.append(views(100, start=start), NOW)
    learner.step()
    learner.publish()
    assert (learner.sequence, offsets(tmp_path)) == (4, [])
    held.may.set()
    learner._keeping.settle()
    assert offsets(tmp_path) == [300], "due by the age of the events"


def test_it_is_the_one_that_would_have_been_waited_for(tmp_path: Path, held: Held) -> None:
    events = events_log(views(300))
    held.may.set()
    beside = learned(events, MemoryUpdatesLog(), tmp_path / "beside", 300)
    beside.begin_epoch("waits for what was begun")
    waited = Learner(CONFIG, events, MemoryUpdatesLog(), tmp_path / "waited")
    while waited.step():
        waited.publish()
    waited.begin_epoch("waits for what was begun")
    digests = [
        Snapshots(tmp_path / name, 9).manifest(path).digest
        for name in ("beside", "waited")
        for path in Snapshots(tmp_path / name, 9).paths()
    ]
    assert len(digests) == 2
    assert digests[0] == digests[1]


def test_after_a_crash_before_its_end_the_one_before_is_started_from(
    tmp_path: Path, held: Held
) -> None:
    events, updates = events_log(views(500)), MemoryUpdatesLog()
    learner = learned(events, updates, tmp_path, 500)
    again = Learner(CONFIG, events, updates, tmp_path)
    assert (again.epoch, again.sequence) == (1, learner.sequence)
    assert again.digest() == learner.digest()


def test_a_rollback_leaves_no_snapshot_of_what_it_sets_aside(tmp_path: Path, held: Held) -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    learner = learned(events, updates, tmp_path, 300)
    events.append([Rollback("bad", 0, 100, 300, "us", "poison")], NOW)
    held.may.set()
    learner.step()
    assert learner.epoch == 2
    assert [path.name[:14] for path in Snapshots(tmp_path, 9).paths()] == ["snapshot-e0002"]


@pytest.mark.parametrize("beside", [True, False])
def test_it_leaves_the_one_that_a_rollback_returns_to(
    beside: bool, tmp_path: Path, held: Held
) -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    held.may.set()
    learner = learned(events, updates, tmp_path, 300)
    learner._keeping.settle()
    held.may.clear()
    events.append(views(100, start=300), NOW)
    learner.step()
    if beside:
        learner.publish_due()
    events.append([Rollback("bad", 0, 301, 400, "us", "poison")], NOW)
    if not beside:
        learner.publish()
    held.may.set()
    learner.step()
    assert (learner.epoch, learner.fold.preprocess.total_events) == (2, 300), "100 since"
    assert offsets(tmp_path) == [200, 200], "the one before the rollback, and the one of it"


def test_an_error_is_the_learners(tmp_path: Path, held: Held) -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    learner = learned(events, updates, tmp_path, 300)
    held.fails = True
    held.may.set()
    with pytest.raises(SnapshotError, match="no space"):
        learner.snapshot()
    assert offsets(tmp_path) == []
    assert len(updates.read(0, 9)) == 3
    learner.snapshot()
    assert offsets(tmp_path) == [300]
