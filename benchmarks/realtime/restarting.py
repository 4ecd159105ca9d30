"""How soon a killed system is there again: API and trainer, from a snapshot and what came after.

A log of a million events, of 100,000 users on 100,000 items, of which a snapshot holds all but the
newest 5,000. Those come over HTTP and are learned; then every process is killed with SIGKILL
and the system started again, imports included. It is ready when ``/readyz`` says so: all events
are folded, and updates applied as far as the log goes. The trainer is back when weights that
learned from an event sent after the kill are in what answers; before that it learns again what
was published after the snapshot. Beside it: reading the tail out of the log's file, and the
snapshot's bytes.

The state before is counted only, not learned by gradient, which takes no part in how much there
is to load.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
import httpx
import psutil
import typer

from benchmarks.realtime.figures import Figure, Measured, at_most, runs
from benchmarks.realtime.system import System
from benchmarks.realtime.world import World
from headwater import api
from headwater.config import Config
from headwater.deploy import Snapshots
from headwater.errors import HeadwaterError
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Learner
from headwater.types import Event

EVENTS, USERS, ITEMS, TAIL = 1_000_000, 100_000, 100_000, 5_000
LIMIT_SECONDS = 300.0
_CHUNK = 5_000


@dataclass
class Restart:
    """Seconds of one restart from the start of the command on."""

    ready: float
    learning: float
    api_cpu: float
    """Processor seconds of the API by the time it was ready."""
    tail: float
    """Seconds that reading the events of the tail takes in bare SQLite."""
    snapshot: float
    """Seconds that reading the snapshot's bytes takes."""


def measure(quick: bool) -> Measured:
    """Seconds until a killed system is ready."""
    events = 50_000 if quick else EVENTS
    found: list[Restart] = []
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        build(folder, events, events // 10)
        with System(folder) as system:
            system.until_ready()
            pairs = World(ITEMS, USERS, 1).pairs()
            for _ in range(TAIL // 100):
                system.send([_sent(*next(pairs)) for _ in range(100)])
            system.until_ready()
            _kill(system)
        for run in range(runs(quick)):
            print(f"  run {run + 1} of {runs(quick)}", flush=True)
            found.append(_restart(folder, events))
        size = sum(path.stat().st_size for path in (folder / "snapshots").iterdir())
    beside = {
        "bare SQLite reads the tail": found[-1].tail,
        "the snapshot's bytes are read": found[-1].snapshot,
    }
    return Measured(
        [
            Figure("ready after SIGKILL", "s", [r.ready for r in found], at_most(5.0), beside),
            Figure("learns again after SIGKILL", "s", [r.learning for r in found]),
            Figure("API until ready", "CPU s", [r.api_cpu for r in found]),
        ],
        notes={"events": events, "tail": TAIL, "snapshots, MB": size / 1e6},
    )


def build(folder: Path, events: int, users: int) -> None:
    """A log, and a snapshot that stands for all of it."""
    now, config = time.time(), Config()
    pairs = _everyone(World(users, users))
    with (
        closing(SqliteEventsLog(folder / "events.db")) as log,
        closing(SqliteUpdatesLog(folder / "updates.db")) as updates,
    ):
        learner = Learner(config, log, updates, folder / "snapshots", anew=True)
        fold = learner.fold
        for start in range(0, events, _CHUNK):
            chunk = enumerate(islice(pairs, min(_CHUNK, events - start)), start)
            log.append(
                [Event(f"e{n}", "view", user, now - events + n, item) for n, (user, item) in chunk],
                now,
            )
            while fold.offset < log.end():
                records = fold.until_cut(log.read(fold.offset, 1_000))
                batch, removed = fold.batch(records)
                fold.model.count(batch)
                learner.stages.remember(batch, fold.forget(records, removed))
        learner.begin_epoch("it was counted")


def _everyone(world: World) -> Iterator[tuple[str, str]]:
    """Every user with every item once, and then what the world does."""
    yield from ((f"u{n}", f"i{n}") for n in range(world.users))
    yield from world.pairs()


def _sent(user: str, item: str) -> dict[str, str]:
    return {"type": "view", "user_id": user, "item_id": item}


def _kill(system: System) -> None:
    """All processes at once, so that none has the time to put things in order."""
    processes = list(system.processes().values())
    for process in processes:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes)


def _restart(folder: Path, events: int) -> Restart:
    with closing(apsw.Connection(str(folder / "events.db"))) as connection:
        started = time.perf_counter()
        rows: list[Any] = connection.execute(
            "SELECT * FROM blocks WHERE first > ?", (events,)
        ).fetchall()
        tail = time.perf_counter() - started
    assert sum(int(row[1]) for row in rows) >= TAIL
    started = time.perf_counter()
    Snapshots(folder / "snapshots", 1).paths()[-1].read_bytes()
    snapshot = time.perf_counter() - started
    started = time.perf_counter()
    with System(folder) as system:
        with httpx.Client(timeout=10.0) as client:
            _until(lambda: _is_ready(system, folder, client))
            ready = time.perf_counter() - started
            api_cpu = system.usage()["api"].cpu_seconds
        offset = system.send([_sent("u1", f"new-{time.time()}")])
        _until(lambda: system.status()["trained_through"] >= offset)
        learning = time.perf_counter() - started
        _kill(system)
    return Restart(ready, learning, api_cpu, tail, snapshot)


def _is_ready(system: System, folder: Path, client: httpx.Client) -> bool:
    system.check()
    address = api.running(folder)
    if address is None:
        return False
    system.url = address.url
    try:
        return client.get(f"{address.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _until(condition: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > deadline:
            raise HeadwaterError(f"the system isn't back after {seconds:.0f} s")
        time.sleep(0.01)


def main(quick: bool = False) -> None:
    """This row alone."""
    found = measure(quick)
    for figure in found.figures:
        print(figure.name, [round(value, 3) for value in figure.values], figure.unit, figure.beside)
    print(found.notes)


if __name__ == "__main__":
    typer.run(main)
