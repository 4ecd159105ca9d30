"""A real ``headwater serve`` on loopback: its address, and what its processes take."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from headwater.demo._server import Server
from headwater.log.sqlite import SqliteEventsLog
from headwater.types import Entry


@dataclass(frozen=True)
class Usage:
    """What a process has taken until now."""

    cpu_seconds: float
    threads: int
    resident_bytes: int


class System(Server):
    """Runs while the context lasts, with settings of its own.

    Args:
        folder: its data, and its log.
        settings: the text of a ``headwater.toml``.
    """

    def __init__(self, folder: Path, settings: str = "") -> None:
        file = folder / "headwater.toml"
        file.write_text(settings)
        super().__init__(folder, "--config", str(file))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; there once it is ready."""
        host, _, port = urlsplit(self.url).netloc.rpartition(":")
        return host, int(port)

    def processes(self) -> dict[str, psutil.Process]:
        """Name (``supervisor``, ``api``, ``trainer``) -> process."""
        parent = psutil.Process(self.pid)
        found = {"supervisor": parent}
        for child in parent.children():
            line = child.cmdline()
            if "--role" in line:
                found[line[line.index("--role") + 1]] = child
        return found

    def usage(self) -> dict[str, Usage]:
        """Of each process by name."""
        return {name: usage(process) for name, process in self.processes().items()}


def usage(process: psutil.Process) -> Usage:
    with process.oneshot():
        times = process.cpu_times()
        return Usage(times.user + times.system, process.num_threads(), process.memory_info().rss)


def fill(folder: Path, entries: Sequence[Entry], received_at: float) -> None:
    """Appends to the events log of a data folder whose system doesn't run."""
    with closing(SqliteEventsLog(folder / "events.db")) as log:
        for start in range(0, len(entries), 1_000):
            log.append(entries[start : start + 1_000], received_at)
