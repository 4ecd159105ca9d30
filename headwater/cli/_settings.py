"""Commands for settings: a file to start from, and what is in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli._options import DEFAULT_DATA, ConfigOption, DataOption, print_json, print_page
from headwater.errors import ConfigError


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("headwater.toml"),
) -> None:
    """Write an annotated settings file: every setting at its default, with what it means."""
    from headwater.config import annotated_toml

    try:
        with path.open("x") as file:
            file.write(annotated_toml())
    except FileExistsError:
        raise ConfigError(f"{path} exists already; move it away, or name another file") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None
    typer.echo(f"wrote {path}")


def config(
    data: DataOption = DEFAULT_DATA,
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the effective settings: what promotions brought, file, environment and defaults."""
    from headwater import config as settings
    from headwater.deploy import VERSIONS, Versions

    live = Versions(data / "snapshots" / VERSIONS).live()
    promoted = live.lineage.settings if live else {}
    values = settings.effective(settings.overridden(settings.load(config), promoted))
    if json:
        print_json(values)
        return
    from rich.table import Table

    table = Table("setting", "value", box=None, pad_edge=False, header_style="bold")
    for name, value in _flat(values):
        shown = "not set" if value is None else str(value)
        table.add_row(name, f"{shown} (by a promotion)" if name in promoted else shown)
    print_page(table)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
