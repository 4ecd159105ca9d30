"""What the demo shows while it streams: a live view on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headwater.demo._ratings import Ratings
from headwater.demo._server import Server
from headwater.demo._stream import Progress

LINE_SECONDS = 5.0
BAR = 24
SERVED = "mixture"


@contextmanager
def shown(console: Console, progress: Progress) -> Iterator[Callable[[], None]]:
    """Shows ``progress`` while the context lasts; call what it yields after each change."""
    if console.is_terminal:
        with Live(get_renderable=lambda: view(progress), console=console, refresh_per_second=4):
            yield lambda: None
        return
    shown_at = time.monotonic()

    def refresh() -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= LINE_SECONDS:
            shown_at = time.monotonic()
            console.print(line(progress), soft_wrap=True, highlight=False)

    yield refresh


def view(progress: Progress) -> RenderableType:
    """The live view: where the stream is, how fast it is learned, how well it is predicted."""
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=progress.total, completed=progress.acknowledged, width=40),
        f"{progress.acknowledged:,} of {progress.total:,} ratings, {progress.seconds:.0f} s",
    )
    return Group(bar, Columns([_flow(progress), _quality(progress)]))


def line(progress: Progress) -> str:
    """The same as a line of text."""
    figures = "  ".join(f"{name} {value:.3f}" for name, value in progress.ndcg.items())
    return (
        f"{progress.seconds:4.0f} s  {progress.acknowledged:,} of {progress.total:,} acknowledged, "
        f"{progress.learned:,} learned ({progress.speed:,.0f}/s), acknowledged to learned "
        f"p50 {_milliseconds(progress.delay(0.5))} p99 {_milliseconds(progress.delay(0.99))}, "
        f"version {progress.version}, sequence {progress.sequence:,}"
        + (f", NDCG@10 {figures}" if figures else "")
    )


def summary(console: Console, progress: Progress) -> None:
    """What the streaming came to."""
    speed = progress.learned / progress.seconds if progress.seconds else 0.0
    console.print(
        f"\n{progress.acknowledged:,} of {progress.total:,} ratings were streamed in "
        f"{progress.seconds:.0f} s, {progress.learned:,} of them learned: {speed:,.0f} a second; "
        f"from acknowledged to learned took {_milliseconds(progress.delay(0.5))} (median) and "
        f"{_milliseconds(progress.delay(0.99))} (99th percentile).",
        highlight=False,
    )
    figures = progress.ndcg
    experts = {name: value for name, value in figures.items() if name != SERVED}
    if experts:
        best = max(experts, key=experts.__getitem__)
        console.print(
            f"NDCG@10 of the newest predictions: {figures[SERVED]:.3f} as served by the mixture of "
            f"experts, {experts[best]:.3f} by the best of them alone ({best}).",
            highlight=False,
        )


def addresses(console: Console, server: Server, folder: Path, ratings: Ratings) -> None:
    """Where to look and what to type while the server stays up."""
    user = ratings.rows[0][0]
    event = f'{{"type": "view", "user_id": "{user}", "item_id": "{ratings.rows[0][1]}"}}'
    table = Table.grid(padding=(0, 2))
    table.add_row("docs", f"{server.url}/docs")
    table.add_row("metrics", f"{server.url}/metrics")
    table.add_row("a list", f"curl '{server.url}/v1/users/{user}/recommendations?n=5'")
    table.add_row("an event", f"curl -d '{event}' {server.url}/v1/events")
    table.add_row("status", f"headwater status --url {server.url}")
    table.add_row("logs", str(folder / "serve.log"))
    console.print("\nThe server stays up until Ctrl-C; then its folder is removed.")
    console.print(table, soft_wrap=True)


def _flow(progress: Progress) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_row("acknowledged", f"{progress.acknowledged:,}")
    table.add_row("learned", f"{progress.learned:,}")
    table.add_row("learned per second", f"{progress.speed:,.0f}")
    table.add_row("acknowledged → learned, p50", _milliseconds(progress.delay(0.5)))
    table.add_row("acknowledged → learned, p99", _milliseconds(progress.delay(0.99)))
    table.add_row("model version", f"{progress.version}")
    table.add_row("model sequence", f"{progress.sequence:,}")
    return Panel(table, title="the loop", title_align="left")


def _quality(progress: Progress) -> Panel:
    figures = progress.ndcg
    table = Table.grid(padding=(0, 1))
    top = max([*figures.values(), 0.001])
    for name, value in figures.items():
        style = "bold green" if name == SERVED else ""
        bar = Text("█" * round(BAR * value / top), style="green" if name == SERVED else "blue")
        label = f"{name} (served)" if name == SERVED else name
        table.add_row(Text(label, style=style), Text(f"{value:.3f}", style=style), bar)
    if not figures:
        table.add_row("after the first predictions")
    return Panel(table, title="NDCG@10, predicted before learned", title_align="left")


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:,.0f} ms"
