"""Commands that show how it works: what a user's list is made from, and a live demonstration."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli._options import (
    DEFAULT_DATA,
    ConfigOption,
    DataOption,
    UrlOption,
    print_json,
    print_page,
)


def show(
    user: Annotated[str, typer.Argument(help="A user id.")],
    data: DataOption = DEFAULT_DATA,
    url: UrlOption = None,
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
