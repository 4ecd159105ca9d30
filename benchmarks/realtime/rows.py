"""The rows of the benchmark. Each is a module with ``measure(quick: bool) -> Measured``."""

from __future__ import annotations

from importlib import import_module

import msgspec
import psutil

from benchmarks.realtime.figures import Measured

ROWS = (
    "freshness",
    "learning",
    "history",
    "ingesting",
    "overload",
    "restarting",
    "memory",
    "large",
)
"""Names of the modules, in the order in which they run."""


def measure(name: str, quick: bool) -> Measured:
    """Runs a row; in a process of its own, so that no row finds what another left behind."""
    found: Measured = import_module(f"benchmarks.realtime.{name}").measure(quick)
    process = psutil.Process()
    times = process.cpu_times()
    own = {
        "threads of the benchmark": process.num_threads(),
        "CPU seconds of the benchmark": round(times.user + times.system, 1),
    }
    return msgspec.structs.replace(found, notes={**found.notes, **own})
