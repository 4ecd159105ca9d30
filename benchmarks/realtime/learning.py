"""How fast a backlog is learned: the whole loop, counting alone, and a step as the catalogue grows.

The events are in the log before the clock starts, so the trainer is behind all the time and learns
at its least shares; it reads them from SQLite, tests, trains, and publishes to SQLite. Counting
alone is what both roles do with every event: ids, histories, cleaning, all counting experts.

A step's cost is taken in full, without samples: of the gradient step and counting alone, which is
what has to stay flat, and of the whole turn with its predictions beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.realtime.figures import Curve, Figure, Measured, Plot, at_least, at_most, runs
from benchmarks.realtime.peers import river, vowpal_wabbit
from benchmarks.realtime.world import World
from headwater.config import Config
from headwater.log import EventsLog, UpdatesLog
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Follower, Learner
from headwater.train import Begun, Lesson, Trainer
from headwater.types import Entry, Event

ITEMS, USERS = 100_000, 50_000
WARM_UP, LEARNED, COUNTED, PEERS = 5_000, 50_000, 200_000, 20_000
CATALOGUES = (10_000, 100_000, 1_000_000)
STEPS = 80
"""Full micro-batches that a step's cost is the median of, after as many to warm up."""
_STARTED = 1_700_000_000.0
_AT_ONCE = 10_000


def measure(quick: bool) -> Measured:
    """The figures; a quick run is of a hundredth of the items and a tenth of the events."""
    less, fewer = (100, 10) if quick else (1, 1)
    full, counting, from_disk, processor, wabbit, stream = [], [], [], [], [], []
    for _ in range(runs(quick)):
        rate, seconds = learned(ITEMS // less, LEARNED // fewer)
        full.append(rate)
        processor.append(seconds)
        counting.append(counted(MemoryEventsLog(), ITEMS // less, COUNTED // fewer))
        with tempfile.TemporaryDirectory() as folder:
            log = SqliteEventsLog(Path(folder) / "events.db")
            with closing(log):
                from_disk.append(counted(log, ITEMS // less, COUNTED // fewer))
        pairs = list(islice(World(ITEMS // less, USERS).pairs(), PEERS // fewer))
        stream.append(river(pairs))
        wabbit.append(vowpal_wabbit(pairs))
    steps = {n // less: step_cost(n // less, STEPS // fewer) for n in CATALOGUES}
    sizes = [float(n) for n in steps]
    of_step, of_turn = ([cost[k] for cost in steps.values()] for k in (0, 1))
    return Measured(
        figures=[
            Figure(
                f"learned, full loop, {ITEMS // less:,} items",
                "events/s",
                full,
                at_least(5_000),
                {"Vowpal Wabbit, rank 16": median(wabbit), "River, rank 16": median(stream)},
            ),
            Figure(
                f"counted alone, read from SQLite, {ITEMS // less:,} items",
                "events/s",
                from_disk,
                at_least(200_000),
                {"from memory": median(counting)},
            ),
            Figure(
                f"a training step at {CATALOGUES[-1] // less:,} items against one at "
                f"{CATALOGUES[0] // less:,}",
                "times",
                [of_step[-1] / of_step[0]],
                at_most(1.2),
                {"the whole turn": of_turn[-1] / of_turn[0]},
            ),
        ],
        plots=[
            Plot(
                "step-cost",
                "Cost of a full micro-batch of 100 events",
                "items",
                "ms of processor time",
                [
                    Curve("gradient step and counting", sizes, of_step),
                    Curve("the whole turn, with predictions", sizes, of_turn),
                ],
                log_x=True,
            )
        ],
        notes={
            "events learned": LEARNED // fewer,
            "processor seconds per learned event": median(processor),
            **{f"step at {n:,} items, ms": cost[0] for n, cost in steps.items()},
            **{f"turn at {n:,} items, ms": cost[1] for n, cost in steps.items()},
        },
    )


def learned(items: int, events: int) -> tuple[float, float]:
    """Events/s of the whole loop on a backlog, and processor seconds per event."""
    world = World(items, USERS)
    with _disk() as (log, updates):
        learner = Learner(Config(), log, updates, None)
        _catalogue(learner, log, world)
        stream = made(world)
        appended(log, islice(stream, WARM_UP))
        _drain(learner)
        appended(log, islice(stream, events))
        wall, processor = time.perf_counter(), time.process_time()
        _drain(learner)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return events / wall, processor / events


def counted(log: EventsLog, items: int, events: int) -> float:
    """Events/s of counting alone, of a log that holds the catalogue and some events before."""
    world = World(items, USERS)
    follower = Follower(Config(), log, MemoryUpdatesLog(), None)
    appended(log, world.catalogue())
    stream = made(world)
    appended(log, islice(stream, events))
    follower.catch_up()
    appended(log, islice(stream, events))
    started = time.perf_counter()
    follower.catch_up()
    return events / (time.perf_counter() - started)


def step_cost(items: int, steps: int) -> tuple[float, float]:
    """Milliseconds of processor time of the step, and of the whole turn; medians."""
    config = Config.model_validate({"train": {"pace": "full"}})
    world = World(items, USERS)
    log, updates = MemoryEventsLog(), MemoryUpdatesLog()
    learner = Learner(config, log, updates, None)
    _catalogue(learner, log, world)
    of_step = _timed(learner.stages.trainer)
    of_turn: list[float] = []
    for records in _batches(world, log, 2 * steps):
        started = time.process_time()
        learner.learn(records)
        of_turn.append(time.process_time() - started)
        learner.publish()
        updates.drop(learner.sequence)
    return 1e3 * median(of_step[-steps:]), 1e3 * median(of_turn[-steps:])


def _batches(world: World, log: MemoryEventsLog, n: int) -> Iterator[list[Any]]:
    stream = made(world)
    for _ in range(n):
        after = log.end()
        appended(log, islice(stream, 100))
        yield log.read(after, 100)


def _timed(trainer: Trainer) -> list[float]:
    """Puts a stopwatch around both halves of a step, of which the first then waits for what it has
    begun; the list grows by the seconds of processor time of each step.
    """
    taken: list[float] = []
    begin, finish = trainer.begin, trainer.finish

    def begun(*arguments: Any, **named: Any) -> Begun:
        started = time.process_time()
        found = begin(*arguments, **named)
        if found.step:
            found.step.result()
        taken.append(time.process_time() - started)
        return found

    def finished(*arguments: Any, **named: Any) -> Lesson:
        started = time.process_time()
        found = finish(*arguments, **named)
        taken[-1] += time.process_time() - started
        return found

    trainer.begin, trainer.finish = begun, finished  # type: ignore[method-assign]
    return taken


def _catalogue(learner: Learner, log: EventsLog, world: World) -> None:
    """Puts every item and lets an event name each, which is counted and not learned from."""
    appended(log, world.catalogue())
    named = (
        Event(f"first{n}", "view", f"first{n // 10}", _STARTED, f"i{n}") for n in range(world.items)
    )
    appended(log, named)
    fold = learner.fold
    while learner.trained_through < log.end():
        records = fold.until_cut(log.read(learner.trained_through, 1_000))
        batch, removed = fold.batch(records)
        if len(batch):
            fold.model.count(batch)
        fold.forget(records, removed)


def _drain(learner: Learner) -> None:
    while learner.step():
        learner.publish_due()
    learner.publish()


def made(world: World) -> Iterator[Event]:
    """What a world does, a second apart, from an hour after the catalogue's on."""
    for n, (user, item) in enumerate(world.pairs()):
        yield Event(f"e{n}", "view", user, _STARTED + 3_600.0 + n, item)


def appended(log: EventsLog, entries: Sequence[Entry] | Iterator[Event]) -> None:
    """Received a minute after the newest of them: they are live, and cleaned as such."""
    rest = iter(entries)
    while some := list(islice(rest, _AT_ONCE)):
        times = [entry.timestamp for entry in some if isinstance(entry, Event)]
        log.append(some, max(times, default=_STARTED) + 60.0)


@contextmanager
def _disk() -> Iterator[tuple[EventsLog, UpdatesLog]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(SqliteEventsLog(Path(folder) / "events.db")) as events,
        closing(SqliteUpdatesLog(Path(folder) / "updates.db")) as updates,
    ):
        yield events, updates


if __name__ == "__main__":
    print(measure(quick=False))
