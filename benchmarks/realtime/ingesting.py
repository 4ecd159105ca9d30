"""Events taken in over HTTP in arrays of 100, each acknowledged when it is on the disk.

The whole system runs: the API folds what it took in, the trainer learns what it can of it.
More is offered than is asked for, at an even rate; what is beyond the system's means is shed,
and only what was acknowledged counts. Beside it, in the same run, the same arrays go into bare
SQLite, in a table with a unique id, as ours has, one transaction and fsync each, and, since
the server commits together what waits together, ten arrays to a transaction; and into a bare
file, written and fsynced each.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import msgspec
import typer

from benchmarks.loading import Ask, Load, Stream, load, request
from benchmarks.realtime.figures import Figure, Measured, at_least, percentile, runs
from benchmarks.realtime.system import System, Usage, fill
from benchmarks.realtime.world import World

ITEMS, USERS, HISTORY, ARRAY = 100_000, 100_000, 1_000, 100
OFFERED = 65_000
"""Events per second, a third more than is asked for."""
SECONDS, BARE_SECONDS = 10.0, 3.0
CONNECTIONS = 64
TOGETHER = 10

Array = list[dict[str, Any]]


@dataclass
class Run:
    """One run: what became of the load, and events per second by each way beside it."""

    done: Load
    before: dict[str, Usage]
    after: dict[str, Usage]
    beside: dict[str, float]

    @property
    def rate(self) -> float:
        """Events acknowledged per second of the load."""
        return self.done.answered * ARRAY / self.done.seconds

    def cpu(self, process: str) -> float:
        """Microseconds of a process per acknowledged event."""
        taken = self.after[process].cpu_seconds - self.before[process].cpu_seconds
        return 1e6 * taken / max(self.done.answered * ARRAY, 1)


def measure(quick: bool) -> Measured:
    """Acknowledged events per second, and the share of bare SQLite's."""
    seconds, bare = (2.0, 0.5) if quick else (SECONDS, BARE_SECONDS)
    found = []
    for run in range(runs(quick)):
        print(f"  run {run + 1} of {runs(quick)}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found.append(_run(Path(folder), seconds, bare, run))
    return Measured(_figures(found), notes=_notes(found))


def arrays(world: World, n: int, seed: int) -> list[Array]:
    """Arrays as clients send them: ids are random, times those of sending."""
    random_ids, pairs, now = random.Random(seed), world.pairs(), time.time()

    def event() -> dict[str, Any]:
        user, item = next(pairs)
        return {
            "event_id": f"{random_ids.getrandbits(128):032x}",
            "type": "view",
            "user_id": user,
            "item_id": item,
            "timestamp": now,
        }

    return [[event() for _ in range(ARRAY)] for _ in range(n)]


def _run(folder: Path, seconds: float, bare: float, run: int) -> Run:
    world, rate = World(ITEMS, USERS, run), OFFERED / ARRAY
    sent = arrays(world, int(rate * seconds), run)
    asks = [Ask("array", request("POST", "/v1/events", msgspec.json.encode(one))) for one in sent]
    now = time.time()
    (folder / "data").mkdir()
    fill(folder / "data", world.history(HISTORY, now), now)
    with System(folder / "data") as system:
        system.until_ready()
        before = system.usage()
        stream = Stream(rate, asks.__getitem__)
        done = load(*system.address, [stream], seconds, connections=CONNECTIONS)
        after = system.usage()
    beside = {
        "bare SQLite": in_sqlite(folder / "bare.db", sent, 1, bare),
        f"bare SQLite, {TOGETHER} arrays a commit": in_sqlite(
            folder / "together.db", sent, TOGETHER, bare
        ),
        "bare file": in_file(folder / "bare.jsonl", sent, bare),
    }
    return Run(done, before, after, beside)


def in_sqlite(path: Path, sent: Sequence[Array], together: int, seconds: float) -> float:
    """Events per second into a table with a unique id, durably, so many arrays a transaction."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL").fetchall()
        connection.execute("CREATE TABLE events(event_id TEXT UNIQUE NOT NULL, body BLOB NOT NULL)")

        def write(part: Sequence[Array]) -> None:
            rows = [(e["event_id"], msgspec.json.encode(e)) for array in part for e in array]
            with connection:
                connection.executemany("INSERT INTO events VALUES(?, ?)", rows)

        return _per_second(sent, together, seconds, write)


def in_file(path: Path, sent: Sequence[Array], seconds: float) -> float:
    """Events per second into a file that is fsynced for every array."""
    with path.open("wb", buffering=0) as file:

        def write(part: Sequence[Array]) -> None:
            for array in part:
                file.write(msgspec.json.encode(array))
            os.fsync(file.fileno())

        return _per_second(sent, 1, seconds, write)


def _per_second(
    sent: Sequence[Array], together: int, seconds: float, write: Callable[[Sequence[Array]], None]
) -> float:
    started, events = time.perf_counter(), 0
    for place in range(0, len(sent), together):
        part = sent[place : place + together]
        write(part)
        events += sum(map(len, part))
        if time.perf_counter() - started > seconds:
            break
    return events / (time.perf_counter() - started)


def _figures(found: Sequence[Run]) -> list[Figure]:
    names = list(found[0].beside)
    middle = {name: percentile([run.beside[name] for run in found], 50) for name in names}
    latencies = [run.done.latencies[run.done.statuses == 200] * 1_000.0 for run in found]
    return [
        Figure("ingested durably", "events/s", [r.rate for r in found], at_least(50_000), middle),
        Figure(
            "against bare SQLite",
            "times",
            [run.rate / run.beside["bare SQLite"] for run in found],
            at_least(0.6),
        ),
        Figure("acknowledged, p50", "ms", [percentile(of.tolist(), 50) for of in latencies]),
        Figure("acknowledged, p99", "ms", [percentile(of.tolist(), 99) for of in latencies]),
        Figure("API", "CPU µs/event", [run.cpu("api") for run in found]),
    ]


def _notes(found: Sequence[Run]) -> dict[str, float | str]:
    last = found[-1]
    statuses = last.done.statuses
    return {
        "offered, events/s": OFFERED,
        "arrays acknowledged, shed, unanswered": ", ".join(
            f"{int((statuses == status).sum()):,}" for status in (200, 503, 0)
        ),
        "threads": ", ".join(f"{name} {used.threads}" for name, used in last.after.items()),
        "CPU seconds": ", ".join(
            [
                f"{name} {used.cpu_seconds - last.before[name].cpu_seconds:.1f}"
                for name, used in last.after.items()
            ]
            + [f"load {last.done.cpu_seconds:.1f}"]
        ),
    }


def main(quick: bool = False) -> None:
    """This row alone."""
    found = measure(quick)
    for figure in found.figures:
        print(figure.name, [round(value, 3) for value in figure.values], figure.unit, figure.beside)
    for note, value in found.notes.items():
        print(f"  {note}: {value}")


if __name__ == "__main__":
    typer.run(main)
