"""Runs the API in this process: logs, model thread and web server, until a signal."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog
import uvicorn

from headwater.api._app import create_app
from headwater.api._protocol import Protocol
from headwater.config import Config
from headwater.deploy import CHALLENGERS
from headwater.errors import Dropped, HeadwaterError, Unfit
from headwater.feedback import Feedback
from headwater.keys import KeyRing
from headwater.log.served import ServedLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog

if TYPE_CHECKING:
    from headwater.loop import Follower

ADDRESS_FILE = "api.json"
"""In the data folder while the API listens: pid, host and port, for ``headwater status``."""
DRAIN_SECONDS = 10
"""Longest that a stopping server waits for requests in work."""
COLLECTED_AFTER = 20_000
"""Objects between two collections of garbage; by Python's default, 700, a collection comes every
few requests, and finds nothing."""

SWITCH_SECONDS = 0.0005
"""Longest that a thread waits for another one that runs Python; by Python's default, 5 ms, a list
waits that long at any of its kernels' ends while the event loop has requests to take in."""


class Address(msgspec.Struct, frozen=True):
    """Where a running API listens."""

    pid: int
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where this machine reaches it.

        >>> Address(1, "0.0.0.0", 8080).url, Address(1, "::1", 80).url
        ('http://127.0.0.1:8080', 'http://[::1]:80')
        """
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def serve(
    config: Config,
    data: Path,
    host: str,
    port: int,
) -> None:
    """Serves the data folder until SIGTERM or SIGINT, then drains, stops and closes the logs.

    Args:
        port: 0 takes a free one; ``api.json`` in ``data`` says which.

    Raises:
        LogError: a log can't be opened.
        ConfigError: the keys can't be read.
        Unfit, Dropped: no snapshot that fits the settings stands for what is to be served.
        HeadwaterError: the model thread died of something else; its error is in the log.
    """
    data.mkdir(parents=True, exist_ok=True)
    gc.set_threshold(COLLECTED_AFTER)
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.ExitStack() as stack:
        events = stack.enter_context(contextlib.closing(SqliteEventsLog(data / "events.db")))
        updates = stack.enter_context(contextlib.closing(SqliteUpdatesLog(data / "updates.db")))
        feedback = stack.enter_context(
            contextlib.closing(Feedback(ServedLog(data / "served.db"), config))
        )
        keys = KeyRing(data, config.serve.api_key)
        listener = stack.enter_context(_listen(host, port))

        def follower() -> Follower:
            gc.disable()  # what is imported and what a snapshot holds stays
            from headwater.loop import CanaryFollower

            found = CanaryFollower(config, events, updates, data / "snapshots", data / CHALLENGERS)
            gc.freeze()
            gc.enable()
            return found

        deaths: list[Exception] = []

        def died(error: Exception) -> None:
            deaths.append(error)
            server.should_exit = True

        def started() -> None:
            address = Address(os.getpid(), host, listener.getsockname()[1])
            stack.enter_context(_published(data / ADDRESS_FILE, address))
            structlog.get_logger().info("listening", host=address.host, port=address.port)

        app = create_app(
            config,
            follower=follower,
            events=events,
            updates=updates,
            feedback=feedback,
            snapshots=data / "snapshots",
            challengers=data / CHALLENGERS,
            keys=keys,
            died=died,
        )
        server = _Server(
            uvicorn.Config(
                app,
                interface="asgi3",
                loop="uvloop",
                http=Protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            ),
            started,
        )
        server.run(sockets=[listener])
        for error in deaths:
            if isinstance(error, (Unfit, Dropped)):
                raise error
            raise HeadwaterError("the model thread died; its error is in the log above")


def running(data: Path) -> Address | None:
    """The address of the API that serves ``data``; ``None`` where none does.

    A file that a killed process left behind doesn't count.
    """
    try:
        address = msgspec.json.decode((data / ADDRESS_FILE).read_bytes(), type=Address)
        os.kill(address.pid, 0)
    except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError):
        return None
    except PermissionError:
        pass  # it lives, and belongs to another user
    return address


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again after draining, which would end the process before
        # the logs are closed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=2048)


@contextlib.contextmanager
def _published(path: Path, address: Address) -> Iterator[None]:
    """Keeps ``address`` in ``path`` while the context lasts; readers see all of it or nothing."""
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(address))
    part.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
