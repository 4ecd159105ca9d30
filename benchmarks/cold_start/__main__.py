"""``python -m benchmarks.cold_start``: hits on new items and for new users, with content or not."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks import reporting
from benchmarks.cold_start.measuring import (
    RUNS,
    SEGMENTS,
    STREAM,
    WITH,
    WITHOUT,
    columns,
    hit_rates,
    judged,
    run,
)
from headwater.errors import UnreadableFile


def main(
    limit: Annotated[
        int | None, typer.Option(min=100, help="The first so many events; all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Replays side by side.")] = 1,
) -> None:
    """Measures, and writes results/cold_start.json; exit status 1 where a goal is missed.

    With a limit it is a trial, and the file goes to .cache instead.
    """
    console = reporting.console()
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            waiting = {name: pool.submit(run, name, limit, seed) for name in RUNS}
            found = {name: hit_rates(ranks.result()) for name, ranks in waiting.items()}
    except UnreadableFile as error:
        console.print(f"SKIPPED {STREAM}: {error}", style="bold yellow")
        print(f"Nothing was measured: {STREAM} isn't there.")
        sys.exit(1)
    goals = judged(found)
    console.print(_table(found))
    results = {"stream": STREAM, "limit": limit, "seed": seed, "goals": goals, "hit_rates": found}
    reporting.write("cold_start", results, reporting.folder(limit is not None))
    print(_sentence(found, goals))
    sys.exit(not all(goal["met"] for goal in goals.values()))


def _table(found: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=f"{STREAM}, hit rate @10", title_justify="left")
    table.add_column("who ranked", no_wrap=True)
    for segment in SEGMENTS:
        n = found[WITH][segment]["n"]
        heading = segment.replace(" ", "\n", 1)
        table.add_column(f"{heading}\nn = {n:,}", justify="right", no_wrap=True)
    for who in columns():
        for name, of_run in found.items():
            rates = [of_run[segment][who]["hit_rate@10"] for segment in SEGMENTS]
            table.add_row(f"{who}, {name}", *(f"{rate:.4f}" for rate in rates))
    return table


def _sentence(found: dict[str, dict[str, Any]], goals: dict[str, dict[str, Any]]) -> str:
    cold, new = "item's events 2-10", "item's first event"
    ratio = goals["items"]["ratio"]
    times = "–" if ratio is None else f"{ratio:.2f} times"

    def rate(name: str, segment: str, who: str = "served") -> float:
        return float(found[name][segment][who]["hit_rate@10"])

    return (
        f"Hit rate @10 at an item's events 2-10: {rate(WITH, cold):.4f} with content, "
        f"{rate(WITHOUT, cold):.4f} without ({times}, goal 2); "
        f"of the sequence expert {rate(WITH, cold, 'sequence'):.4f} and "
        f"{rate(WITHOUT, cold, 'sequence'):.4f}; at its first event {rate(WITH, new):.4f} and "
        f"{rate(WITHOUT, new):.4f}; a user's first list {goals['users']['served']:.4f}, "
        f"popularity {goals['users']['popularity']:.4f}."
    )


if __name__ == "__main__":
    typer.run(main)
