"""Followers are woken by the append, long before they would have looked by themselves."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headwater.log import _wake
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.types import Event

LONG = 30.0
"""A poll that no test waits for: who returns sooner was woken."""

FOLLOWER = """
import sys
from pathlib import Path
from headwater.log import _wake
from headwater.log.sqlite import SqliteEventsLog

_wake.POLL_SECONDS = float(sys.argv[2])
log = SqliteEventsLog(Path(sys.argv[1]))
print("ready", flush=True)
print(log.wait(0, 60.0), flush=True)
"""


def event(name: str) -> Event:
    return Event(name, "view", "u1", 1000.0)


def sockets(path: Path) -> list[Path]:
    return sorted(_wake._socket_folder(path).glob("*"))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def slow_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wake, "POLL_SECONDS", LONG)


def follower(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", FOLLOWER, str(path), str(LONG)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    until(lambda: sockets(path))
    return process


def test_an_append_wakes_a_follower_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with contextlib.closing(SqliteEventsLog(path)) as log, follower(path) as process:
        started = time.monotonic()
        log.append([event("a")], 2000.0)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert time.monotonic() - started < LONG / 6


@pytest.mark.usefixtures("slow_poll")
def test_every_waiting_thread_of_every_log_is_woken(tmp_path: Path) -> None:
    path = tmp_path / "updates.db"
    with (
        contextlib.closing(SqliteEventsLog(tmp_path / "events.db")) as log,
        contextlib.closing(SqliteEventsLog(tmp_path / "events.db")) as other,
        contextlib.closing(SqliteUpdatesLog(path)) as unrelated,
        ThreadPoolExecutor(5) as threads,
    ):
        waiters = [threads.submit(each.wait, 0, LONG) for each in (log, log, other, other)]
        asleep = threads.submit(unrelated.wait, 0, LONG)
        until(lambda: len(sockets(tmp_path / "events.db")) == 4 and sockets(path))
        started = time.monotonic()
        log.append([event("a")], 2000.0)
        assert all(waiter.result(LONG / 3) for waiter in waiters)
        # Sockets are kept for the next wait, and what they received meanwhile doesn't harm it.
        log.append([event("b")], 2000.0)
        assert not log.wait(2, 0.05)
        assert len(sockets(tmp_path / "events.db")) == 4
        assert not asleep.done()
        unrelated.close()
        assert not asleep.result(LONG / 3)
        assert time.monotonic() - started < LONG / 3


@pytest.mark.usefixtures("slow_poll")
def test_a_follower_that_waits_for_many_is_not_woken_by_each(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    asked: list[bool] = []
    ready = threading.Event()

    def is_ready() -> bool:
        asked.append(ready.is_set())
        return asked[-1]

    with (
        contextlib.closing(_wake.Wake(path)) as ours,
        contextlib.closing(_wake.Wake(path)) as other,
        ThreadPoolExecutor(1) as threads,
    ):
        waiting = threads.submit(ours.wait, is_ready, LONG)
        until(lambda: sockets(path))
        until(lambda: len(asked) >= 2)  # before it sleeps, and behind that
        before = len(asked)
        for _ in range(2_000):
            other.notify()
        assert len(asked) - before < 200
        ready.set()
        other.notify()
        assert waiting.result(LONG / 3)


def test_without_the_wake_up_only_the_poll_ends_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wake, "POLL_SECONDS", 0.4)
    monkeypatch.setattr(_wake.Wake, "notify", lambda self: None)
    with (
        contextlib.closing(SqliteEventsLog(tmp_path / "events.db")) as log,
        ThreadPoolExecutor(1) as threads,
    ):
        started = time.monotonic()
        waiter = threads.submit(log.wait, 0, LONG)
        until(lambda: sockets(tmp_path / "events.db"))
        log.append([event("a")], 2000.0)
        assert waiter.result(LONG)
        assert time.monotonic() - started > 0.35


def test_sockets_are_removed_by_closing_and_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with contextlib.closing(SqliteEventsLog(path)) as log:
        with follower(path) as process:
            process.kill()
        assert len(sockets(path)) == 1
        log.append([event("a")], 2000.0)
        assert sockets(path) == []
        assert not log.wait(1, 0.01)
        assert len(sockets(path)) == 1
    assert sockets(path) == []


@pytest.mark.usefixtures("slow_poll")
def test_a_folder_too_long_for_a_socket_address_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / ("deep" * 30) / "events.db"
    with (
        contextlib.closing(SqliteEventsLog(path)) as log,
        contextlib.closing(SqliteEventsLog(path)) as other,
        ThreadPoolExecutor(1) as threads,
    ):
        waiter = threads.submit(other.wait, 0, LONG)
        until(lambda: sockets(path))
        assert sockets(path)[0].is_relative_to(tempfile.gettempdir())
        log.append([event("a")], 2000.0)
        assert waiter.result(LONG / 3)
    assert not _wake._socket_folder(path).exists()


def test_a_short_folder_keeps_its_sockets_beside_the_log() -> None:
    assert _wake._socket_folder(Path("/data/events.db")) == Path("/data/events.db.wake")


def test_where_no_socket_can_be_bound_the_poll_is_left(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    _wake._socket_folder(path).write_text("a file where the sockets should be")
    with (
        contextlib.closing(SqliteEventsLog(path)) as log,
        ThreadPoolExecutor(1) as threads,
    ):
        waiter = threads.submit(log.wait, 0, LONG)
        time.sleep(0.02)
        log.append([event("a")], 2000.0)
        assert waiter.result(LONG)
