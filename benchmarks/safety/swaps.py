"""Rollbacks while clients ask without pause: how long they take, and whether an answer fails or
mixes two states.

Each swap poisons the model with an item of its own, and rolls that back. An answer says by which
update it was given, so it is known which items may be in it: the swap's own one from the update
that taught it on, and after the rollback's update none that was set aside.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from bisect import bisect_right
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.safety.figures import Figure
from headwater import data
from headwater.api._engine import Engine
from headwater.config import Config
from headwater.deploy import VERSIONS, Versions, rollback_to
from headwater.errors import HeadwaterError
from headwater.feedback import Feedback
from headwater.ingest import read_interactions
from headwater.log.served import ServedLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Event, Request

SWAPS = 1_000
CLIENTS = 4
POISONED = 20
"""Events of one poison."""
NEWEST_SECONDS, KEPT_SECONDS = 1.0, 10.0
"""Longest that a rollback to the newest kept version may take, and to another one."""

SMALL = {
    "preprocess": {"history_length": 10, "cleaning": {"remembered": 64, "pushed_times": 0.0}},
    "transitions": {"width": 8},
    "neighbours": {"width": 8},
    "sequence": {"dim": 8, "heads": 1, "negatives": 32, "replay_buffer": 300},
    "mixture": {"candidates": 20, "hidden": 8, "replay_buffer": 200},
    "evaluate": {"window": 100},
    "deploy": {"snapshot_events": 1_000_000_000},
    "train": {"batch_milliseconds": 0.0},
}
"""A model so small that a thousand rollbacks take minutes; nothing of it is left out."""

LEARNED, TIMED = 10_000, 5
"""Events that the model of default size has learned, and rollbacks of it that are timed."""

RUNS = ("small", "newest", "oldest")

_PUSHED = "pushed-"


def measured(swaps: int = SWAPS) -> dict[str, Any]:
    """Swaps of a small model, and the time of some of one of default size."""
    small = asyncio.run(swap(Config.model_validate(SMALL), 2_000, swaps))
    newest = asyncio.run(swap(Config(), LEARNED, TIMED))
    oldest = asyncio.run(swap(Config(), LEARNED, TIMED, oldest=True))
    runs = (small, newest, oldest)
    return {name: run.figures() for name, run in zip(RUNS, runs, strict=True)}


def figures(found: dict[str, Any]) -> list[Figure]:
    runs = [found[name] for name in RUNS]
    newest, oldest = (found[name]["seconds"]["most"] for name in ("newest", "oldest"))
    return [
        Figure(
            "answers that failed during rollbacks", sum(r["failed"] for r in runs), "at most", 0
        ),
        Figure(
            "answers that mixed two states during rollbacks",
            *(sum(r["mixed"] for r in runs), "at most", 0),
        ),
        Figure("seconds to the newest kept version", newest, "at most", NEWEST_SECONDS),
        Figure("seconds to the oldest kept version", oldest, "at most", KEPT_SECONDS),
    ]


def sentence(found: dict[str, Any]) -> str:
    small = found["small"]
    return (
        f"Over {small['swaps']:,} rollbacks under load {small['failed']} of {small['answers']:,} "
        f"answers failed and {small['mixed']} mixed two states; to the newest kept version one "
        f"takes {found['newest']['seconds']['most']:.2f} s at most (goal {NEWEST_SECONDS:g}), to "
        f"the oldest {found['oldest']['seconds']['most']:.2f} s (goal {KEPT_SECONDS:g})."
    )


def table(found: dict[str, Any]) -> Table:
    made = Table(title="Rollbacks while four clients ask without pause", title_justify="left")
    made.add_column("model")
    headers = ("rollbacks", "answers", "failed", "mixed", "median", "most", "trainer", "slowest")
    for header in headers:
        made.add_column(header, justify="right")
    for name in RUNS:
        run = found[name]
        seconds = [run["seconds"]["median"], run["seconds"]["most"]]
        seconds += [run["trainer_seconds"]["most"], run["slowest_answer"]]
        counts = (f"{run[key]:,}" for key in ("swaps", "answers", "failed", "mixed"))
        made.add_row(name, *counts, *(f"{one:.2f} s" for one in seconds))
    return made


@dataclass
class Answer:
    sequence: int
    pushed: frozenset[str]
    whole: bool  # lists what is popular, of which a poison is the first


@dataclass
class Swaps:
    """What was seen of a run."""

    seconds: list[float] = field(default_factory=list)  # of each: order to first answer after it
    trainer_seconds: list[float] = field(default_factory=list)  # until the trainer had done it
    taught: list[int] = field(default_factory=list)  # the first update that has learned a poison
    rolled_back: list[int] = field(default_factory=list)  # the first update without it
    answers: list[Answer] = field(default_factory=list)
    failed: int = 0
    slowest: float = 0.0  # answer, in seconds

    def figures(self) -> dict[str, Any]:
        return {
            "swaps": len(self.seconds),
            "answers": len(self.answers),
            "failed": self.failed,
            "mixed": self.mixed,
            "seconds": {"median": median(self.seconds), "most": max(self.seconds)},
            "trainer_seconds": {
                "median": median(self.trainer_seconds),
                "most": max(self.trainer_seconds),
            },
            "slowest_answer": self.slowest,
        }

    @property
    def mixed(self) -> int:
        return sum(self._is_mixed(answer) for answer in self.answers)

    def _is_mixed(self, answer: Answer) -> bool:
        """Whether an answer holds what its update can't, or lacks what it must have.

        Events are counted before they are learned: the next poison may be there before its
        first update is.
        """
        swap = bisect_right(self.rolled_back, answer.sequence)
        own = {f"{_PUSHED}{swap}"}
        if answer.pushed - own:
            return True
        taught = swap < len(self.taught) and answer.sequence >= self.taught[swap]
        return answer.whole and taught and not answer.pushed


async def swap(config: Config, events: int, swaps: int, *, oldest: bool = False) -> Swaps:
    """Learns the beginning of the stream that ships with the software, and then swaps.

    Args:
        config: of both roles.
        events: learned before the first swap.
        swaps: rollbacks.
        oldest: to the oldest kept version, of three; else to the newest.
    """
    seen = Swaps()
    with (
        tempfile.TemporaryDirectory() as name,
        closing(SqliteEventsLog(Path(name) / "events.db")) as log,
        closing(SqliteUpdatesLog(Path(name) / "updates.db")) as updates,
        closing(Feedback(ServedLog(Path(name) / "served.db"), config)) as feedback,
    ):
        folder = Path(name) / "snapshots"
        stream = read_interactions(
            data.path("movietweetings-100k") / "interactions.parquet", limit=events
        )
        log.append(stream.events(), time.time())
        learner = await asyncio.to_thread(Learner, config, log, updates, folder)
        await asyncio.to_thread(_learn, learner)
        engine = Engine(
            lambda: Follower(config, log, updates, folder),
            log,
            updates,
            feedback,
            max_queue=100,
            max_wait=1.0,
            wait_seconds=1.0,
        )
        engine.start()
        while not engine.ready:
            await asyncio.sleep(0.01)
        stop = asyncio.Event()
        users = stream.user_ids[:CLIENTS]
        clients = [asyncio.create_task(_ask(engine, u, stop, seen)) for u in users]
        for number in range(swaps):
            await _swap_once(number, learner, log, engine, folder, seen, oldest)
        stop.set()
        await asyncio.gather(*clients)
        await engine.stop()
    return seen


async def _swap_once(
    number: int,
    learner: Learner,
    log: SqliteEventsLog,
    engine: Engine,
    folder: Path,
    seen: Swaps,
    oldest: bool,
) -> None:
    for step in range(2 if oldest else 0):
        log.append(_events(f"fine-{number}-{step}", f"i{step}"), time.time())
        await asyncio.to_thread(_learn, learner)
    pushed = f"{_PUSHED}{number}"
    before = Versions(folder / VERSIONS).listed()
    kept = [version.number for version in before if version.state in ("live", "kept")]
    log.append(_events(pushed, pushed), time.time())
    await asyncio.to_thread(_learn, learner, snapshot=False)
    seen.taught.append(learner.sequence)
    while engine.standing.sequence < learner.sequence:
        await asyncio.sleep(0.002)
    order = rollback_to(
        before, min(kept) if oldest else None, through=log.end(), by="the benchmark", why=pushed
    )
    epoch, started = learner.epoch, time.monotonic()
    log.append([order], time.time())
    await asyncio.to_thread(learner.step)
    seen.trainer_seconds.append(time.monotonic() - started)
    seen.rolled_back.append(learner.sequence)
    while engine.standing.epoch == epoch:
        await asyncio.sleep(0.002)
    await engine.recommend(Request(n=10, user_id="anybody"))
    seen.seconds.append(time.monotonic() - started)


def _learn(learner: Learner, *, snapshot: bool = True) -> None:
    while learner.step():
        learner.publish()
    if snapshot:
        learner.snapshot()


def _events(who: str, item: str) -> list[Event]:
    now = time.time()
    return [Event(f"{who}-{n}", "view", f"{who}-{n}", now, item) for n in range(POISONED)]


async def _ask(engine: Engine, user: str, stop: asyncio.Event, seen: Swaps) -> None:
    request = Request(n=100, user_id=user)
    while not stop.is_set():
        for whole in (True, False):
            started = time.monotonic()
            try:
                answer = await (engine.popular(100) if whole else engine.recommend(request))
            except HeadwaterError:
                seen.failed += 1
                continue
            seen.slowest = max(seen.slowest, time.monotonic() - started)
            ids = (one.item_id for one in answer.items)
            pushed = frozenset(id for id in ids if id.startswith(_PUSHED))
            seen.answers.append(Answer(answer.sequence, pushed, whole))
