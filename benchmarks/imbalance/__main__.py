"""``python -m benchmarks.imbalance``: every setting on every stream, against the default."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks import reporting
from benchmarks.imbalance.measuring import compared, run, seeds_of
from benchmarks.imbalance.streams import DEFAULT, SPECS, read, settings
from headwater.errors import UnreadableFile

EVENTS, SEEDS = 20_000, 2
"""Of what is published."""


def main(
    streams: Annotated[str, typer.Option(help="Names, with commas between.")] = ",".join(SPECS),
    limit: Annotated[
        int, typer.Option(min=100, help="The first so many events; a first half at most.")
    ] = EVENTS,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each setting.")] = SEEDS,
    workers: Annotated[int, typer.Option(min=1, help="Replays side by side.")] = 1,
) -> None:
    """Measures, and writes results/imbalance.json; exit status 1 where no stream is there.

    Streams that aren't run keep the figures that the file has of them. Of other events or seeds it
    is a trial, and the file goes to .cache instead.
    """
    folder = reporting.folder(limit != EVENTS or seeds != SEEDS)
    console = reporting.console()
    names = reporting.chosen(streams, SPECS)
    done: dict[str, dict[str, Any]] = {}
    skipped: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn) as pool:
        for name in names:
            try:
                events = len(read(SPECS[name], limit))
            except UnreadableFile as error:
                skipped.append(name)
                console.print(f"SKIPPED {name}: {error}", style="bold yellow")
                continue
            waiting = {
                setting: [
                    pool.submit(run, name, setting, limit, s) for s in seeds_of(setting, seeds)
                ]
                for setting in settings(SPECS[name])
            }
            runs = {setting: [one.result() for one in all_] for setting, all_ in waiting.items()}
            done[name] = {"events": events, "settings": compared(runs)}
            console.print(_table(name, events, done[name]["settings"]))
            streams_now = reporting.merged("imbalance", "streams", done, SPECS, folder)
            missing = [one for one in skipped if one not in streams_now]
            results = {"limit": limit, "seeds": seeds, "skipped": missing, "streams": streams_now}
            reporting.write("imbalance", results, folder)
    print(_sentence(done, skipped))
    sys.exit(not done)


def _table(name: str, events: int, found: dict[str, Any]) -> Table:
    """NDCG@10 of the default, and changes against it; a star where the interval leaves out 0."""
    first = found[DEFAULT]["segments"]
    table = Table(title=f"{name}, first {events:,} events, NDCG@10", title_justify="left")
    table.add_column("setting", no_wrap=True)
    for segment, figures in first.items():
        table.add_column(f"{segment}\nn = {figures['n']:,}", justify="right", no_wrap=True)
    table.add_column("CPU s", justify="right")
    for setting, one in found.items():
        cells = [_cell(setting, figures) for figures in one["segments"].values()]
        table.add_row(setting, *cells, f"{one['cpu_seconds']:.0f}")
    return table


def _cell(setting: str, figures: dict[str, Any]) -> str:
    if setting == DEFAULT:
        return f"{figures['ndcg@10']:.4f}"
    low, high = figures["change_interval"]
    return f"{figures['change']:+.4f}{'*' if low > 0 or high < 0 else ''}"


def _sentence(done: dict[str, dict[str, Any]], skipped: list[str]) -> str:
    parts = []
    for name, one in done.items():
        found = {s: of["segments"]["all"]["ndcg@10"] for s, of in one["settings"].items()}
        best = max(found, key=lambda setting: found[setting])
        parts.append(f"{name} {found[DEFAULT]:.4f} (highest {best}: {found[best]:.4f})")
    missing = f"; skipped {', '.join(skipped)}" if skipped else ""
    return f"NDCG@10 by default: {', '.join(parts) or 'nothing'}{missing}."


if __name__ == "__main__":
    typer.run(main)
