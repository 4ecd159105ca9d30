"""Runs a trial: a clean stretch, a poisoned one, and a clean one again."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.safety.trials import FAKE, PUSHED, Trial, Unguarded
from headwater import data
from headwater.config import Config
from headwater.deploy import VERSIONS, Snapshots, Versions, rollback_to
from headwater.evaluate import Outcomes, ndcg_gains
from headwater.ingest import read_interactions
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner
from headwater.types import NO_ROW, Batch, Event, Rollback

BATCH = 100
POISONED = 1_000
"""Events of the poisoned stretch."""
AFTER = 2_000
"""Events after it that are measured."""
_STRETCH = 500
"""Predictions over which recovery is judged."""


CONFIG = Config.model_validate({"deploy": {"snapshot_events": 1_000}})


class Warm:
    """The clean events of before the poison, learned once: every trial goes on from there.

    The stream is the one that ships with the software. A context manager: it keeps the state in a
    folder.

    Args:
        guarded: whether what learns has its guards.
        before: events.
    """

    def __init__(self, guarded: bool, before: int) -> None:
        self.kind = Learner if guarded else Unguarded
        self.before = before
        self.length = before + POISONED + AFTER
        self.stream = read_interactions(
            data.path("movietweetings-100k") / "interactions.parquet", limit=self.length
        )
        self._folder = tempfile.TemporaryDirectory()
        log, updates = MemoryEventsLog(), MemoryUpdatesLog()
        learner = self.kind(CONFIG, log, updates, self.state)
        for start in range(0, before, BATCH):
            self.append(log, start)
            while learner.step():
                learner.publish()
        learner.snapshot()
        for path in Snapshots(self.state, keep=1).paths()[:-1]:
            path.unlink()

    @property
    def state(self) -> Path:
        return Path(self._folder.name)

    def events(self, start: int) -> list[Event]:
        """A batch of the stream, as if it came now."""
        return [replace(e, imported=False) for e in self.stream.events(start, start + BATCH)]

    def append(self, log: MemoryEventsLog, start: int) -> None:
        """Live: received when they happened."""
        events = self.events(start)
        log.append(events, events[-1].timestamp)

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def run(trial: Trial, warm: Warm, *, roll_back: bool = False) -> dict[str, Any]:
    """NDCG@10 of clean users after the poison, what tripped, and how long it took.

    With ``roll_back`` an operator sets the poison aside as soon as it is over.
    """
    before = warm.before
    random = np.random.default_rng(0)
    log, updates = MemoryEventsLog(), MemoryUpdatesLog()
    for start in range(0, before, BATCH):
        warm.append(log, start)
    alarms: list[str] = []
    gains: list[np.ndarray] = []
    pushed: list[np.ndarray] = []
    measured = False
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(warm.state, folder, dirs_exist_ok=True)
        learner = warm.kind(CONFIG, log, updates, Path(folder))

        def observed(batch: Batch, outcomes: Outcomes) -> None:
            if measured:
                users = batch.contexts.users[outcomes.index].tolist()
                clean = [not learner.fold.preprocess.users.id(u).startswith(FAKE) for u in users]
                gains.append(ndcg_gains(outcomes.ranks[clean, 0], 10))
                row = learner.fold.preprocess.items.find(PUSHED)
                pushed.append((outcomes.tops[clean, 0] == row).any(axis=1) & (row != NO_ROW))

        learner.on_outcomes = observed
        learner.on_alert = lambda what, numbers: alarms.append(numbers.get("guard", what))
        failed = ""
        started = time.perf_counter()
        for start in range(before, warm.length, BATCH):
            events = warm.events(start)
            poisoned = start < before + POISONED
            measured = start >= before + POISONED
            if poisoned:
                events = trial.events(events, random)
            if roll_back and start == before + POISONED:
                log.append([_order(Path(folder), log.end(), before)], events[0].timestamp)
            # Live: received when they happened.
            if events:
                log.append(events, events[-1].timestamp)
            try:
                while learner.step():
                    if poisoned and (start == before or not trial.once):
                        trial.learner(learner)
                    learner.publish()
            except Exception as error:
                failed = f"{type(error).__name__}: {error}"
                break
        seconds = time.perf_counter() - started
        cleaned = learner.fold.preprocess.cleaning.counts
    found = np.concatenate([*gains, np.zeros(0)])
    return {
        "ndcg@10": float(found.mean()) if len(found) and not failed else 0.0,
        "stretches": [
            float(found[k : k + _STRETCH].mean()) for k in range(0, len(found), _STRETCH)
        ],
        "shown": float(np.concatenate([*pushed, np.zeros(0)]).mean()) if pushed else 0.0,
        "cleaned": {reason: n for reason, n in cleaned.items() if n},
        "tripped": {name: alarms.count(name) for name in sorted(set(alarms))},
        "failed": failed,
        "seconds": round(seconds, 1),
    }


def _order(folder: Path, end: int, before: int) -> Rollback:
    """Back to the newest version of before the poison."""
    listed = Versions(folder / VERSIONS).listed()
    good = max(version.number for version in listed if version.offset <= before)
    return rollback_to(listed, good, through=end, by="the benchmark", why="poison")


def recovery(stretches: list[float], clean: list[float]) -> int | None:
    """Predictions after the poison until a stretch is within a tenth of the clean run's again."""
    for place, (one, other) in enumerate(zip(stretches, clean, strict=False)):
        if one >= 0.9 * other:
            return place * _STRETCH
    return None
