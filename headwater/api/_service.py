"""What the routes share: settings, logs, the model thread, feedback and counters."""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import unquote

from litestar.di import NamedDependency
from litestar.params import QueryParameter, SkipValidation

from headwater.api._admission import Admission
from headwater.api._backlog import Backlog
from headwater.api._engine import Engine
from headwater.api._metrics import ApiMetrics
from headwater.config import Config
from headwater.deploy import Challengers, Versions
from headwater.errors import InvalidInput
from headwater.feedback import Feedback
from headwater.log import EventsLog

MAX_PAGE = 1_000
"""Entries of one page of a listing."""

CHANGES = 64
"""Changes of items and users that may wait for the log at once, those of many in one apart."""


@dataclass(slots=True, eq=False)
class Service:
    """One application's parts; a route gets it as its ``service``."""

    config: Config
    events: EventsLog
    engine: Engine
    feedback: Feedback
    versions: Versions
    challengers: Challengers
    metrics: ApiMetrics = field(default_factory=ApiMetrics)
    started_at: float = field(default_factory=time.time)
    backlog: Backlog = field(init=False)
    admission: Admission = field(init=False)
    _changes: tuple[asyncio.Lock, ...] = field(
        default_factory=lambda: tuple(asyncio.Lock() for _ in range(CHANGES))
    )

    def __post_init__(self) -> None:
        self.backlog = Backlog(self.engine, self.config.serve.max_backlog, self.events.end())
        self.admission = Admission(self.config.serve.max_wait_milliseconds / 1000.0)

    @contextlib.asynccontextmanager
    async def changing(self, kind: str, ids: Iterable[str]) -> AsyncIterator[None]:
        """Holds off other changes of these items or users, so that none falls between the look
        and the change of a patch.
        """
        named = (f"{kind}/{one}".encode("utf-8", "surrogatepass") for one in ids)
        places = sorted({zlib.crc32(name) % CHANGES for name in named})
        async with contextlib.AsyncExitStack() as stack:
            # In order, or two bulk changes could wait for each other.
            for place in places:
                await stack.enter_async_context(self._changes[place])
            yield


DEFAULT_PAGE = 100

Cursor = Annotated[
    str | None,
    QueryParameter(description="The next_cursor of the page before; none for the first page."),
]
PageLength = Annotated[int, QueryParameter(description="Entries of the page, at most.")]

ServiceDependency = NamedDependency[SkipValidation[Service]]


def cursor_row(cursor: str | None) -> int:
    """The row that a page goes on behind; -1 for the first page.

    Raises:
        InvalidInput: it is none that an answer has held.
    """
    if cursor is None:
        return -1
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise InvalidInput("cursor", "is not one; send the next_cursor of the page before")
    return int(cursor)


def page_length(n: int) -> int:
    """``n`` within its limits.

    Raises:
        InvalidInput: it isn't.
    """
    if not 1 <= n <= MAX_PAGE:
        raise InvalidInput("n", f"must be from 1 to {MAX_PAGE}")
    return n


def path_id(name: str, raw: str) -> str:
    """The id in a path segment, percent-decoded.

    Routes match the path before it is decoded, so that an id may hold a slash.

    Raises:
        InvalidInput: the segment isn't UTF-8.
    """
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput(name, "in the path isn't UTF-8; percent-encode it as UTF-8") from None
