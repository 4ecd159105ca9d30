"""The API key: ``Authorization: Bearer KEY`` on every route but the public ones."""

from __future__ import annotations

import hmac
from typing import cast

import msgspec
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from headwater.api._problems import MEDIA_TYPE, Problem

PUBLIC = frozenset({"/livez", "/readyz", "/docs"})
"""Paths that answer without a key: what an orchestrator asks, and a page that holds no data."""

_BODY = msgspec.json.encode(
    Problem.of(
        401,
        "the API key is missing or wrong: send the header Authorization: Bearer KEY",
        "Authorization",
    )
)


def require_key(app: ASGIApp, key: str) -> ASGIApp:
    """Wraps ``app`` so that only requests with the key reach it; compares in constant time."""
    expected = key.encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        request = cast(HTTPScope, scope)
        if request["path"] in PUBLIC or _has(request, expected):
            await app(scope, receive, send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 401,
                "headers": [
                    (b"content-type", MEDIA_TYPE.encode()),
                    (b"content-length", str(len(_BODY)).encode()),
                    (b"www-authenticate", b'Bearer realm="headwater"'),
                ],
            }
        )
        await send({"type": "http.response.body", "body": _BODY, "more_body": False})

    return guarded


def _has(scope: HTTPScope, expected: bytes) -> bool:
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, key = given.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), expected)
