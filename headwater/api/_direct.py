"""The two busiest requests, answered without the framework around their routes.

Nearly every request asks for a user's list or brings a few events, and the framework takes longer
over one than the model over a list of many: it finds the handler, makes a request, reads its
signature, makes a response. What is plain is answered here, by the functions that the routes call;
whatever else may be in a request (a repeated parameter, a key for an event, another role's key)
takes the way around, and a caller can't tell which it was (tests/api/test_direct.py).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable
from typing import Any, cast

import msgspec
from litestar.types import ASGIApp, HTTPReceiveMessage, HTTPScope, Receive, Scope, Send

from headwater.api._auth import INGEST, SERVE, is_open_to
from headwater.api._events import LAG_HEADER, THREAD_BYTES, taken_in
from headwater.api._problems import MEDIA_TYPE, said_of
from headwater.api._recommendations import listed
from headwater.api._service import Service
from headwater.ingest import DEFAULT_N

_EVENTS = "/v1/events"
_BEFORE, _BEHIND = "/v1/users/", "/recommendations"
_LIST = _BEFORE + "{user_id}" + _BEHIND
_PLAIN = frozenset({"n", "min_offset"})
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
"""What is wrong with any other is for the framework to say."""

_Headers = list[tuple[bytes, bytes]]
_JSON = (b"content-type", b"application/json")

_encode = msgspec.json.Encoder().encode


def direct(app: ASGIApp, service: Service) -> ASGIApp:
    """Wraps ``app`` so that plain requests of the busiest routes don't reach it.

    Behind what asks for a key, and what counts and times requests; paths are as they were sent.
    """
    largest = min(THREAD_BYTES, service.config.serve.max_body_bytes)

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        request = cast(HTTPScope, scope)
        path, method = request["path"], request["method"]
        if method == "GET" and path.startswith(_BEFORE) and path.endswith(_BEHIND):
            user = path[len(_BEFORE) : -len(_BEHIND)]
            numbers = _numbers(request["query_string"])
            if user and "/" not in user and numbers is not None and is_open_to(scope, SERVE):
                await _answer(_list(service, user, numbers), service, request, _LIST, send)
                return
        elif method == "POST" and path == _EVENTS and is_open_to(scope, INGEST):
            length = _length(request)
            if length is not None and length <= largest and not request["query_string"]:
                body, receive = await _body(receive)
                if body is not None:
                    await _answer(_take_in(service, body), service, request, _EVENTS, send)
                    return
        await app(scope, receive, send)

    return routed


async def _list(service: Service, user: str, numbers: dict[str, int]) -> tuple[bytes, _Headers]:
    n, min_offset = numbers.get("n", DEFAULT_N), numbers.get("min_offset", 0)
    return _encode(await listed(service, user, n, (), min_offset)), [_JSON]


async def _take_in(service: Service, body: bytes) -> tuple[bytes, _Headers]:
    answer, lag = await taken_in(service, body)
    return _encode(answer), [(LAG_HEADER.lower().encode(), b"%d" % lag), _JSON]


async def _answer(
    answer: Awaitable[tuple[bytes, _Headers]],
    service: Service,
    request: HTTPScope,
    route: str,
    send: Send,
) -> None:
    cast(dict[str, Any], request)["path_template"] = route
    status = 200
    try:
        body, headers = await answer
    except Exception as error:
        problem, more = said_of(error, request["method"], request["path"], service.metrics)
        status, body = problem.status, _encode(problem)
        headers = [(name.lower().encode(), value.encode()) for name, value in more.items()]
        headers.append((b"content-type", MEDIA_TYPE.encode()))
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _numbers(query: bytes) -> dict[str, int] | None:
    """The parameters of a list, where they are nothing but known numbers."""
    found: dict[str, int] = {}
    if not query:
        return found
    for part in query.decode("latin-1").split("&"):
        name, _, value = part.partition("=")
        if name not in _PLAIN or name in found or _NUMBER.fullmatch(value) is None:
            return None
        found[name] = int(value)
    return found


def _length(request: HTTPScope) -> int | None:
    """Bytes of the body, where its length is all that the headers say of it."""
    length = None
    for name, value in request["headers"]:
        if name in (b"idempotency-key", b"transfer-encoding", b"content-encoding"):
            return None
        if name == b"content-length":
            if length is not None or _NUMBER.fullmatch(value.decode("latin-1")) is None:
                return None
            length = int(value)
    return length


async def _body(receive: Receive) -> tuple[bytes | None, Receive]:
    """The body, ``None`` where the client went away; and how it can be read once more."""
    read: deque[HTTPReceiveMessage] = deque()
    parts: list[bytes] = []
    while True:
        message = await receive()
        read.append(cast(HTTPReceiveMessage, message))
        if message["type"] != "http.request":
            break
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts), receive

    async def again() -> HTTPReceiveMessage:
        return read.popleft() if read else cast(HTTPReceiveMessage, await receive())

    return None, cast(Receive, again)
