"""``python -m benchmarks.recommend``: lists per second, latency, and the search beside peers."""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.realtime.figures import Figure, at_least, at_most, number, table, written
from benchmarks.recommend import answering, searching
from benchmarks.recommend.answering import LIMIT_MS, RATES, Run
from benchmarks.reporting import CACHE, RESULTS, console, write

ITEMS = (100_000, 1_000_000)
GOAL_RATE, GOAL_SINGLE_MS, GOAL_GROWTH = 1_500, 3.0, 2.0
RUNS, SECONDS = 3, 8.0


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Small and once: a trial. No goal is judged.")
    ] = False,
) -> None:
    """Measures, and writes results/recommend.json; exit status 1 where a goal is missed."""
    out = console()
    sizes, runs, seconds = ((5_000, 40_000), 1, 3.0) if quick else (ITEMS, RUNS, SECONDS)
    rates: tuple[int, ...] = RATES
    served: dict[int, list[Run]] = {}
    searched: dict[int, searching.Found] = {}
    spawn = multiprocessing.get_context("spawn")
    for items in sizes:
        with tempfile.TemporaryDirectory() as path:
            out.print(f"{items:,} items: serving", style="bold")
            served[items] = answering.measure(Path(path), items, runs, seconds, rates)
            for run in served[items]:
                out.print(_climbed(run))
            # A larger catalogue is asked at the rate that the smaller one held.
            rates = tuple(rate for rate in RATES if rate <= max(_held(served[items]), RATES[0]))
            out.print(f"{items:,} items: searching", style="bold")
            with ProcessPoolExecutor(1, spawn) as process:
                searched[items] = process.submit(searching.measure, Path(path)).result()
    figures = _figures(served, searched)
    out.print(table("Answering", figures, judged=not quick))
    results: dict[str, Any] = {
        "items": list(sizes),
        "seconds": seconds,
        "events_per_second": answering.EVENTS,
        "figures": written(figures),
        "served": {f"{n}": [asdict(run) for run in of_size] for n, of_size in served.items()},
        "searched": {f"{n}": asdict(found) for n, found in searched.items()},
    }
    # A latency without an end is written as null.
    results = json.loads(json.dumps(results), parse_constant=lambda _: None)
    write("recommend", results, CACHE if quick else RESULTS)
    print(_sentence(figures, quick))
    sys.exit(not quick and not all(figure.met for figure in figures if figure.goal))


def _held(runs: list[Run]) -> int:
    return int(median(run.highest for run in runs))


def _figures(served: dict[int, list[Run]], searched: dict[int, searching.Found]) -> list[Figure]:
    small, large = served
    rate = min(GOAL_RATE, max(_held(served[small]), RATES[0]))
    tail = {size: [run.at(rate).p99 for run in served[size]] for size in served}
    goal = f"lists/s at p99 ≤ {LIMIT_MS:g} ms"
    found = [
        Figure(
            f"{goal}, {small:,} items",
            "/s",
            [float(run.highest) for run in served[small]],
            at_least(GOAL_RATE),
            {"exact scan alone": 1_000.0 / searched[small].exact},
        ),
        Figure(
            f"one request at a time, p50, {small:,} items",
            "ms",
            [run.single_p50 for run in served[small]],
            at_most(GOAL_SINGLE_MS),
        ),
        Figure(f"p99 at {rate}/s, {small:,} items", "ms", tail[small]),
        Figure(f"p99 at {rate}/s, {large:,} items", "ms", tail[large]),
        Figure(
            "p99, large against small catalogue",
            "×",
            [more / less for more, less in zip(tail[large], tail[small], strict=True)],
            at_most(GOAL_GROWTH),
        ),
        Figure(f"{goal}, {large:,} items", "/s", [float(run.highest) for run in served[large]]),
        Figure(
            f"one request at a time, p50, {large:,} items",
            "ms",
            [run.single_p50 for run in served[large]],
        ),
    ]
    for size, search in searched.items():
        goals = at_least(searching.RECALL) if size == large else None
        beside = {"faiss IVF": search.faiss_recall}
        found.append(
            Figure(f"recall of the search, {size:,} items", "", [search.recall], goals, beside)
        )
        scans = {"exact scan": search.exact, "faiss IVF": search.faiss}
        found.append(Figure(f"search alone, {size:,} items", "ms CPU", [search.ours], None, scans))
    for size, runs in served.items():
        for name in runs[0].at(rate).cpu:
            values = [run.at(rate).cpu[name] for run in runs]
            found.append(Figure(f"{name}, CPU per list, {size:,} items", "ms", values))
    return found


def _climbed(run: Run) -> str:
    steps = "; ".join(
        f"{rung.rate}/s: p50 {number(rung.p50)}, p99 {number(rung.p99)} ms" for rung in run.rungs
    )
    return f"  single p50 {number(run.single_p50)} ms; {steps}"


def _sentence(figures: list[Figure], quick: bool) -> str:
    judged = [figure for figure in figures if figure.goal]
    parts = ", ".join(f"{f.name} {number(f.value)} {f.unit}".strip() for f in judged)
    met = sum(bool(figure.met) for figure in judged)
    verdict = "no goal judged in a quick run" if quick else f"{met} of {len(judged)} goals met"
    return f"Answering: {parts}; {verdict}."


if __name__ == "__main__":
    typer.run(main)
