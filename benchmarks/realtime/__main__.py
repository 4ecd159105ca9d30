"""``python -m benchmarks.realtime [ROW …]``: every row, or those named."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import psutil
import typer

from benchmarks.realtime.drawing import draw
from benchmarks.realtime.figures import Figure, Measured, number, table, written
from benchmarks.realtime.rows import ROWS, measure
from benchmarks.reporting import CACHE, RESULTS, console, write


def main(
    rows: Annotated[list[str] | None, typer.Argument(help="Names of rows; all by default.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small and once: a trial. No goal is judged.")
    ] = False,
) -> None:
    """Measures, writes results/realtime.json and plots; exit status 1 where a goal is missed.

    Rows that aren't run keep the figures that the file has of them. What a quick run
    finds goes to .cache instead.
    """
    out = console()
    names = list(rows or ROWS)
    if unknown := sorted(set(names) - set(ROWS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: name some of {', '.join(ROWS)}")
    folder = CACHE if quick else RESULTS
    kept = folder / "realtime.json"
    if minutes := _minutes(kept, names):
        out.print(f"About {minutes:.0f} minutes, by what the rows took the last time.")
    done: dict[str, Measured] = {}
    failed: list[str] = []
    for place, name in enumerate(names, 1):
        out.print(f"[{place}/{len(names)}] {name}", style="bold")
        started = time.monotonic()
        spawn = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(1, spawn) as process:
                done[name] = process.submit(measure, name, quick).result()
        except Exception as error:
            failed.append(name)
            out.print(f"FAILED {name}: {type(error).__name__}: {error}", style="bold red")
            continue
        seconds = time.monotonic() - started
        out.print(table(name, done[name].figures, judged=not quick))
        for note, value in done[name].notes.items():
            out.print(f"  {note}: {number(value) if isinstance(value, int | float) else value}")
        # Written after every row, so that a run that is cut off has not run for nothing.
        rows_now = {**_rows(kept), name: _written(done[name], seconds)}
        write("realtime", {"rows": rows_now}, folder)
        for plot in done[name].plots:
            draw(folder / f"realtime-{plot.name}.png", plot)
    judged = [] if quick else [f for one in done.values() for f in one.figures if f.goal]
    for figure in judged:
        if not figure.met:
            out.print(
                f"MISSED {figure.name}: {number(figure.value)} {figure.unit}, "
                f"asked is {figure.goal}",
                style="bold red",
            )
    print(_sentence(done, judged, failed, quick))
    sys.exit(bool(failed) or not all(figure.met for figure in judged))


def _rows(file: Path) -> dict[str, Any]:
    """Those that a file has."""
    rows: dict[str, Any] = json.loads(file.read_text())["rows"] if file.exists() else {}
    return rows


def _minutes(file: Path, names: list[str]) -> float:
    """How long rows will take, as far as a file says."""
    seconds = {name: float(row["seconds"]) for name, row in _rows(file).items()}
    return sum(seconds.get(name, 0.0) for name in names) / 60.0


def _written(one: Measured, seconds: float) -> dict[str, Any]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "seconds": round(seconds, 1),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
        "figures": written(one.figures),
        "notes": dict(one.notes),
        # msgspec writes what isn't finite as null.
        "curves": msgspec.json.decode(msgspec.json.encode(one.plots)),
    }


def _sentence(
    done: dict[str, Measured], judged: list[Figure], failed: list[str], quick: bool
) -> str:
    parts = [
        f"{figure.name} {number(figure.value)} {figure.unit}"
        for one in done.values()
        for figure in one.figures
        if figure.goal
    ]
    met = sum(bool(figure.met) for figure in judged)
    verdict = "no goal judged in a quick run" if quick else f"{met} of {len(judged)} goals met"
    missing = f"; failed: {', '.join(failed)}" if failed else ""
    return f"Real time: {', '.join(parts) or 'nothing'}; {verdict}{missing}."


if __name__ == "__main__":
    typer.run(main)
