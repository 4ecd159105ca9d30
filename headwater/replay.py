"""``headwater replay``: the prequential protocol over a file, through the loop that serves.

Every event is predicted by the recommender as it stands, then learned, one
micro-batch after the other. There is no second path for evaluation.
"""

from __future__ import annotations

import json
import resource
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from headwater.config import Config, effective
from headwater.evaluate import Outcomes, Report, drawable
from headwater.ingest import Interactions, read_interactions, read_items
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner, events_of, pace_of
from headwater.model import EXPERTS
from headwater.types import Batch, Item

_RECENT = 50
"""Micro-batches behind the figures of the progress line."""


@dataclass(slots=True)
class Replayed:
    """A finished replay."""

    report: Report
    results: dict[str, Any]
    positions: np.ndarray  # (n,) of each target in the interactions, in log order
    cleaned: dict[str, int]  # events that taught nothing, by reason


def replay(
    interactions: Interactions,
    items: list[Item],
    config: Config,
    *,
    grouped: bool = False,
    progress: Callable[[int, str], None] = lambda events, text: None,
    beside: Callable[[Learner, Batch], None] = lambda learner, batch: None,
) -> Replayed:
    """Runs the protocol.

    Args:
        interactions: the stream, in order.
        items: put into the catalogue before the first event.
        config: all settings.
        grouped: one user's simultaneous events are predicted together (``--ties grouped``).
        progress: called with the events done and a line of figures.
        beside: called with each micro-batch before anything is learned from
            it, for what is to be measured beside the loop; it may change nothing.
    """
    events, updates = MemoryEventsLog(), MemoryUpdatesLog()
    learner = Learner(config, events, updates, None, grouped=grouped)
    now = time.time()
    if items:
        events.append(items, now)
        while learner.step():
            pass
    report = Report(EXPERTS)
    positions: list[np.ndarray] = []
    recent: list[np.ndarray] = []
    first = learner.trained_through + 1

    def observed(batch: Batch, outcomes: Outcomes) -> None:
        report.add(outcomes)
        positions.append(batch.offsets[outcomes.index] - first)
        recent.append(outcomes.ranks)
        del recent[:-_RECENT]

    learner.on_batch = lambda batch: beside(learner, batch)
    learner.on_outcomes = observed
    size = events_of(0, config.train)
    started = time.perf_counter()
    ends = _ends(interactions, size, grouped)
    events.append(interactions.events(0, ends[1] if len(ends) > 1 else 0), now)
    for start, stop, ahead in zip(ends, ends[1:], [*ends[2:], len(interactions)], strict=False):
        # While more waits, updates and reports are made as often as a learner under load makes
        # them; nobody follows this one.
        events.append(interactions.events(stop, ahead), now)
        records = events.read(learner.trained_through, stop - start)
        learner.learn(records, pace=pace_of(records[-1].offset, 0, config.train))
        learner.publish_due()
        updates.drop(learner.sequence)
        elapsed = time.perf_counter() - started
        progress(stop, f"{stop / elapsed:,.0f} events/s  {_figures(recent)}")
    seconds = time.perf_counter() - started
    eligible = int(learner.fold.eligible().sum())
    results = {
        "events": len(interactions),
        "seconds": round(seconds, 3),
        "events_per_second": round(len(interactions) / seconds, 1) if seconds else 0.0,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1),
        "config": effective(config),
        **report.results(eligible),
    }
    return Replayed(
        report,
        results,
        np.concatenate([*positions, np.zeros(0, np.int64)]),
        learner.fold.preprocess.cleaning.counts,
    )


def run(
    file: Path,
    items_file: Path | None,
    *,
    console: Console,
    config: Config,
    grouped: bool,
    limit: int | None,
    mapping: dict[str, str],
    json_path: Path | None,
    ranks_path: Path | None,
    plot_path: Path | None,
) -> None:
    """The command: reads, replays under a progress bar, prints the table, writes the files.

    Raises:
        UnreadableFile: a file can't be read as what it should be.
        ConfigError: there can be no chart at ``plot_path``.
    """
    if plot_path:
        drawable(plot_path)
    interactions = read_interactions(
        file, mapping=mapping, limit=limit, event_types=config.event_types.keys()
    )
    for reason, count in interactions.skipped.items():
        console.print(f"skipped {count:,} rows: {reason}")
    for warning in interactions.warnings:
        console.print(f"warning: {warning}", style="yellow")
    items: list[Item] = []
    if items_file:
        read = read_items(items_file, mapping=None)
        items = read.items
        for reason, count in read.skipped.items():
            console.print(f"skipped {count:,} items: {reason}")
    console.print(
        f"{len(interactions):,} events, {len(interactions.user_ids):,} users, "
        f"{len(interactions.item_ids):,} items"
    )
    with _bar(console) as bar:
        task = bar.add_task("", total=len(interactions), figures="")

        def progress(events: int, figures: str) -> None:
            bar.update(task, completed=events, figures=figures)

        replayed = replay(interactions, items, config, grouped=grouped, progress=progress)
    results = replayed.results
    console.print(_table(results))
    console.print(
        f"{results['events_per_second']:,.0f} events/s, {results['seconds']:,.1f} s, "
        f"{results['peak_rss_mb']:,.0f} MB at most"
    )
    for reason, n in replayed.cleaned.items():
        if n:
            console.print(f"{n:,} events taught nothing: {reason}")
    if json_path:
        json_path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    if ranks_path:
        write_ranks(replayed, interactions, ranks_path)
    if plot_path:
        replayed.report.plot(plot_path)


def write_ranks(replayed: Replayed, interactions: Interactions, path: Path) -> None:
    """The table of ``--ranks`` as Parquet, a line per target."""
    at = replayed.positions
    users = [interactions.user_ids[code] for code in interactions.user_codes[at]]
    items = [interactions.item_ids[code] for code in interactions.item_codes[at]]
    replayed.report.ranks_table(interactions.index[at], users, items).write_parquet(path)


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _table(results: dict[str, Any]) -> Table:
    """The figures of the second half, the mixture first."""
    half = results["second_half"]
    out = Table(title=f"Second half, {half['n']:,} predictions", title_justify="left")
    names = {
        "ndcg@10": "NDCG@10",
        "hit_rate@10": "HR@10",
        "mrr@10": "MRR@10",
        "recall@20": "R@20",
        "coverage@10": "cov@10",
        "novelty@10": "nov@10",
    }
    out.add_column("model", no_wrap=True)
    for header in names.values():
        out.add_column(header, justify="right")
    for model, figures in {"mixture (served)": half, **results["experts"]}.items():
        values = [figures[name] for name in names]
        out.add_row(model, *("–" if value is None else f"{value:.4f}" for value in values))
    return out


def _ends(interactions: Interactions, size: int, grouped: bool) -> list[int]:
    """Where micro-batches of at most ``size`` begin and end.

    Grouped, a moment isn't cut, however many events it has: what is learned of one
    part of a basket would show in the predictions of the rest.
    """
    n = len(interactions)
    if not grouped:
        return [*range(0, n, size), n]
    allowed = [0, *(np.flatnonzero(np.diff(interactions.timestamps)) + 1).tolist(), n]
    ends, place = [0], 0
    while ends[-1] < n:
        place = max(bisect_right(allowed, ends[-1] + size) - 1, place + 1)
        ends.append(allowed[place])
    return ends


def _figures(recent: list[np.ndarray]) -> str:
    ranks = np.concatenate(recent) if recent else np.zeros((0, 1 + len(EXPERTS)), np.int32)
    if not len(ranks):
        return ""
    gains = np.where((ranks >= 0) & (ranks < 10), 1.0 / np.log2(np.maximum(ranks, 0) + 2.0), 0.0)
    values = zip(("mixture", *EXPERTS), gains.mean(axis=0), strict=True)
    return "NDCG@10 " + "  ".join(f"{name} {value:.3f}" for name, value in values)
