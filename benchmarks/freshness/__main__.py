"""``python -m benchmarks.freshness``: quality against how late updates arrive."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from benchmarks import reporting
from benchmarks.freshness.drawing import draw
from benchmarks.freshness.measuring import FROZEN, LIVE, measure
from benchmarks.quality.streams import SPECS, read
from headwater.errors import UnreadableFile


def main(
    streams: Annotated[str, typer.Option(help="Names, with commas between.")] = ",".join(SPECS),
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many events.")] = None,
) -> None:
    """Measures, writes results/freshness.json and .png.

    Streams that aren't run keep the figures that the file has of them. With a limit it is a trial,
    and the files go to .cache instead.
    """
    folder = reporting.folder(limit is not None)
    console = reporting.console()
    names = reporting.chosen(streams, SPECS)
    done: dict[str, dict[str, Any]] = {}
    skipped: list[str] = []
    for name in names:
        try:
            interactions = read(SPECS[name], limit)
        except UnreadableFile as error:
            skipped.append(name)
            console.print(f"SKIPPED {name}: {error}", style="bold yellow")
            continue
        columns = (TextColumn(name), BarColumn(20), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(name, total=len(interactions))
            done[name] = measure(interactions, SPECS[name], partial(_told, bar, task))
        console.print(_table(name, done[name]))
        streams_now = reporting.merged("freshness", "streams", done, SPECS, folder)
        missing = [one for one in skipped if one not in streams_now]
        results = {"limit": limit, "skipped": missing, "streams": streams_now}
        # Written after every stream, so that a run that is cut off has not run for nothing.
        reporting.write("freshness", results, folder)
        draw(folder / "freshness.png", streams_now)
    print(_sentence(done, skipped))
    sys.exit(not done)


def _told(bar: Progress, task: TaskID, events: int, figures: str) -> None:
    bar.update(task, completed=events)


def _table(name: str, one: dict[str, Any]) -> Table:
    n = one[LIVE]["n"]
    table = Table(title=f"{name}, second half, {n:,} predictions", title_justify="left")
    table.add_column("updates arrive every", no_wrap=True)
    for header in ("events", "NDCG@10", "95 %", "HR@10", "live is ahead", "95 % paired"):
        table.add_column(header, justify="right", no_wrap=True)
    for delay, found in one.items():
        low, high = found["ndcg@10_interval"]
        row = [f"{found['events']:,}", f"{found['ndcg@10']:.4f}", f"{low:.4f}-{high:.4f}"]
        row.append(f"{found['hit_rate@10']:.4f}")
        if "ours_ahead" in found:
            low, high = found["ours_ahead_interval"]
            row += [f"{found['ours_ahead']:+.1%}", f"{low:+.1%} to {high:+.1%}"]
        table.add_row(delay, *row)
    return table


def _sentence(done: dict[str, dict[str, Any]], skipped: list[str]) -> str:
    parts = [
        f"{name} {one[LIVE]['ndcg@10']:.4f} live, {one[FROZEN]['ndcg@10']:.4f} frozen"
        for name, one in done.items()
    ]
    missing = f"; skipped {', '.join(skipped)}" if skipped else ""
    return f"NDCG@10 of the second half: {'; '.join(parts) or 'nothing'}{missing}."


if __name__ == "__main__":
    typer.run(main)
