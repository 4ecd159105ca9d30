"""Commands for who runs a system: start it, look after it, take it back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from headwater.cli._options import (
    DEFAULT_DATA,
    ConfigOption,
    DataOption,
    UrlOption,
    WhyOption,
    print_json,
    print_page,
)


class RoleChoice(StrEnum):
    ALL = "all"
    API = "api"
    TRAINER = "trainer"
    CHALLENGER = "challenger"


def serve(
    data: DataOption = DEFAULT_DATA,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes a free one.  [default: 8080]"),
    ] = None,
    role: Annotated[
        RoleChoice, typer.Option(help="One role alone, or all under a supervisor.")
    ] = RoleChoice.ALL,
    config: ConfigOption = None,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run the live system until Ctrl-C."""
    from headwater.roles.serve import serve as run

    listen = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    raise typer.Exit(run(data, role.value, config, listen, supervised))


def status(
    data: DataOption = DEFAULT_DATA,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as it came.")] = False,
) -> None:
    """Show where a running system stands: model, log, lag, metrics."""
    from headwater import config as settings
    from headwater.roles import status as asked

    answer = asked.ask(url or asked.address(data), settings.load(config).serve.api_key)
    if json:
        print_json(answer)
    else:
        print_page(asked.table(answer))


def versions(
    data: DataOption = DEFAULT_DATA,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the newest versions of the model, and the rollbacks; a server needn't run."""
    from headwater.roles import versions as kept

    found = kept.listed(data)
    if json:
        print_json(found)
        return
    for table in kept.tables(found):
        print_page(table)


def rollback(
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="Number of a kept version.  [default: newest]")
    ] = None,
    why: WhyOption = "",
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Return to a kept version, and pass over, for good, all events since."""
    from headwater.roles import versions as kept

    order, seconds = kept.roll_back(data, to, why)
    aside = max(order.through - order.first + 1, 0)
    done = "at the start of the next trainer" if seconds is None else f"done in {seconds:.2f} s"
    typer.echo(f"back to number {order.to}, {aside:,} entries set aside: {done}")


def undo(
    rollback_id: Annotated[
        str | None, typer.Argument(help="Of a rollback.  [default: the newest]", show_default=False)
    ] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Undo a rollback: append again the events that it set aside, as history that comes now."""
    from headwater.roles import versions as kept

    order, new = kept.undo(data, rollback_id)
    typer.echo(
        f"{new:,} events from {order.first:,} to {order.through:,} are appended again, "
        "to be learned like any others"
    )


def resume(why: WhyOption = "", data: DataOption = DEFAULT_DATA) -> None:
    """Learn on after a guard has paused it: what comes now is usual."""
    from headwater.roles import versions as kept

    typer.echo(f"learning goes on from offset {kept.resume(data, why):,}")
