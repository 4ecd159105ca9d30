"""kill -9 at any moment: nothing acknowledged is lost, nothing is counted or learned twice."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from headwater.deploy import Snapshots, decode
from headwater.log.memory import MemoryUpdatesLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Learner
from headwater.types import Event
from tests.system.running import System, ratings, until

KILLS = 20
SETTINGS = """
[deploy]
snapshot_events = 400
snapshots_kept = 1000
"""


class Load:
    """A client that sends every event until it is told that it was accepted."""

    def __init__(self, system: System) -> None:
        self.offsets: dict[str, int] = {}
        self.failures = 0
        self.duplicates = 0
        self._system = system
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with httpx.Client(timeout=10.0) as client:
                rest = ratings(100_000)
                while not self._stopping.is_set():
                    sent, rest = rest[:10], rest[10:]
                    self._send(client, sent)
                    self._stopping.wait(0.05)
        except BaseException as error:
            self._error = error

    def _send(self, client: httpx.Client, events: list[dict[str, Any]]) -> None:
        while True:
            with suppress(httpx.TransportError):
                if url := self._system.url():
                    answer = client.post(f"{url}/v1/events", json=events)
                    assert answer.status_code in (200, 503), answer.text
                    if answer.status_code == 200:
                        return self._acknowledged(events, answer.json()["results"])
            self.failures += 1
            time.sleep(0.05)

    def _acknowledged(self, events: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
        for event, result in zip(events, results, strict=True):
            assert result["status"] in ("accepted", "duplicate"), result
            assert result["event_id"] == event["event_id"]
            self.duplicates += result["status"] == "duplicate"
            self.offsets[event["event_id"]] = result["offset"]


class Killer:
    """Kills roles at seeded random moments: while they work, and while they start."""

    def __init__(self, system: System, load: Load, updates: SqliteUpdatesLog, seed: int) -> None:
        self.moments: Counter[tuple[str, str]] = Counter()
        self._system = system
        self._load = load
        self._updates = updates
        self._random = random.Random(seed)

    def kill(self, name: str, moment: str) -> None:
        process = until(lambda: self._system.role(name))
        assert process is not None
        acknowledged, published = len(self._load.offsets), self._updates.end()
        if moment == "starting":
            time.sleep(self._random.uniform(0.0, 2.5))
        else:
            # Whoever works leaves traces, and only while it lives.
            if name == "api":
                until(lambda: len(self._load.offsets) > acknowledged)
            else:
                until(lambda: self._updates.end() > published)
            time.sleep(self._random.uniform(0.0, 0.3))
        process.kill()
        process.wait(10.0)
        self.moments[name, moment] += 1

    def round(self) -> None:
        """Two kills: of both roles, one after the other or almost at once."""
        names = ["trainer", "api"]
        self._random.shuffle(names)
        early = self._random.random() < 0.4
        for name in names:
            self.kill(name, "starting" if early else "at work")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path, SETTINGS)
    # A snapshot of nothing, older than all, so that no update is ever dropped: the end of this test
    # learns them all again.
    system.data.mkdir()
    with (
        closing(SqliteEventsLog(system.data / "events.db")) as events,
        closing(SqliteUpdatesLog(system.data / "updates.db")) as updates,
    ):
        Learner(system.config, events, updates, system.data / "snapshots").snapshot()
    try:
        yield system
    finally:
        system.end()


def test_twenty_kills_under_load_lose_nothing_and_count_nothing_twice(system: System) -> None:
    system.start().wait_until_ready()
    with closing(SqliteUpdatesLog(system.data / "updates.db")) as watched:
        with Load(system) as load:
            killer = Killer(system, load, watched, seed=11)
            for kills in range(0, KILLS, 2):
                killer.round()
                if kills == KILLS // 2:
                    # The supervisor too; this also starts its growing delays over.
                    system.kill()
                    system.start()
            until(system.ready)
            sent = len(load.offsets)
            until(lambda: len(load.offsets) > sent)
        assert killer.moments.total() == KILLS
        assert len(killer.moments) == 4, "both roles, at both moments"
        until(system.ready)
        system.wait_until_learned()
        assert system.interrupt() == 0
    assert load.failures > 0
    ended = system.log("role ended, restarting")
    assert {record["child"] for record in ended} == {"trainer", "api"}
    assert {record["code"] for record in ended} == {-signal.SIGKILL}, "none fell by itself"
    for trouble in ("role failed", "new epoch", "update held back", "the model thread died"):
        assert not system.log(trouble)

    # Acknowledged means durable, once.
    records = system.records()
    stored = Counter(r.entry.event_id for r in records if isinstance(r.entry, Event))
    assert set(stored.values()) == {1}
    assert load.offsets.keys() == stored.keys()
    offsets = {r.entry.event_id: r.offset for r in records if isinstance(r.entry, Event)}
    assert offsets == load.offsets

    # Every event was learned once, in one epoch, by whichever trainer lived.
    updates = system.updates()
    assert [update.sequence for update in updates] == list(range(1, len(updates) + 1))
    assert {update.epoch for update in updates} == {1}
    ends = [end for update in updates for end in decode(update.payload).batch_ends]
    assert ends == sorted(set(ends))
    assert ends[-1] == records[-1].offset

    # And learned again from the first, it is the state that was snapshotted last.
    snapshots = Snapshots(system.data / "snapshots", keep=1)
    manifest = snapshots.manifest(snapshots.paths()[-1])
    assert (manifest.epoch, manifest.sequence, manifest.offset) == (1, len(updates), ends[-1])
    copy = MemoryUpdatesLog()
    token = copy.acquire()
    for update in updates:
        copy.append(update, token)
    with closing(SqliteEventsLog(system.data / "events.db")) as events:
        fresh = Learner(system.config, events, copy, None)
        assert (fresh.epoch, fresh.trained_through) == (1, ends[-1])
        assert fresh.digest() == manifest.digest
    print(
        f"{len(stored)} events, {len(updates)} updates, {load.failures} failed requests, "
        f"{load.duplicates} duplicates, {dict(killer.moments)}"
    )
