"""HTTP/1.1 with a door: what is too much is refused before anything is made of it.

To parse a request, start a task and route it costs the one event loop a tenth of a millisecond and
more, answered or refused; at twice what a server carries it would do little else, and what was let
in would wait behind what is refused. So while too many of the two busiest requests are in work,
another one is refused by a look at its bytes, or, where they don't come at once or aren't plain,
once its headers are parsed.
"""

from __future__ import annotations

import re
import time
from typing import Any, cast

import msgspec
from litestar.types import HTTPScope, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from headwater.api._problems import MEDIA_TYPE, Problem
from headwater.api._service import Service

_KIND = "queue-full"
_PROBLEM = msgspec.json.encode(
    Problem.of(503, "too many requests are in work already; try again later", kind=_KIND)
)
_HEADERS = [
    (b"retry-after", b"1"),
    (b"content-type", MEDIA_TYPE.encode()),
    (b"content-length", b"%d" % len(_PROBLEM)),
]
_REFUSAL = b"".join(
    (
        b"HTTP/1.1 503 Service Unavailable\r\n",
        *(b"%b: %b\r\n" % header for header in _HEADERS),
        b"\r\n",
        _PROBLEM,
    )
)
"""Without a date, which only an answer that isn't an error of the server must have."""

_BUSY = {
    b"GET": re.compile(rb"/v1/users/[^/?]+/recommendations(?:\?|$)"),
    b"POST": re.compile(rb"/v1/events(?:\?|$)"),
}
_LINE = re.compile(rb"(GET|POST) ([^ ]+) HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: ?(0|[1-9][0-9]{0,8})(?=\r\n)", re.IGNORECASE)
_LENGTHS = re.compile(rb"content-length", re.IGNORECASE)
_NOT_PLAIN = re.compile(
    rb"\r\n(?:[ \t]|transfer-encoding|expect|upgrade|connection:(?![ \t]*keep-alive\r\n))"
    rb"|\r(?!\n)|(?<!\r)\n",
    re.IGNORECASE,
)
_WAITS = b"min_offset="
"""Such a request waits for an event, not for its turn."""


class Protocol(HttpToolsProtocol):
    """Speaks with one client; served is the application whose state has a ``service``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: Any = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._service: Service = config.app.state.service  # type: ignore[union-attr]
        self._admission = self._service.admission
        self._is_reading = False  # in the middle of a request
        self._counts = False  # whether it is one of those that are counted
        self._entered: float | None = None  # when one came into work that isn't answered yet
        self._entered_as_list = False  # whether that one asks for a list
        self._is_list = False  # whether the one that is being read does

    def data_received(self, data: bytes) -> None:
        if self._admission.is_at_limit and self._is_idle and is_whole(data):
            method, target, _ = data.split(b" ", 2)
            if is_busy(method, target) and self._admission.is_full(method == b"GET"):
                self._service.metrics.refused(method.decode(), _KIND)
                self.transport.write(_REFUSAL)
                self.on_response_complete()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._is_reading = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        busy = is_busy(self.parser.get_method(), self.url)
        self._is_list = self.parser.get_method() == b"GET"
        refused = busy and self._admission.is_full(self._is_list)
        self._counts = busy and not refused and _WAITS not in self.url
        self.app = self._refuse if refused else self.config.loaded_app
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_reading = False
        # What waits for its client to read isn't in work: it would hold its place for ever.
        answerable = not (self.cycle.response_complete or self.flow.write_paused)
        if self._counts and self._entered is None and answerable:
            self._entered = time.perf_counter()
            self._entered_as_list = self._is_list
            self._admission.enter(self._is_list)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._entered is not None:
            now = time.perf_counter()
            self._admission.leave(self._entered_as_list, now - self._entered, now)
            self._entered = None
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._lose()
        super().pause_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose()
        super().connection_lost(exc)

    def _lose(self) -> None:
        if self._entered is not None:
            self._admission.lose(self._entered_as_list)
            self._entered = None

    @property
    def _is_idle(self) -> bool:
        """Whether what comes next is a request, and its answer would be the next one."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self._is_reading and not self.flow.write_paused

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._service.metrics.refused(cast(HTTPScope, scope)["method"], _KIND)
        await send({"type": "http.response.start", "status": 503, "headers": list(_HEADERS)})
        await send({"type": "http.response.body", "body": _PROBLEM, "more_body": False})


def is_busy(method: bytes, target: bytes) -> bool:
    """Whether it is one of the two busiest requests, written as clients write them.

    >>> is_busy(b"GET", b"/v1/users/ann/recommendations?n=5"), is_busy(b"GET", b"/v1/events")
    (True, False)
    """
    path = _BUSY.get(method)
    return path is not None and path.match(target) is not None


def is_whole(data: bytes) -> bool:
    r"""Whether bytes are one request, all of it and nothing else, with nothing unusual about it.

    >>> is_whole(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"), is_whole(b"GET /a HTTP/1.1\r\n")
    (True, False)
    """
    if _LINE.match(data) is None:
        return False
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2]
    lengths = _LENGTH.findall(head)
    # Where a length is written otherwise, the parser is to say where the next request begins.
    if end < 0 or len(lengths) > 1 or len(_LENGTHS.findall(head)) != len(lengths):
        return False
    if _NOT_PLAIN.search(head) is not None:
        return False
    return len(data) == end + 4 + (int(lengths[0]) if lengths else 0)
