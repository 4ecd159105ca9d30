"""``headwater challenger …`` and ``headwater promote``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from headwater.cli._options import (
    DEFAULT_DATA,
    ConfigOption,
    DataOption,
    WhyOption,
    print_json,
    print_page,
)

app = typer.Typer(
    help="Challengers: other settings that learn the same stream in the shadow of the live ones.",
    no_args_is_help=True,
)


class PolicyChoice(StrEnum):
    BETTER = "better"
    NOT_WORSE = "not-worse"


NumberArgument = Annotated[int, typer.Argument(min=1, help="The challenger's number.")]


@app.command()
def add(
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, by dotted name; repeatable."),
    ],
    policy: Annotated[
        PolicyChoice, typer.Option(help="What must be shown before it takes over.")
    ] = PolicyChoice.BETTER,
    by: Annotated[
        float, typer.Option("--by", help="The δ of the policy, as a share of NDCG@10: 0.02 is 2 %.")
    ] = 0.0,
    canary: Annotated[
        float, typer.Option(help="Share of the users who get its lists meanwhile, up to 0.5.")
    ] = 0.0,
    why: WhyOption = "",
    data: DataOption = DEFAULT_DATA,
    config: ConfigOption = None,
) -> None:
    """Let other settings learn in the shadow; they take over once the evidence is enough."""
    from headwater import config as loading
    from headwater.roles import challengers

    changes = challengers.settings_of(settings)
    added = challengers.add(data, loading.load(config), changes, policy.value, by, why, canary)
    typer.echo(f"challenger {added.number} waits for its turn: `headwater challenger list`")


@app.command("list")
def list_all(
    data: DataOption = DEFAULT_DATA,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the challengers, how they do and what became of them; a server needn't run."""
    from headwater.roles import challengers

    found = challengers.listed(data)
    if json:
        print_json(found)
    elif not found:
        typer.echo("there is no challenger: `headwater challenger add --set KEY=VALUE`")
    else:
        print_page(challengers.table(found))


@app.command()
def retire(number: NumberArgument, why: WhyOption = "", data: DataOption = DEFAULT_DATA) -> None:
    """End a challenger; nothing of it goes live."""
    from headwater.roles import challengers

    challengers.retire(data, number, why)
    typer.echo(f"challenger {number} is retired")


def promote(number: NumberArgument, why: WhyOption = "", data: DataOption = DEFAULT_DATA) -> None:
    """Put a challenger in the live model's place, whatever the evidence says so far."""
    from headwater.roles import challengers

    lacks, seconds = challengers.promote(data, number, why)
    waits = f"once the trainer has learned what it lacks, {lacks:,} entries"
    done = waits if seconds is None else f"done in {seconds:.2f} s"
    typer.echo(f"challenger {number} is promoted: {done}")
