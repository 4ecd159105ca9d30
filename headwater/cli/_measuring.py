"""Commands that measure how well a file of interactions is learned."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli._options import (
    ConfigOption,
    MapOption,
    announce_compiling,
    check_writable,
    counted,
    pairs,
    plain_console,
    stages,
)


class TiesChoice(StrEnum):
    ORDER = "order"
    GROUPED = "grouped"


class CatalogueChoice(StrEnum):
    SEEN = "seen"
    ALL = "all"


def replay(
    file: Annotated[Path, typer.Argument(help="Interactions: Parquet, CSV, TSV, JSONL, RecBole.")],
    items: Annotated[Path | None, typer.Option(help="Items file: titles, categories.")] = None,
    repeats: Annotated[
        bool | None,
        typer.Option(help="Recommend items again; by default each event type says for itself."),
    ] = None,
    catalogue: Annotated[
        CatalogueChoice | None,
        typer.Option(help="Recommend items once seen, or all of the items file.  [default: seen]"),
    ] = None,
    ties: Annotated[
        TiesChoice, typer.Option(help="One user's simultaneous events: in file order, or as one.")
    ] = TiesChoice.ORDER,
    limit: Annotated[int | None, typer.Option(min=1, help="First events only.")] = None,
    mapping: MapOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of every random choice.")] = None,
    config: ConfigOption = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    ranks: Annotated[Path | None, typer.Option(help="Write each rank, as Parquet.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw NDCG@10 over the stream (PNG, SVG).")
    ] = None,
) -> None:
    """Predict, then learn, every event of a file: the prequential protocol in one process."""
    from headwater import config as settings
    from headwater import replay as replaying

    for flag, path in (("--json", json), ("--ranks", ranks), ("--plot", plot)):
        check_writable(flag, path)
    recommend = {"repeats": repeats, "catalogue": catalogue and catalogue.value}
    flags: dict[str, Any] = {
        "recommend": {name: value for name, value in recommend.items() if value is not None}
    }
    if seed is not None:
        flags["seed"] = seed
    loaded = settings.load(config, flags)
    if "catalogue" not in loaded.recommend.model_fields_set:
        flags["recommend"]["catalogue"] = CatalogueChoice.SEEN.value
        loaded = settings.load(config, flags)
    console = plain_console()
    announce_compiling(console)
    replaying.run(
        file,
        items,
        console=console,
        config=loaded,
        grouped=ties is TiesChoice.GROUPED,
        limit=limit,
        mapping=pairs(mapping),
        json_path=json,
        ranks_path=ranks,
        plot_path=plot,
    )


class ProtocolChoice(StrEnum):
    LEAVE_ONE_OUT = "leave-one-out"


def evaluate(
    file: Annotated[Path, typer.Argument(help="Interactions: Parquet, CSV, TSV, JSONL, RecBole.")],
    protocol: Annotated[
        ProtocolChoice,
        typer.Option(help="What is held out: each user's last event, and the one before it."),
    ] = ProtocolChoice.LEAVE_ONE_OUT,
    order: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Number that orders a user's events.  [default: time]"),
    ] = None,
    mapping: MapOption = None,
    config: ConfigOption = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Learn a file as a whole, by backfill, and rank what was held out of it."""
    from json import dumps

    from headwater import config as settings
    from headwater import leave_one_out as offline

    check_writable("--json", json)
    loaded = settings.load(config)
    console = plain_console()
    announce_compiling(console)
    interactions = offline.read(file, order, pairs(mapping), loaded)
    for reason, count in interactions.skipped.items():
        console.print(f"{counted(count, 'row')} skipped: {reason}")
    for warning in interactions.warnings:
        console.print(f"warning: {warning}", style="yellow")
    with stages(console) as progress:
        results = offline.leave_one_out(interactions, loaded, progress)
    console.print(offline.table(results))
    console.print(f"{results['events']:,} events, {results['seconds']:,.1f} s")
    if json:
        json.write_text(dumps(results, indent=2, allow_nan=False) + "\n")
