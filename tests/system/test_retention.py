"""A system that drops its oldest events and is killed meanwhile; then one that forgets a user."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from headwater.deploy import Snapshots
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Learner
from headwater.types import Event
from tests.system.running import System, ratings, until

SETTINGS = """
[deploy]
snapshot_events = 300
snapshots_kept = 2
[log]
keep_megabytes = 0.1
"""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path, SETTINGS)
    try:
        yield system
    finally:
        system.end()


def erase(system: System, user: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headwater.cli", "erase", user]
    command += ["--data", str(system.data), "--config", str(system.settings)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_log_is_kept_short_under_kills_and_a_user_is_erased(system: System) -> None:
    system.start().wait_until_ready()
    events = ratings(1_800)
    offsets: dict[str, int] = {}
    for start in range(0, 1_800, 300):
        until(system.ready)
        sent = events[start : start + 300]
        results = system.post(sent)
        assert {result["status"] for result in results} == {"accepted"}
        offsets |= {result["event_id"]: result["offset"] for result in results}
        if start in (600, 1_200):
            for name in ("trainer", "api"):
                process = until(partial(system.role, name))
                assert process is not None
                process.kill()
                process.wait(10.0)
    until(system.ready)
    system.wait_until_learned()
    begins = until(lambda: system.get("/v1/status")["start"])
    first = system.post(events[:10])
    assert {(one["status"], one["field"]) for one in first} == {("rejected", "timestamp")}
    assert system.post(events[-10:])[0]["status"] == "duplicate"
    assert "in use" in erase(system, "1").stderr
    assert system.interrupt() == 0
    for trouble in ("role failed", "can't start", "new epoch", "the model thread died"):
        assert not system.log(trouble)

    with (
        closing(SqliteEventsLog(system.data / "events.db")) as log,
        closing(SqliteUpdatesLog(system.data / "updates.db")) as updates,
    ):
        records = log.read(log.start(), 10_000)
        assert log.start() >= begins > 0
        found = {r.entry.event_id: r.offset for r in records if isinstance(r.entry, Event)}
        assert found == {id: offset for id, offset in offsets.items() if offset > log.start()}
        snapshots = Snapshots(system.data / "snapshots", keep=2)
        manifests = [snapshots.manifest(path) for path in snapshots.paths()]
        assert log.start() <= manifests[0].offset
        assert Learner(system.config, log, updates, snapshots.directory).digest() == (
            manifests[-1].digest
        )
        most = Counter(r.entry.user_id for r in records if isinstance(r.entry, Event))
        user, count = most.most_common(1)[0]

    done = erase(system, user)
    assert done.returncode == 0, done.stderr
    assert f"{count} entries blanked" in done.stdout
    assert "are no longer kept, so what was learned from them can't be learned again" in done.stdout
    system.start().wait_until_ready()
    assert system.get(f"/v1/users/{user}/explanation")["events"] == 0
    assert system.recommend(user, n=10)["items"]
    assert system.post(events[-10:])[0]["status"] == "duplicate"
    assert system.interrupt() == 0

    Snapshots(system.data / "snapshots", keep=2).clear()
    system.start()
    assert system.process is not None
    assert system.process.wait(60.0) == 2
    (refusal, *_) = system.log("can't start")
    assert "the events log begins after offset" in refusal["reason"]
    assert "headwater export" in refusal["reason"]
