"""What a user and an item take in the API process, and that a stream takes no more and more.

**Resident**: the process grows by so much while users come, and then items, with a few events each:
from the first on there is a place for a full history, and for all neighbours of an item. The ring
of precedents is full before, so that it isn't counted as theirs. **Arrays**: bytes of the
trainer's state in arrays that have a place for each user, or for each item, and of the table that
finds a row by an id. No disk is in these figures; it is stated in the notes.

**Flat**: ten million events of ever-new users and items, of which the settings keep 20,000 each;
resident size at each tenth of the stream after the first.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import typer

from benchmarks.realtime.figures import Curve, Figure, Measured, Plot, at_most, runs
from headwater.config import Config
from headwater.log import EventsLog
from headwater.log.chunks import Chunk
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.log.sqlite import SqliteEventsLog
from headwater.loop import Follower, Learner
from headwater.types import Event, Record, State

USERS, ITEMS, WARM = 100_003, 80_021, 20_011
"""Primes, so that no other array has so many rows by chance."""
OF_USER, OF_ITEM = 5, 5
RING = 100_000
STREAM, KEPT = 10_000_000, 20_000
NOW = 1.8e9


class Stream:
    """The reading side of an events log that makes its events as they are read."""

    def __init__(self, pairs: Iterator[tuple[int, int]]) -> None:
        self.pairs = pairs
        self.newest = 0

    def start(self) -> int:
        return 0

    def end(self) -> int:
        return self.newest

    def rollbacks(self, after: int) -> list[Record]:
        return []

    def read(self, after: int, limit: int) -> list[Record]:
        through = min(after + limit, self.newest)
        made = zip(range(after + 1, through + 1), self.pairs, strict=False)
        return [
            Record(n, NOW + n, NOW + n, Event("", "view", f"user-{u}", NOW + n, f"item-{i}"))
            for n, (u, i) in made
        ]

    def chunk(self, after: int, limit: int) -> Chunk:
        return Chunk.of(self.read(after, limit))


def measure(quick: bool) -> Measured:
    """Bytes per user and per item, and how much the size of a process varies over a stream."""
    scale, stream = (10, STREAM // 40) if quick else (1, STREAM)
    found = [_grown(scale) for _ in range(runs(quick))]
    sizes = _stream(stream)
    steady = np.array(sizes[1:])
    variation = 100.0 * float(np.abs(steady / np.median(steady) - 1.0).max())
    of_user, of_item = _arrays(quick)
    users, items = zip(*found, strict=True)
    x = [stream * (n + 1) / len(sizes) for n in range(len(sizes))]
    return Measured(
        [
            Figure("resident per user", "bytes", users, at_most(700.0), {"arrays": of_user}),
            Figure("resident per item", "bytes", items, at_most(2_500.0), {"arrays": of_item}),
            Figure("variation over the stream", "± %", [variation], at_most(2.0)),
        ],
        [
            Plot(
                "memory",
                f"Ever-new users and items, {KEPT:,} of each kept",
                "events",
                "MB",
                [Curve("resident", x, [size / 1e6 for size in sizes])],
            )
        ],
        {
            "events of the stream": stream,
            "users, items": f"{USERS // scale:,}, {ITEMS // scale:,}",
            "events log, bytes of disk per event": _disk(),
        },
    )


def _grown(scale: int) -> tuple[float, float]:
    """Resident bytes of each new user, and of each new item."""
    users, items = USERS // scale, ITEMS // scale
    config = Config.model_validate({"precedents": {"events": RING}})
    log = Stream(iter(()))
    follower = Follower(config, cast(EventsLog, log), MemoryUpdatesLog(), None)

    def fold(pairs: Iterator[tuple[int, int]], events: int) -> int:
        log.pairs = pairs
        log.newest += events
        follower.catch_up()
        gc.collect()
        return resident()

    random = np.random.default_rng(0)

    def turns(users: int, first_item: int, items: int) -> Iterator[tuple[int, int]]:
        """Every item in turn, by users at random."""
        for n in count():
            yield int(random.integers(users)), first_item + n % items

    def histories() -> Iterator[tuple[int, int]]:
        """Every new user in turn, with items at random."""
        for n in range(users * OF_USER):
            yield WARM + n % users, int(random.integers(WARM))

    before = fold(turns(WARM, 0, WARM), 2 * RING)
    with_users = fold(histories(), users * OF_USER)
    with_items = fold(turns(WARM + users, WARM, items), items * OF_ITEM)
    return (with_users - before) / users, (with_items - with_users) / items


def _stream(events: int) -> list[int]:
    """Resident bytes at every tenth of a stream in which no id comes for long."""
    kept = {"max_users": KEPT, "max_items": KEPT}
    config = Config.model_validate({"precedents": {"events": RING}, "preprocess": kept})

    def ever_new() -> Iterator[tuple[int, int]]:
        random = np.random.default_rng(0)
        for n in count():
            if n % 1_000 == 0:
                ages = random.integers(0, KEPT, (1_000, 2)).tolist()
            user, item = ages[n % 1_000]
            yield n // 10 - user, n // 20 - item

    log = Stream(ever_new())
    follower = Follower(config, cast(EventsLog, log), MemoryUpdatesLog(), None)
    sizes = []
    for _ in range(10):
        log.newest += events // 10
        follower.catch_up()
        gc.collect()
        sizes.append(resident())
    return sizes


def resident() -> int:
    """Bytes of this process in memory."""
    return int(psutil.Process().memory_info().rss)


def _arrays(quick: bool) -> tuple[float, float]:
    """Bytes of the trainer's arrays for each user, and for each item, and of ids to rows."""
    scale = 100 if quick else 10
    users, items = _prime(USERS // scale), _prime(ITEMS // scale)
    log = MemoryEventsLog()
    learner = Learner(Config(), log, MemoryUpdatesLog(), None)
    n = max(users, items)
    log.append(
        [
            Event(f"{k}", "view", f"user-{k % users}", NOW + k, f"item-{k % items}")
            for k in range(n)
        ],
        NOW + n,
    )
    fold = learner.fold
    while fold.offset < n:
        records = fold.until_cut(log.read(fold.offset, 1_000))
        batch, removed = fold.batch(records)
        fold.model.count(batch)
        fold.forget(records, removed)
    state = learner.state()
    return (
        rows(state, users) + _ids("user-", users),
        rows(state, items) + _ids("item-", items),
    )


def rows(state: State, n: int) -> float:
    """Bytes per row of the arrays that have n rows."""
    return sum(array.nbytes for array in state.values() if array.shape[:1] == (n,)) / n


def _ids(prefix: str, n: int) -> float:
    """Bytes per id of a table from ids to rows: strings, a list, and a dict of numbers."""
    ids = [f"{prefix}{k}" for k in range(n)]
    by_id = {id: row for row, id in enumerate(ids)}
    strings = sum(map(sys.getsizeof, ids)) + sum(map(sys.getsizeof, by_id.values()))
    return (strings + sys.getsizeof(ids) + sys.getsizeof(by_id)) / n


def _prime(least: int) -> int:
    return next(n for n in count(least) if all(n % k for k in range(2, int(n**0.5) + 1)))


def _disk() -> float:
    """Bytes of the events log per event that a client sent with an id of 32 characters."""
    n, now = 20_000, time.time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.db"
        with closing(SqliteEventsLog(path)) as log:
            for start in range(0, n, 1_000):
                log.append(
                    [
                        Event(f"{k:032x}", "view", f"user-{k}", now, f"item-{k}")
                        for k in range(start, start + 1_000)
                    ],
                    now,
                )
        return path.stat().st_size / n


def main(quick: bool = False) -> None:
    """This row alone."""
    found = measure(quick)
    for figure in found.figures:
        print(figure.name, [round(value, 2) for value in figure.values], figure.unit, figure.beside)
    print(found.notes)


if __name__ == "__main__":
    typer.run(main)
