"""The command line. Commands are thin; each imports what it needs when it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import _challengers
from headwater.cli._options import (
    DEFAULT_DATA,
    ConfigOption,
    DataOption,
    WhyOption,
    counted,
    print_json,
    print_page,
)
from headwater.errors import ConfigError, HeadwaterError

if TYPE_CHECKING:
    from rich.console import Console

    from headwater.loop import Progress

app = typer.Typer(
    name="headwater",
    help="A recommender that never stops learning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN",
        help="Column of a field, as in user_id=customer; may be repeated.",
    ),
]


class RoleChoice(StrEnum):
    ALL = "all"
    API = "api"
    TRAINER = "trainer"
    CHALLENGER = "challenger"


class KeyRole(StrEnum):
    INGEST = "ingest"
    SERVE = "serve"
    ADMIN = "admin"


key_app = typer.Typer(
    help="Keys of the HTTP API: make, list, revoke. A running server notices within a second.",
    no_args_is_help=True,
)
app.add_typer(key_app, name="key")
app.add_typer(_challengers.app, name="challenger")
app.command()(_challengers.promote)


def _version(wanted: bool) -> None:
    if wanted:
        from headwater import __version__

        typer.echo(f"headwater {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None: ...


@app.command()
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


@app.command()
def status(
    data: DataOption = DEFAULT_DATA,
    url: Annotated[
        str | None,
        typer.Option(envvar="HEADWATER_URL", help="Address of a running API, instead of --data."),
    ] = None,
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


@app.command()
def versions(
    data: DataOption = DEFAULT_DATA,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the versions of the model that were kept, and the rollbacks; a server needn't run."""
    from headwater.roles import versions as kept

    found = kept.listed(data)
    if json:
        print_json(found)
        return
    for table in kept.tables(found):
        print_page(table)


@app.command()
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


@app.command()
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


@app.command()
def resume(why: WhyOption = "", data: DataOption = DEFAULT_DATA) -> None:
    """Learn on after a guard has paused it: what comes now is usual."""
    from headwater.roles import versions as kept

    typer.echo(f"learning goes on from offset {kept.resume(data, why):,}")


@app.command()
def show(
    user: Annotated[str, typer.Argument(help="A user id.")],
    data: DataOption = DEFAULT_DATA,
    url: Annotated[
        str | None,
        typer.Option(envvar="HEADWATER_URL", help="Address of a running API, instead of --data."),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Length of the list.")] = 10,
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Show what a user's list is made from: history, weights, every expert's share."""
    import msgspec

    from headwater import config as settings
    from headwater.roles import show as shown
    from headwater.roles import status as asked

    key = settings.load(config).serve.api_key
    found = shown.ask(url or asked.address(data), user, n, key)
    if json:
        print_json(msgspec.to_builtins(found))
        return
    print_page(*shown.pages(found))


class TiesChoice(StrEnum):
    ORDER = "order"
    GROUPED = "grouped"


class CatalogueChoice(StrEnum):
    SEEN = "seen"
    ALL = "all"


@app.command()
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
    replaying.run(
        file,
        items,
        config=loaded,
        grouped=ties is TiesChoice.GROUPED,
        limit=limit,
        mapping=_pairs(mapping),
        json_path=json,
        ranks_path=ranks,
        plot_path=plot,
    )


class ProtocolChoice(StrEnum):
    LEAVE_ONE_OUT = "leave-one-out"


@app.command()
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

    from rich.console import Console

    from headwater import config as settings
    from headwater import leave_one_out as offline

    loaded = settings.load(config)
    console = Console(highlight=False)
    interactions = offline.read(file, order, _pairs(mapping), loaded)
    for reason, count in interactions.skipped.items():
        console.print(f"{counted(count, 'row')} skipped: {reason}", markup=False)
    for warning in interactions.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    with _stages(console) as progress:
        results = offline.leave_one_out(interactions, loaded, progress)
    console.print(offline.table(results))
    console.print(f"{results['events']:,} events, {results['seconds']:,.1f} s")
    if json:
        json.write_text(dumps(results, indent=2, allow_nan=False) + "\n")


@app.command("import")
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
    from rich.console import Console
    from rich.progress import Progress

    from headwater import config as settings
    from headwater.roles import bulk

    if items and users:
        raise ConfigError("--items and --users: a file holds one of the two; import each by itself")
    what, append = "event", bulk.import_events
    if items or users:
        what, append = ("item", bulk.import_items) if items else ("user", bulk.import_users)
    loaded, columns = settings.load(config), _pairs(mapping)
    console = Console(highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"importing {file.name}", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        done = append(file, data, loaded, columns, progress)
    appended = done.kinds or {what: 0}
    kinds = ", ".join(counted(count, kind) for kind, count in appended.items())
    console.print(f"{file}: {kinds} appended to {data}", markup=False)
    if done.duplicate:
        console.print(f"{counted(done.duplicate, 'duplicate')}: there already")
    for reason, count in done.skipped.items():
        first = done.first_skipped.get(reason)
        where = "" if first is None else f" ({'row' if count == 1 else 'first in row'} {first:,})"
        console.print(f"{counted(count, 'row')} skipped: {reason}{where}", markup=False)
    for warning in done.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    if not backfill:
        return
    with _stages(console) as stage:
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


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File to write: .jsonl or .parquet.")],
    data: DataOption = DEFAULT_DATA,
    what: Annotated[
        WhatChoice, typer.Option(help="All events in order, or items or users as they are now.")
    ] = WhatChoice.EVENTS,
) -> None:
    """Write the events log to a file that `headwater import` reads back."""
    from rich.console import Console
    from rich.progress import Progress

    from headwater.roles.export import export as write

    console = Console(highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"exporting to {path.name}", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        written = write(path, data, what.value, progress)
    entries = counted(written, what.value.removesuffix("s"))
    console.print(f"{path}: {entries} of {data} written", markup=False)


@app.command("dead-letters")
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


@app.command()
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


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A folder that `headwater backup` made.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Make a data folder from a backup; never over one that holds something."""
    from headwater.roles import backup as copies

    made = copies.restore(source, data)
    typer.echo(f"{data}: {made.offset:,} entries; start it with `headwater serve --data {data}`")


@app.command()
def erase(
    users: Annotated[list[str], typer.Argument(help="User ids; several at once cost no more.")],
    data: DataOption = DEFAULT_DATA,
    config: ConfigOption = None,
) -> None:
    """Erase all that a stopped system keeps of users, and learn again without it."""
    from rich.console import Console
    from rich.progress import Progress

    from headwater import config as settings
    from headwater.roles import erase as erasing
    from headwater.roles import logs

    logs.configure("erase")
    loaded = settings.load(config)
    console = Console(highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def progress(doing: str, done: int, total: int) -> None:
            bar.update(task, description=doing, completed=done, total=total)

        erased = erasing.erase(users, data, loaded, progress)
    console.print(
        f"{data}: {erased.entries:,} entries blanked, {erased.letters:,} dead letters and "
        f"{erased.lists:,} served lists deleted; learned through {erased.trained_through:,}, "
        f"epoch {erased.epoch}",
        markup=False,
    )
    if erased.unnamed:
        console.print(
            f"no entry of the log names {', '.join(erased.unnamed)}: is it written as in the "
            "events? An anonymous_id is erased as anon: and the id",
            style="yellow",
            markup=False,
        )
    if erased.start:
        console.print(
            f"events through offset {erased.start:,} are no longer kept, so what was learned from "
            "them can't be learned again: counts, weights and sequences of items stay, which name "
            "nobody; ids, attributes and histories are gone"
        )
    console.print("Backups made before still hold what was erased; delete them.")


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """Watch a recommender learn 100,000 film ratings, live; ends by itself within four minutes."""
    import signal

    from rich.console import Console

    from headwater import demo as demonstration

    # A polite kill cleans up as Ctrl-C does; and a shell in the background ignores Ctrl-C's signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    if not console.is_terminal:
        # Nothing wraps a file or a pipe, and the reasons need room.
        console = Console(width=max(console.width, 130))
    demonstration.run(console, keep=keep)


@app.command()
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


@app.command()
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


@key_app.command("create")
def key_create(
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


@key_app.command("list")
def key_list(
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


@key_app.command("revoke")
def key_revoke(
    id: Annotated[str, typer.Argument(help="The key's id; it stands in the key, too.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Revoke a key: it opens nothing from now on."""
    from headwater.keys import Keys

    typer.echo(f"key {Keys(data).revoke(id).id} is revoked")


def _pairs(mapping: list[str] | None) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in mapping or ()]
    for field, equals, column in pairs:
        if not (field and equals and column):
            raise ConfigError(f"--map {field}{equals}{column}: write --map FIELD=COLUMN")
    return {field: column for field, _, column in pairs}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@contextmanager
def _stages(console: Console) -> Iterator[Progress]:
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
                console.print(f"{what} {done} of at most {total}: {figures}", markup=False)

        yield show


def main() -> None:
    """Runs the command line; what Headwater raises on purpose becomes one red line and exit 2."""
    try:
        app()
    except HeadwaterError as error:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(
            f"error: {error}", style="red", markup=False, highlight=False
        )
        raise SystemExit(2) from None
