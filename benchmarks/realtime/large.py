"""Sequence experts of about 1, 10 and 100 million parameters, updated live.

The stream is the beginning of the film ratings that ship with the software, within the first
half. The catalogue is filled up with items that nobody touches: they cost memory and are drawn as
negatives, so that a step touches rows all over the table; they are never recommended.

A learner and a follower, with the logs of a live system between them, take turns on micro-batches
of 100 events. Live is a micro-batch when the follower has answered a request with what was learned
from it. NDCG@10 is that of the follower's lists for the next micro-batch's users, once each,
before it sees anything of it. So nothing of what travels, or waits, is left out of quality.

The first half of the events is learned in full; from there on a model goes on in several ways
(``adapting.py``), each from the same state.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.realtime.adapting import WAYS
from benchmarks.realtime.figures import Curve, Figure, Measured, Plot, percentile, runs
from headwater import data
from headwater.config import Config
from headwater.evaluate import ndcg_gains
from headwater.ingest import read_interactions
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Event, Item, Request

BATCH = 100


@dataclass(frozen=True)
class Size:
    """A model, by the settings that make it large; it learns ``events``, and goes on with as many
    in each of several ways.
    """

    name: str
    dim: int
    layers: int
    items: int
    events: int
    ways: Sequence[str] = tuple(WAYS)


# The larger the model, the fewer events: a run is to take minutes.
SIZES = (
    Size("1 M", 64, 1, 15_000, 8_000),
    Size("10 M", 128, 2, 75_000, 4_000, ("full",)),
    Size("100 M", 256, 4, 380_000, 2_000),
)
QUICK = Size("1 M", 64, 1, 15_000, 500)


@dataclass
class Outcome:
    """What one model did in one run, in one way."""

    parameters: int
    live: list[float]
    """Seconds, per micro-batch, from appended to an answer by what was learned from it."""
    trainer: float
    """CPU-seconds per event, of which the whole loop of the trainer is part."""
    follower: float
    """CPU-seconds per event: folding the events, decoding and applying the update."""
    bytes: float
    """Of updates, per event."""
    gains: dict[str, list[float]]
    """``served`` and ``sequence`` -> NDCG@10 per prediction."""


def measure(quick: bool) -> Measured:
    """Freshness, bytes and quality by size; for the largest, by what of it goes on learning."""
    sizes = (QUICK,) if quick else SIZES
    found: dict[tuple[str, str], list[Outcome]] = {}
    for run in range(runs(quick)):
        for size in sizes:
            print(f"  run {run + 1} of {runs(quick)}: {size.name}", flush=True)
            for way, one in _run(size, run).items():
                found.setdefault((size.name, way), []).append(one)
    figures = [f for (size, way), several in found.items() for f in _figures(size, way, several)]
    notes: dict[str, float | str] = {
        f"{size}: parameters": several[0].parameters for (size, _), several in found.items()
    }
    for size in sizes:
        notes[f"{size.name}: events learned before, and as many measured"] = size.events
    return Measured(figures, [_plot(found)], notes)


def _config(size: Size, seed: int) -> Config:
    settings = {
        "sequence": {"dim": size.dim, "layers": size.layers},
        # Not what is measured, and most of the memory of items that nobody touches.
        "transitions": {"width": 16},
        "neighbours": {"width": 16},
    }
    return Config.model_validate({"seed": seed, **settings})


def _run(size: Size, seed: int) -> dict[str, Outcome]:
    stream = read_interactions(
        data.path("movietweetings-100k") / "interactions.parquet", limit=2 * size.events
    )
    events = [e for e in stream.events(0, len(stream)) if isinstance(e, Event)]
    names = {event.item_id for event in events}
    fill = [Item(f"filler {n}") for n in range(size.items - len(names))]
    config = _config(size, seed)
    with tempfile.TemporaryDirectory() as path:
        base = Path(path) / "base"
        base.mkdir()
        with _opened(config, base) as (log, _, learner):
            log.append(fill, time.time())
            log.append(events[: size.events], time.time())
            while learner.step():
                pass
            learner.snapshot()
        found = {}
        for way in size.ways:
            folder = Path(path) / way
            shutil.copytree(base, folder)
            found[way] = _measured(config, folder, way, events[size.events :])
            shutil.rmtree(folder)
        return found


class _opened:
    """Both logs of a data folder, and a learner on them."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder

    def __enter__(self) -> tuple[SqliteEventsLog, SqliteUpdatesLog, Learner]:
        self._log = SqliteEventsLog(self._folder / "events.db")
        self._updates = SqliteUpdatesLog(self._folder / "updates.db")
        learner = Learner(self._config, self._log, self._updates, self._folder / "snapshots")
        return self._log, self._updates, learner

    def __exit__(self, *_: object) -> None:
        self._updates.close()
        self._log.close()


def _measured(config: Config, folder: Path, way: str, events: Sequence[Event]) -> Outcome:
    with _opened(config, folder) as (log, updates, learner):
        follower = Follower(config, log, updates, folder / "snapshots")
        for part in (learner, follower):
            WAYS[way](part.fold.model.sequence)
        tower = follower.fold.model.sequence.tower
        rows = sum(table.values.size for table in (tower.items, tower.tokens))
        dense = sum(p.numel() for p in follower.fold.model.sequence.encoder.parameters())
        gains: dict[str, list[float]] = {"served": [], "sequence": []}
        live, spent, size = [], [0.0, 0.0], 0
        for start in range(0, len(events), BATCH):
            chunk = events[start : start + BATCH]
            _predict(follower, chunk, gains)
            log.append(chunk, time.time())
            started, before = time.perf_counter(), time.process_time()
            while learner.step():
                pass
            learner.publish()
            between = time.process_time()
            follower.catch_up()
            after = time.process_time()
            follower.recommend([Request(n=10, user_id=chunk[-1].user_id)], time.time())
            live.append(time.perf_counter() - started)
            assert follower.trained_through == log.end()
            spent[0] += between - before
            spent[1] += after - between
            size += sum(len(one.payload) for one in updates.read(updates.end() - 1, 1))
    n = len(events)
    return Outcome(rows + dense, live, spent[0] / n, spent[1] / n, size / n, gains)


def _predict(follower: Follower, chunk: Sequence[Event], gains: dict[str, list[float]]) -> None:
    first = {event.user_id: event for event in reversed(chunk)}
    fold = follower.fold
    requests = [Request(n=10, user_id=user) for user in first]
    contexts = fold.preprocess.contexts(requests, chunk[0].timestamp)
    ranking = fold.recommender.rank(contexts, fold.withheld())
    items = [fold.preprocess.items.find(event.item_id or "") for event in first.values()]
    targets = np.array(items)[:, None]
    for name, rows in (("served", ranking.rows), ("sequence", ranking.expert_rows["sequence"])):
        hit = (rows == targets) & (targets >= 0)
        ranks = np.where(hit.any(axis=1), hit.argmax(axis=1), -1)
        gains[name] += ndcg_gains(ranks, 10).tolist()


def _figures(size: str, way: str, several: Sequence[Outcome]) -> list[Figure]:
    name = size if way == "full" else f"{size}, {way}"

    def each(what: Any) -> list[float]:
        return [float(what(one)) for one in several]

    return [
        Figure(f"{name}: live, p50", "ms", each(lambda one: 1_000 * percentile(one.live, 50))),
        Figure(f"{name}: live, p99", "ms", each(lambda one: 1_000 * percentile(one.live, 99))),
        Figure(f"{name}: trainer", "CPU ms per event", each(lambda one: 1_000 * one.trainer)),
        Figure(f"{name}: follower", "CPU ms per event", each(lambda one: 1_000 * one.follower)),
        Figure(f"{name}: updates at 1,000 events/s", "MB/s", each(lambda one: one.bytes / 1_000)),
        Figure(f"{name}: NDCG@10 served", "", each(lambda one: np.mean(one.gains["served"]))),
        Figure(
            f"{name}: NDCG@10 of the sequence expert",
            "",
            each(lambda one: np.mean(one.gains["sequence"])),
        ),
    ]


def _plot(found: dict[tuple[str, str], list[Outcome]]) -> Plot:
    whole = [several[-1] for (_, way), several in found.items() if way == "full"]
    sizes = [float(one.parameters) for one in whole]
    return Plot(
        "large",
        "Cost of an update by size, everything learned and sent",
        "parameters",
        "ms, or MB/s",
        [
            Curve("live, p50, ms", sizes, [1_000 * percentile(one.live, 50) for one in whole]),
            Curve("updates at 1,000 events/s, MB/s", sizes, [one.bytes / 1_000 for one in whole]),
            Curve("trainer, CPU ms per 100 events", sizes, [1e5 * one.trainer for one in whole]),
        ],
        log_x=True,
        log_y=True,
    )
