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


def print_json(values: Any) -> None:
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False))


def print_page(what: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(what)
