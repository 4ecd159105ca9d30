"""What commands have in common: options, and how they print and show how far they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from headwater.loop import Progress

DataOption = Annotated[Path, typer.Option("--data", help="Folder that holds everything durable.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; headwater.toml of this folder if there is one."),
]
UrlOption = Annotated[
    str | None,
    typer.Option(envvar="HEADWATER_URL", help="Address of a running API, instead of --data."),
]
WhyOption = Annotated[str, typer.Option("--why", help="For the audit trail.")]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN",
        help="Column of a field, as in user_id=customer; may be repeated.",
    ),
]

DEFAULT_DATA = Path("headwater-data")

_WIDEST = 1_000


def print_json(values: Any) -> None:
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False))


def plain_console(**options: Any) -> Console:
    """A console that prints text as it is, in tables too: an id may be ``[/b]`` or ``:cat:``."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)


def print_page(*what: Any) -> None:
    """Prints tables and texts, one below the other."""
    console = plain_console()
    if not console.is_terminal:
        # A file or a pipe has no width: each line is one, whatever it holds.
        console = plain_console(width=_WIDEST)
    for page in what:
        with console.capture() as captured:
            console.print(page)
        text = captured.get()
        if not console.is_terminal:
            text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        typer.echo(text, nl=False)


def counted(count: int, noun: str) -> str:
    """So many of something, in words.

    >>> counted(1, "row"), counted(2_000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def pairs(mapping: list[str] | None) -> dict[str, str]:
    """The column of each field that ``--map`` names; raises ``ConfigError`` where one is missing.

    >>> pairs(["user_id=customer"])
    {'user_id': 'customer'}
    """
    split = [pair.partition("=") for pair in mapping or ()]
    for field, equals, column in split:
        if not (field and equals and column):
            raise ConfigError(f"--map {field}{equals}{column}: write --map FIELD=COLUMN")
    return {field: column for field, _, column in split}


def announce_compiling(console: Console) -> None:
    """Says why the first run takes longer to begin."""
    from headwater import kernels

    if not kernels.are_compiled():
        console.print(kernels.FIRST)


def check_writable(flag: str, path: Path | None) -> None:
    """Raises ``ConfigError`` where a file can't be written that a long run ends with."""
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{flag} {path} can't be written: it is a folder")
    if not path.parent.is_dir():
        raise ConfigError(f"{flag} {path} can't be written: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{flag} {path} can't be written: permission denied")


@contextmanager
def stages(console: Console) -> Iterator[Progress]:
    """Shows how far a backfill is: as a bar, or a line per pass where the output is no terminal."""
    # Before torch is imported: its threads else spin where they wait, and take each other's cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rich import progress as rich

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=20),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.fields[figures]}"),
        rich.TimeElapsedColumn(),
    )
    terminal = console.is_terminal
    with rich.Progress(*columns, console=console, transient=True, disable=not terminal) as bar:
        task = bar.add_task("", total=None, figures="")

        def show(what: str, done: int, total: int, figures: str) -> None:
            bar.update(task, description=what, completed=done, total=total, figures=figures)
            if figures and not terminal:
                console.print(f"{what} {done} of at most {total}: {figures}")

        yield show
