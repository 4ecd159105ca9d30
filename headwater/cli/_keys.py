"""``headwater key …``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from headwater.cli._options import DEFAULT_DATA, DataOption, print_json, print_page

app = typer.Typer(
    help="Keys of the HTTP API: make, list, revoke. A running server notices within a second.",
    no_args_is_help=True,
)


class KeyRole(StrEnum):
    INGEST = "ingest"
    SERVE = "serve"
    ADMIN = "admin"


@app.command()
def create(
    role: Annotated[
        KeyRole,
        typer.Option(
            help="What it is for: sending events, items and users; asking for lists and items; "
            "everything."
        ),
    ],
    name: Annotated[str, typer.Option(help="Whose it is, for the list.")] = "",
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from headwater.keys import Keys

    key, secret = Keys(data).create(role.value, name)
    typer.echo(f"key {key.id} of role {key.role}; it isn't shown again:", err=True)
    typer.echo(secret)


@app.command("list")
def list_all(
    data: DataOption = DEFAULT_DATA,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the keys of a data folder, revoked ones too; secrets are not kept, and not shown."""
    from datetime import UTC, datetime

    from headwater.keys import Keys

    keys = Keys(data).all()
    if json:
        shown = ("id", "role", "name", "created_at", "revoked_at")
        print_json([{name: getattr(key, name) for name in shown} for key in keys])
        return
    from rich.table import Table

    def at(seconds: float | None) -> str:
        return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"

    table = Table("id", "role", "name", "created", "revoked", box=None, header_style="bold")
    for key in keys:
        table.add_row(key.id, key.role, key.name, at(key.created_at), at(key.revoked_at))
    print_page(table)


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id; it stands in the key, too.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Revoke a key: it opens nothing from now on."""
    from headwater.keys import Keys

    typer.echo(f"key {Keys(data).revoke(id).id} is revoked")
