"""Commands for what is kept: imported, exported, refused, copied, erased."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli._options import (
    DEFAULT_DATA,
    ConfigOption,
    DataOption,
    MapOption,
    counted,
    pairs,
    plain_console,
    print_json,
    print_page,
    stages,
)
from headwater.errors import ConfigError


def import_file(
    file: Annotated[
        Path, typer.Argument(help="Parquet, CSV, TSV, JSONL, or as RecBole or MovieLens has it.")
    ],
    items: Annotated[bool, typer.Option("--items", help="The file holds items.")] = False,
    users: Annotated[bool, typer.Option("--users", help="The file holds users.")] = False,
    data: DataOption = DEFAULT_DATA,
    mapping: MapOption = None,
    backfill: Annotated[
        bool,
        typer.Option("--backfill", help="Then learn the whole log in several passes, offline."),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Append a file of events, items or users to the log; a running server learns from it."""
    from rich.progress import Progress

    from headwater import config as settings
    from headwater.roles import bulk

    if items and users:
        raise ConfigError("--items and --users: a file holds one of the two; import each by itself")
    what, append = "event", bulk.import_events
    if items or users:
        what, append = ("item", bulk.import_items) if items else ("user", bulk.import_users)
    loaded, columns = settings.load(config), pairs(mapping)
    console = plain_console(soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("importing", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        done = append(file, data, loaded, columns, progress)
    appended = done.kinds or {what: 0}
    kinds = ", ".join(counted(count, kind) for kind, count in appended.items())
    console.print(f"{file}: {kinds} appended to {data}")
    if done.duplicate:
        console.print(f"{counted(done.duplicate, 'duplicate')}: there already")
    for reason, count in done.skipped.items():
        first = done.first_skipped.get(reason)
        where = "" if first is None else f" ({'row' if count == 1 else 'first in row'} {first:,})"
        console.print(f"{counted(count, 'row')} skipped: {reason}{where}")
    for warning in done.warnings:
        console.print(f"warning: {warning}", style="yellow")
    if not backfill:
        return
    with stages(console) as stage:
        learned = bulk.backfill(data, loaded, stage)
    console.print(
        f"{learned.events:,} events learned in {learned.passes} passes "
        f"({learned.passes_done} done), {learned.seconds:,.0f} s"
    )
    if learned.ndcg:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in learned.ndcg.items())
        console.print(f"NDCG@10 of what came after them: {figures}")


class WhatChoice(StrEnum):
    EVENTS = "events"
    ITEMS = "items"
    USERS = "users"


def export(
    path: Annotated[Path, typer.Argument(help="File to write: .jsonl or .parquet.")],
    data: DataOption = DEFAULT_DATA,
    what: Annotated[
        WhatChoice, typer.Option(help="All events in order, or items or users as they are now.")
    ] = WhatChoice.EVENTS,
) -> None:
    """Write the events log to a file that `headwater import` reads back."""
    from rich.progress import Progress

    from headwater.roles.export import export as write

    console = plain_console(soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("exporting", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        written = write(path, data, what.value, progress)
    entries = counted(written, what.value.removesuffix("s"))
    console.print(f"{path}: {entries} of {data} written")


def dead_letters(
    data: DataOption = DEFAULT_DATA,
    n: Annotated[int, typer.Option("-n", min=1, help="So many, newest first.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, bodies too.")] = False,
) -> None:
    """List what was refused, with the field at fault and the reason; a server needn't run."""
    import msgspec

    from headwater.roles import bulk

    letters = bulk.dead_letters(data, n)
    if json:
        print_json(msgspec.to_builtins(letters))
        return
    from datetime import UTC, datetime

    from rich.table import Table

    table = Table("number", "received", "route", "reason", box=None, header_style="bold")
    for letter in letters:
        at = f"{datetime.fromtimestamp(letter.received_at, UTC):%Y-%m-%d %H:%M:%S}"
        table.add_row(str(letter.number), at, letter.source, f"{letter.field} {letter.reason}")
    print_page(table)


def backup(
    destination: Annotated[Path, typer.Argument(help="A folder that doesn't exist yet.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Copy the data folder, as one consistent state of it, while the system runs."""
    from headwater.roles import backup as copies

    made = copies.backup(data, destination)
    typer.echo(
        f"{destination}: {made.offset:,} entries, learned through update {made.sequence:,}, "
        f"{made.bytes / 1e6:,.1f} MB"
    )


def restore(
    source: Annotated[Path, typer.Argument(help="A folder that `headwater backup` made.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Make a data folder from a backup; never over one that holds something."""
    from headwater.roles import backup as copies

    made = copies.restore(source, data)
    typer.echo(f"{data}: {made.offset:,} entries; start it with `headwater serve --data {data}`")


def erase(
    users: Annotated[list[str], typer.Argument(help="User ids; several at once cost no more.")],
    data: DataOption = DEFAULT_DATA,
    config: ConfigOption = None,
) -> None:
    """Erase all that a stopped system keeps of users, and learn again without it."""
    from rich.progress import Progress

    from headwater import config as settings
    from headwater.roles import erase as erasing
    from headwater.roles import logs

    logs.configure("erase")
    loaded = settings.load(config)
    console = plain_console(soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def progress(doing: str, done: int, total: int) -> None:
            bar.update(task, description=doing, completed=done, total=total)

        erased = erasing.erase(users, data, loaded, progress)
    console.print(
        f"{data}: {erased.entries:,} entries blanked, {erased.letters:,} dead letters and "
        f"{erased.lists:,} served lists deleted; learned through {erased.trained_through:,}, "
        f"epoch {erased.epoch}",
    )
    if erased.unnamed:
        console.print(
            f"no entry of the log names {', '.join(erased.unnamed)}: is it written as in the "
            "events? An anonymous_id is erased as anon: and the id",
            style="yellow",
        )
    if erased.start:
        console.print(
            f"events through offset {erased.start:,} are no longer kept, so what was learned from "
            "them can't be learned again: counts, weights and sequences of items stay, which name "
            "nobody; ids, attributes and histories are gone"
        )
    console.print("Backups made before still hold what was erased; delete them.")
