"""A live system as its users have it: ``headwater serve`` on a folder, spoken to over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from headwater import config as settings
from headwater import data
from headwater.config import Config
from headwater.ingest import read_interactions
from headwater.log import StoredUpdate
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.types import Record

SMALL = """
[preprocess]
history_length = 10
[popularity]
half_lives_hours = [1.0, 24.0]
[transitions]
width = 8
[sequence]
dim = 8
layers = 1
heads = 1
negatives = 64
earlier_positions = 2
replay_buffer = 500
[mixture]
candidates = 30
hidden = 8
replay_buffer = 300
"""

PATIENCE = 60.0
"""Seconds after which something that must happen counts as not happening."""

_T = TypeVar("_T")


def until(condition: Callable[[], _T], seconds: float = PATIENCE) -> _T:
    """What ``condition`` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


def ratings(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Events of the shipped stream, as a client sends them."""
    read = read_interactions(data.path("movietweetings-100k") / "interactions.parquet")
    return [
        {
            "event_id": f"r{event.event_id}",
            "type": event.type,
            "user_id": event.user_id,
            "item_id": event.item_id,
            "timestamp": event.timestamp,
            "value": event.value,
        }
        for event in read.events(start, start + n)
    ]


class System:
    """A folder with settings and data, and the processes on it while they run."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder
        self.data = folder / "data"
        self.settings = folder / "settings.toml"
        self.settings.write_text(SMALL + extra)
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(timeout=30.0)
        self._seen: list[psutil.Process] = []

    @property
    def config(self) -> Config:
        return settings.load(self.settings)

    # --- processes -------------------------------------------------------------------------------

    def start(self) -> System:
        """Starts the supervisor; returns at once."""
        command = [sys.executable, "-m", "headwater.cli", "serve", "--port", "0"]
        command += ["--data", str(self.data), "--config", str(self.settings)]
        with (self.folder / "err").open("ab") as err:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=err, stderr=err
            )
        return self

    def role(self, name: str) -> psutil.Process | None:
        """The living process of a role."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with suppress(psutil.NoSuchProcess):
                    line = child.cmdline()
                    if "--role" in line and line[line.index("--role") + 1] == name:
                        self._seen.append(child)
                        return child
        return None

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL to the supervisor; what it leaves behind has to end by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Nothing of it is left, whatever state a test left it in."""
        for name in ("trainer", "api", "challenger"):
            if self.process is not None and self.process.poll() is None:
                self.role(name)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for child in self._seen:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.client.close()

    # --- HTTP ------------------------------------------------------------------------------------

    def url(self) -> str | None:
        """Where the API listens; what a killed one left behind doesn't count."""
        try:
            address = json.loads((self.data / "api.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        if not psutil.pid_exists(address["pid"]):
            return None
        return f"http://{address['host']}:{address['port']}"

    def ready(self) -> bool:
        with suppress(httpx.TransportError):
            return (url := self.url()) is not None and self.client.get(
                f"{url}/readyz"
            ).status_code == 200
        return False

    def wait_until_ready(self) -> System:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            return self.ready()

        until(ready)
        return self

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """The JSON of a successful answer."""
        answer = self.client.request(method, f"{self.url()}{path}", **arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params=params)

    def post(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Appends events; what became of each."""
        results: list[dict[str, Any]] = self.request("POST", "/v1/events", json=events)["results"]
        return results

    def recommend(self, user_id: str, n: int = 20, **params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.get(f"/v1/users/{user_id}/recommendations", n=n, **params)
        return answer

    def wait_until_learned(self) -> int:
        """The end of the log, once all of it was learned and reached the API."""

        def learned() -> int:
            status = self.get("/v1/status")
            return int(status["end"]) if status["trained_through"] == status["end"] else 0

        return until(learned)

    # --- what it left behind ---------------------------------------------------------------------

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Records of all processes' logs."""
        lines = (self.folder / "err").read_text(errors="replace").splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if event in (None, record["event"])]

    def records(self) -> list[Record]:
        with closing(SqliteEventsLog(self.data / "events.db")) as log:
            return log.read(0, 1_000_000)

    def updates(self) -> list[StoredUpdate]:
        with closing(SqliteUpdatesLog(self.data / "updates.db")) as log:
            return log.read(0, 1_000_000)
