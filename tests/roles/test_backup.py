"""A backup of a running system is one state of it; nothing is ever overwritten."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from headwater.cli import app
from headwater.config import Config
from headwater.deploy import VERSIONS, Versions
from headwater.errors import HeadwaterError, LogError
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Learner
from headwater.roles import backup as copies
from tests.loop.streams import NOW, small, views

# A snapshot every few batches, and few of them kept: what a backup copies is dropped behind it.
CONFIG = small(deploy={"snapshot_events": 300, "snapshots_kept": 1}, log={"keep_megabytes": 0.05})


@contextmanager
def logs(data: Path) -> Iterator[tuple[SqliteEventsLog, SqliteUpdatesLog]]:
    with ExitStack() as stack:
        yield (
            stack.enter_context(closing(SqliteEventsLog(data / "events.db"))),
            stack.enter_context(closing(SqliteUpdatesLog(data / "updates.db"))),
        )


class Trainer(threading.Thread):
    """Appends, learns and publishes until it is told to stop; keeps each published digest."""

    def __init__(self, data: Path, config: Config = CONFIG) -> None:
        super().__init__(daemon=True)
        self.data, self.config = data, config
        self.digests: dict[int, str] = {}
        self.busy, self.stopping = threading.Event(), threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with logs(self.data) as (events, updates):
                learner = Learner(self.config, events, updates, self.data / "snapshots")
                for start in range(0, 100_000, 40):
                    events.append(views(40, start=start), NOW)
                    learner.step()
                    learner.publish()
                    learner.retain()
                    self.digests[learner.trained_through] = learner.digest()
                    if start > 600:
                        self.busy.set()
                    if self.stopping.is_set():
                        return
        except BaseException as error:
            self.error = error
            self.busy.set()


@contextmanager
def training(data: Path) -> Iterator[Trainer]:
    trainer = Trainer(data)
    trainer.start()
    assert trainer.busy.wait(60)
    try:
        yield trainer
    finally:
        trainer.stopping.set()
        trainer.join(60)
    assert trainer.error is None


def test_a_backup_of_a_running_system_restores_to_one_of_its_states(tmp_path: Path) -> None:
    data, kept = tmp_path / "data", []
    with training(data) as trainer:
        for k in range(3):
            kept.append(copies.backup(data, tmp_path / f"copy{k}"))
        beyond = max(trainer.digests)
        while max(trainer.digests) < beyond + 400:
            assert trainer.is_alive()
    shutil.rmtree(data)
    for k, made in enumerate(kept):
        again = tmp_path / f"again{k}"
        assert copies.restore(tmp_path / f"copy{k}", again) == made
        with logs(again) as (events, updates):
            assert events.end() == made.offset
            assert events.start() > 0
            learner = Learner(CONFIG, events, updates, again / "snapshots")
            assert learner.epoch == 1
            assert learner.sequence == made.sequence
            assert learner.trained_through <= made.offset
            assert learner.digest() == trainer.digests[learner.trained_through]
            while learner.step():
                learner.publish()
            assert learner.trained_through == made.offset
            first = events.read(events.start(), 1)[0].entry
            assert events.append([first], NOW)[0].duplicate


def test_versions_come_along_up_to_the_snapshot(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with logs(data) as (events, updates):
        learner = Learner(CONFIG, events, updates, data / "snapshots")
        for start in (0, 40):
            events.append(views(40, start=start), NOW)
            learner.step()
            learner.snapshot()
        versions = Versions(data / "snapshots" / VERSIONS)
        lines = versions.history()
        made = copies.backup(data, tmp_path / "copy")
        assert [line.snapshot for line in lines][-1] == made.snapshot
        # As one that is made while a backup copies the snapshot before it.
        later = "snapshot-e0001-s000000999999.safetensors"
        versions.add(msgspec.structs.replace(lines[-1], number=9, snapshot=later))
        copies.backup(data, tmp_path / "again")
    for copy in ("copy", "again"):
        copies.restore(tmp_path / copy, tmp_path / f"from {copy}")
        restored = Versions(tmp_path / f"from {copy}" / "snapshots" / VERSIONS)
        assert restored.history() == lines
        assert [version.state for version in restored.listed()] == ["dropped", "live"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    with logs(data) as (events, _):
        events.append(views(3), NOW)
        copies.backup(data, copy)
        with pytest.raises(HeadwaterError, match="copy exists"):
            copies.backup(data, copy)
        with pytest.raises(HeadwaterError, match="data isn't empty"):
            copies.restore(copy, data)
        assert events.end() == 3
    assert sorted(path.name for path in copy.iterdir()) == [
        "backup.json",
        "events.db",
        "updates.db",
    ]
    (tmp_path / "empty").mkdir()
    assert copies.restore(copy, tmp_path / "empty").offset == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data", "empty"]


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(HeadwaterError, match=r"is no backup: it has no backup\.json"):
        copies.restore(tmp_path / "folder", tmp_path / "data")
    with pytest.raises(HeadwaterError, match=r"holds no events\.db"):
        copies.backup(tmp_path / "folder", tmp_path / "copy")
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "copy").exists()


def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    with logs(data) as (events, _):
        events.append(views(500), NOW)
        copies.backup(data, copy)
    whole = (copy / "events.db").read_bytes()
    (copy / "events.db").write_bytes(whole[:8192] + bytes(len(whole) - 8192))
    with pytest.raises(LogError):
        copies.restore(copy, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_failed_backup_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with logs(tmp_path / "data") as (events, _):
        events.append(views(3), NOW)

    def failing(source: Path, destination: Path) -> None:
        raise LogError("disk full")

    monkeypatch.setattr(copies, "copy", failing)
    with pytest.raises(LogError, match="disk full"):
        copies.backup(tmp_path / "data", tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_keys_come_along_and_stay_private(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with logs(data) as (events, _):
        events.append(views(3), NOW)
    (data / "keys.json").write_text("[]")
    (data / "keys.json").chmod(0o600)
    runner = CliRunner()
    done = runner.invoke(app, ["backup", str(tmp_path / "copy"), "--data", str(data)])
    assert done.exit_code == 0, done.output
    assert "3 entries" in done.output
    done = runner.invoke(app, ["restore", str(tmp_path / "copy"), "--data", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    found = tmp_path / "new" / "keys.json"
    assert found.read_text() == "[]"
    assert found.stat().st_mode & 0o777 == 0o600
