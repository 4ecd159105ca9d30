"""How long a history of a million events takes to be learned from scratch, in one pass.

Every event is marked as imported, as ``headwater import`` marks them: the gradient learns from each
one, and of those behind the first 10,000 ever fewer are predicted, a tenth at the end
(``train.history_in_full``); from SQLite to SQLite, with the snapshots that a trainer takes. A
catalogue of 20,000 items, 100,000 users. Beside it the same events counted alone.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec
import psutil

from benchmarks.realtime.figures import Curve, Figure, Measured, Plot, at_most
from benchmarks.realtime.learning import appended, counted, made
from benchmarks.realtime.world import World
from headwater.config import Config
from headwater.log.memory import MemoryEventsLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Learner

EVENTS, USERS, ITEMS = 1_000_000, 100_000, 20_000
GOAL_SECONDS = 300.0
_COUNTED = 100_000


def measure(quick: bool) -> Measured:
    """Seconds for the whole of it, once: it is the longest row."""
    events = EVENTS // 200 if quick else EVENTS
    with tempfile.TemporaryDirectory() as folder:
        seconds, processor, at = learned(Path(folder), events)
    rate = counted(MemoryEventsLog(), ITEMS, _COUNTED // (10 if quick else 1))
    name = f"{events:,} imported events learned"
    return Measured(
        [
            Figure(
                name,
                "s",
                [seconds],
                at_most(GOAL_SECONDS * events / EVENTS),
                {"counted alone": events / rate},
            ),
            Figure("learned", "events/s", [events / seconds]),
            Figure("trainer", "CPU ms per event", [1_000.0 * processor / events]),
        ],
        [
            Plot(
                "history",
                name,
                "seconds",
                "events",
                [Curve("learned", [s for s, _ in at], [float(n) for _, n in at])],
            )
        ],
        {"items": ITEMS, "users": USERS, "threads of the trainer": psutil.Process().num_threads()},
    )


def learned(folder: Path, events: int) -> tuple[float, float, list[tuple[float, int]]]:
    """Wall and processor seconds, and how far it was after how many seconds."""
    with (
        closing(SqliteEventsLog(folder / "events.db")) as log,
        closing(SqliteUpdatesLog(folder / "updates.db")) as updates,
    ):
        stream = made(World(ITEMS, USERS))
        appended(
            log, (msgspec.structs.replace(event, imported=True) for event in islice(stream, events))
        )
        learner = Learner(Config(), log, updates, folder / "snapshots")
        at = [(0.0, 0)]
        started, processor = time.perf_counter(), time.process_time()
        while learner.step():
            learner.publish_due()
            if learner.trained_through - at[-1][1] >= events // 100:
                at.append((time.perf_counter() - started, learner.trained_through))
        learner.publish()
        return time.perf_counter() - started, time.process_time() - processor, at
