"""The command line. Commands are thin; each imports what it needs when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from headwater.cli import _challengers, _data, _keys, _measuring, _operating, _settings, _showing
from headwater.cli._options import plain_console
from headwater.errors import HeadwaterError

app = typer.Typer(
    name="headwater",
    help="A recommender that never stops learning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# By name, in the order of the help.
_COMMANDS: dict[str, Callable[..., None]] = {
    "promote": _challengers.promote,
    "serve": _operating.serve,
    "status": _operating.status,
    "versions": _operating.versions,
    "rollback": _operating.rollback,
    "undo": _operating.undo,
    "resume": _operating.resume,
    "show": _showing.show,
    "replay": _measuring.replay,
    "evaluate": _measuring.evaluate,
    "import": _data.import_file,
    "export": _data.export,
    "dead-letters": _data.dead_letters,
    "backup": _data.backup,
    "restore": _data.restore,
    "erase": _data.erase,
    "demo": _showing.demo,
    "init": _settings.init,
    "config": _settings.config,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(_keys.app, name="key")
app.add_typer(_challengers.app, name="challenger")


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


def main() -> None:
    """Runs the command line; what Headwater raises on purpose becomes one red line and exit 2."""
    try:
        app()
    except HeadwaterError as error:
        plain_console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red")
        raise SystemExit(2) from None
