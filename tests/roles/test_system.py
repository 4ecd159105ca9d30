"""The whole system as real processes: it learns, it is killed, it comes back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headwater import api, cli, data
from headwater.ingest import read_interactions
from headwater.log.sqlite import SqliteEventsLog
from headwater.types import Event

START_SECONDS = 120.0


def ratings(start: int, stop: int) -> list[dict[str, Any]]:
    stream = read_interactions(
        data.path("movietweetings-100k") / "interactions.parquet", limit=stop
    )
    return [
        {
            "event_id": event.event_id,
            "type": event.type,
            "user_id": event.user_id,
            "item_id": event.item_id,
            "value": event.value,
            "timestamp": event.timestamp,
        }
        for event in stream.events(start, stop)
    ]


def until(condition: Callable[[], Any], seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def ids(answer: dict[str, Any]) -> set[str]:
    return {item["item_id"] for item in answer["items"]}


class System:
    """``headwater serve`` on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        command = [sys.executable, "-m", "headwater.cli", "serve"]
        command += ["--data", str(folder), "--port", "0"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        address = api.running(self.folder)
        # The API of a supervisor killed a moment ago may still be there, on its way out.
        own = [child.pid for child in psutil.Process(self.process.pid).children()]
        return address is not None and address.pid in own and self.get("/readyz") is not None

    def url(self) -> str:
        address = api.running(self.folder)
        return address.url if address is not None else "http://127.0.0.1:9"

    def get(self, path: str, **params: Any) -> dict[str, Any] | None:
        """The answer; ``None`` where none comes, as while the API restarts."""
        try:
            answer = httpx.get(f"{self.url()}{path}", params=params, timeout=30)
        except httpx.TransportError:
            return None
        found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
        return found

    def post(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        answer = httpx.post(f"{self.url()}/v1/events", json=events, timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def learned(self, offset: int) -> bool:
        status = self.get("/v1/status")
        return status is not None and status["trained_through"] >= offset

    def role(self, name: str) -> psutil.Process:
        [found] = [
            child
            for child in psutil.Process(self.process.pid).children()
            if name in child.cmdline()
        ]
        return found

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if record["event"] == event]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], System]]:
    started: list[System] = []

    def begin() -> System:
        started.append(System(tmp_path / "data"))
        return started[-1]

    yield begin
    for system in started:
        if system.process.poll() is None:
            system.process.kill()
            system.process.wait()


def test_learns_stops_in_order_and_answers_alike_when_it_is_started_again(
    start: Callable[[], System],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    system = start()
    sent = ratings(0, 600)
    answer = system.post(sent)
    assert (answer["accepted"], answer["duplicate"], answer["rejected"]) == (600, 0, 0)
    offset = answer["results"][-1]["offset"]
    assert system.post(sent[-100:])["duplicate"] == 100
    users = [event["user_id"] for event in sent[-3:]]

    at_once = system.get(f"/v1/users/{users[0]}/recommendations", min_offset=offset)
    assert at_once is not None
    assert len(at_once["items"]) == 10
    assert sent[-3]["item_id"] not in ids(at_once)

    until(lambda: system.learned(offset), 60)
    before = [system.get(f"/v1/users/{user}/recommendations", n=10) for user in users]
    status = system.get("/v1/status")
    assert status is not None
    assert status["end"] == status["offset"] == status["trained_through"] == offset

    monkeypatch.setattr(sys, "argv", ["headwater", "status", "--data", str(system.folder)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    assert "600 (up to date)" in capsys.readouterr().out

    assert system.stop() == 0
    assert [record["child"] for record in system.logged("role stopped")] == ["api", "trainer"]
    assert api.running(system.folder) is None
    assert list((system.folder / "snapshots").iterdir())

    again = start()
    after = [again.get(f"/v1/users/{user}/recommendations", n=10) for user in users]
    for old, new in zip(before, after, strict=True):
        assert old is not None
        assert new is not None
        # Popularity decays and gaps grow while the system is down, so two items may change places.
        assert len(ids(old) & ids(new)) >= 9
        assert (new["version"], new["trained_through"]) == (old["version"], offset)
    more = again.post(ratings(600, 700))["results"][-1]["offset"]
    until(lambda: again.learned(more), 60)
    assert not again.logged("new epoch"), "the trainer went on from its snapshot"
    assert again.stop() == 0


def test_kill_9_of_anything_loses_nothing_and_counts_nothing_twice(
    start: Callable[[], System],
) -> None:
    system = start()
    events = ratings(0, 1500)
    acknowledged: list[str] = []

    def send() -> None:
        """Sends everything, again where no answer came, as a client does."""
        for at in range(0, len(events), 50):
            while True:
                try:
                    results = system.post(events[at : at + 50])["results"]
                    break
                except (httpx.HTTPError, ValueError):
                    time.sleep(0.05)
            acknowledged.extend(result["event_id"] for result in results)
            time.sleep(0.02)

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: len(acknowledged) >= 200)
    system.role("trainer").kill()
    until(lambda: len(acknowledged) >= 500)
    system.role("api").kill()
    sender.join(120)
    assert not sender.is_alive()
    assert len(acknowledged) == 1500
    until(lambda: system.learned(1500))
    assert {r["child"] for r in system.logged("role ended, restarting")} == {"trainer", "api"}

    roles = [system.role("trainer"), system.role("api")]
    system.process.kill()
    system.process.wait()
    system = start()
    assert all(not role.is_running() or role.status() == psutil.STATUS_ZOMBIE for role in roles), (
        "the roles of the killed supervisor were gone before new ones started"
    )
    until(lambda: system.learned(1500), 60)
    assert system.stop() == 0
    with closing(SqliteEventsLog(system.folder / "events.db")) as log:
        entries = [record.entry for record in log.read(0, 2000)]
    assert [e.event_id for e in entries if isinstance(e, Event)] == [e["event_id"] for e in events]
