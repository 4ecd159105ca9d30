"""``headwater demo``: a recommender learns before your eyes, and ends by itself.

It starts ``headwater serve`` on a free port with a temporary data folder,
streams the film ratings that ship with the package over HTTP as fast as they are
learned, shows what becomes of them, and then follows one event through the loop.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headwater import data, kernels
from headwater.config import Config
from headwater.demo._finale import follow_one_event
from headwater.demo._ratings import Ratings
from headwater.demo._server import Server
from headwater.demo._stream import Stream
from headwater.demo._view import addresses, shown, summary
from headwater.roles import bulk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

STREAM = "movietweetings-100k"
STREAM_SECONDS = 135.0
STREAM_UNTIL = 190.0
"""Seconds after the start when streaming ends at the latest: where kernels are compiled for the
first time, on slow cores, the start takes up half a minute, and all has to end within four."""


def run(
    console: Console,
    *,
    keep: bool = False,
    seconds: float = STREAM_SECONDS,
    limit: int | None = None,
) -> None:
    """Runs the demo.

    Args:
        console: where it is shown; plain lines now and then where that is no terminal.
        keep: leaves the server running at the end, until Ctrl-C.
        seconds: longest time to stream.
        limit: streams so many ratings at most.

    Raises:
        HeadwaterError: the server ended or doesn't answer; the message has the end of its log.
    """
    started = time.monotonic()
    ratings = Ratings.read(data.path(STREAM))
    with _folder() as folder, Server(folder) as server:
        console.print(
            f"Headwater starts in {folder}, and the titles of {len(ratings.titles):,} films go in."
        )
        if not kernels.are_compiled():
            console.print(kernels.FIRST)
        bulk.import_items(ratings.items_file, folder, Config())
        server.until_ready()
        console.print(
            f"It listens on {server.url}. Now {len(ratings):,} ratings of films, as they were "
            "tweeted in 2013, oldest first, over HTTP: the model starts empty, and each rating is "
            "predicted before it is learned.\n",
        )
        stream = Stream(server, ratings, limit)
        left = STREAM_UNTIL - (time.monotonic() - started)
        with shown(console, stream.progress) as refresh:
            stream.run(min(seconds, left), refresh)
        summary(console, stream.progress)
        follow_one_event(console, server, ratings, stream.progress.acknowledged)
        if keep:
            addresses(console, server, folder, ratings)
            server.until_interrupted()
    console.print(
        f"Done after {time.monotonic() - started:.0f} s. `headwater serve` starts one of your own.",
        highlight=False,
    )


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="headwater-demo-", ignore_cleanup_errors=True) as path:
        yield Path(path)
