"""``headwater show``: what a user's list is made from, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwater.types import ExplainedItem, Explanation, HistoryEvent, Reason

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

BAR_WIDTH = 12
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def ask(url: str, user_id: str, n: int, api_key: str | None = None) -> Explanation:
    """What the server at ``url`` says of a user.

    Raises:
        HeadwaterError: nothing answers there, or it refuses the user's id, n or the key.
    """
    from headwater.client import Client

    with Client(url, api_key=api_key, patience=0.0) as client:
        return client.explain(user_id, n)


def pages(found: Explanation) -> list[RenderableType]:
    """The explanation as headings and tables."""
    from rich.text import Text

    shown: list[RenderableType] = [
        Text(
            f"User {found.user_id}: {found.events:,} events. Version {found.version}, sequence "
            f"{found.sequence:,}; learned through {found.trained_through:,} of {found.offset:,}.",
            style="bold",
        )
    ]
    if found.history:
        shown += [Text(), _history(found.history)]
    else:
        shown.append(Text("Nothing is known of this user: the list suits everybody."))
    if found.items:
        shown += [Text(), _list(found.items)]
    return shown


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """A share of 0 to 1 as a bar, to an eighth of a character.

    >>> bar(0.5, 4), bar(0.03, 4)
    ('██', '▏')
    """
    eighths = round(max(share, 0.0) * width * 8)
    if not eighths and share > 0:
        eighths = 1
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _history(events: Sequence[HistoryEvent]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    heaviest = max(event.weight for event in events)
    table = Table(box=None, pad_edge=False, title="History, newest first", title_justify="left")
    for name in ("item", "event", "time (UTC)"):
        table.add_column(name, overflow="fold")
    table.add_column("weight", justify="right")
    table.add_column("", min_width=BAR_WIDTH)
    for event in events:
        table.add_row(
            _named(event),
            Text(event.type or "(unknown type)"),
            datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            f"{event.weight:.1%}",
            bar(event.weight / heaviest if heaviest > 0 else 0.0),
        )
    return table


def _list(items: Sequence[ExplainedItem]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    contributions = [abs(reason.contribution) for item in items for reason in item.reasons]
    largest = max(contributions, default=0.0) or 1.0
    table = Table(box=None, pad_edge=False, title="The list of the moment", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("item", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("every expert's share", no_wrap=True)
    table.add_column("features that count", overflow="fold")
    for place, item in enumerate(items, 1):
        effects = (f"{one.feature} {one.effect:+.2f}" for one in item.features)
        table.add_row(
            str(place),
            _named(item),
            f"{item.score:.3f}",
            Text("\n").join(_share(reason, largest) for reason in item.reasons),
            Text("\n".join(effects)),
        )
    return table


def _share(reason: Reason, largest: float) -> Text:
    from rich.text import Text

    below = reason.contribution < 0
    return Text.assemble(
        f"{reason.expert:<12}{reason.contribution:>+7.2f} ",
        (bar(abs(reason.contribution) / largest), "red" if below else "cyan"),
    )


def _named(item: HistoryEvent | ExplainedItem) -> Text:
    from rich.text import Text

    if item.title is None:
        return Text(item.item_id)
    return Text.assemble(item.title, " ", (item.item_id, "dim"))
