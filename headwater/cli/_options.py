"""What commands have in common: options, and how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

DataOption = Annotated[Path, typer.Option("--data", help="Folder that holds everything durable.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; headwater.toml of this folder if there is one."),
]
WhyOption = Annotated[str, typer.Option("--why", help="For the audit trail.")]

DEFAULT_DATA = Path("headwater-data")

_WIDEST = 1_000


def print_json(values: Any) -> None:
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False))


def print_page(*what: Any) -> None:
    """Prints tables and texts, one below the other."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        # A file or a pipe has no width: each line is one, whatever it holds.
        console = Console(highlight=False, width=_WIDEST)
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
