"""The demo's own ``headwater serve``: a process, its address, and its HTTP API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from headwater import api
from headwater.errors import HeadwaterError

READY_SECONDS = 120.0
"""Longest start: two processes import torch and, the first time, compile the counting kernels."""
STOP_SECONDS = 30.0
ANSWER_SECONDS = 30.0


class Server:
    """Runs while the context lasts. If this process is killed, the server stops by itself.

    Args:
        folder: its data, and its log.
        arguments: further ones of the command.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.url = ""
        self._folder = folder
        self._arguments = arguments
        self._log = folder / "serve.log"
        self._client = httpx.Client(timeout=ANSWER_SECONDS)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "headwater.cli", "serve", "--supervised"]
        command += ["--data", str(self._folder), "--host", "127.0.0.1", "--port", "0"]
        command += self._arguments
        # The settings of whoever runs the demo, a key above all, aren't the demo's.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
                env=environment,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        """Of the supervisor; the roles are its children."""
        return self._process.pid

    def until_ready(self) -> None:
        """Waits until the API answers and the trainer has learned what is in the log.

        Raises:
            HeadwaterError: the server ended, or isn't ready in time.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready():
            self.check()
            if time.monotonic() > deadline:
                raise HeadwaterError(
                    f"the server isn't ready after {READY_SECONDS:.0f} s{self._end()}"
                )
            time.sleep(0.1)

    def status(self) -> dict[str, Any]:
        """The answer of ``/v1/status``."""
        return self._json("GET", "/v1/status")

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of ``/v1/metrics``, an entry per segment."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/metrics")["metrics"]
        return found

    def send(self, events: list[dict[str, Any]]) -> int:
        """Appends events; returns the offset of the last one, once all are durable.

        Raises:
            HeadwaterError: an event was rejected.
        """
        answer = self._json("POST", "/v1/events", json=events)
        if answer["rejected"]:
            raise HeadwaterError(f"events were rejected: {answer['results'][:3]}")
        offset: int = answer["results"][-1]["offset"]
        return offset

    def recommend(self, user: str, n: int = 10) -> dict[str, Any]:
        """A list for ``user``."""
        return self._json("GET", f"/v1/users/{user}/recommendations", params={"n": n})

    def check(self) -> None:
        """Raises ``HeadwaterError`` with the end of the log when the server has ended."""
        if (code := self._process.poll()) is not None:
            raise HeadwaterError(f"the server ended with code {code}{self._end()}")

    def until_interrupted(self) -> None:
        """Waits for Ctrl-C, or for the server's end."""
        try:
            self._process.wait()
        except KeyboardInterrupt:
            return
        self.check()

    def _ready(self) -> bool:
        address = api.running(self._folder)
        if address is None:
            return False
        self.url = address.url
        try:
            status = self._client.get(f"{self.url}/v1/status").json()
        except httpx.TransportError:
            return False
        return bool(status["ready"] and status["end"] and status["training_lag"] == 0)

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Asks again while the API restarts: what is sent is idempotent."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                answer = self._client.request(method, f"{self.url}{path}", **arguments)
                if answer.status_code < 500:
                    break
                problem = f"{answer.status_code} {answer.text}"
            except httpx.TransportError as error:
                problem = str(error)
            self.check()
            if time.monotonic() > deadline:
                raise HeadwaterError(f"{self.url}{path}: {problem}{self._end()}")
            time.sleep(0.2)
            address = api.running(self._folder)
            self.url = address.url if address is not None else self.url
        if answer.is_error:
            raise HeadwaterError(f"{self.url}{path}: {answer.status_code} {answer.text}")
        found: dict[str, Any] = answer.json()
        return found

    def _end(self) -> str:
        with self._log.open(errors="replace") as log:
            lines = "".join(deque(log, maxlen=10))
        return f"; the end of its log:\n{lines}"
