"""Who may ask: ``Authorization: Bearer KEY`` on every route but the public ones, and by role.

Whether a request has a key is decided before it is routed, so that nothing can be learned
without one; whether the key's role is enough, after.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from litestar import Request
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from headwater.api._problems import MEDIA_TYPE, Forbidden, Problem
from headwater.keys import ROLES, KeyRing, Role

PUBLIC = frozenset({"/livez", "/readyz", "/docs"})
"""Paths that answer without a key: what an orchestrator asks, and a page that holds no data."""
PUBLIC_PAGES = "/users/"
"""Likewise every path below it of one segment: a page that asks for the key, and then for data."""

INGEST: dict[str, Any] = {"roles": ("ingest", "admin")}
SERVE: dict[str, Any] = {"roles": ("serve", "admin")}
ADMIN: dict[str, Any] = {"roles": ("admin",)}
ANY: dict[str, Any] = {"roles": ROLES}
"""What a handler is given as ``opt``, to open it to more roles than admin."""

_ROLE = "headwater_role"

_KEY = "headwater_key"

_BODY = msgspec.json.encode(
    Problem.of(
        401,
        "the API key is missing or wrong: send the header Authorization: Bearer KEY",
        "Authorization",
    )
)


def allowed(opt: dict[str, Any]) -> tuple[Role, ...]:
    """The roles whose keys a handler with this ``opt`` answers."""
    return cast(tuple[Role, ...], opt.get("roles", ("admin",)))


def require_key(app: ASGIApp, keys: KeyRing) -> ASGIApp:
    """Wraps ``app`` so that, once there are keys, only requests with one reach it."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        request = cast(HTTPScope, scope)
        if _public(request["path"]) or not keys.required:
            await app(scope, receive, send)
            return
        given = _given(request)
        role = None if given is None else keys.role(given)
        if role is not None:
            request.setdefault("state", {})[_ROLE] = role
            request["state"][_KEY] = keys.name(given or "")
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


def who(scope: Scope) -> str:
    """Whose key a request came with, for an audit trail."""
    return cast(str, scope.get("state", {}).get(_KEY, "somebody without a key"))


def is_open_to(scope: Scope, opt: dict[str, Any]) -> bool:
    """Whether a handler with this ``opt`` answers the key that a request came with, if it did."""
    role = scope.get("state", {}).get(_ROLE)
    return role is None or role in allowed(opt)


async def by_role(request: Request[Any, Any, Any]) -> None:
    """Refuses a key whose role the route isn't open to; Litestar calls it before every handler.

    Not a guard, for which Litestar would copy the handler each time, a tenth of a request.
    """
    opt = request.route_handler.opt
    if not is_open_to(request.scope, opt):
        role, roles = request.scope["state"][_ROLE], allowed(opt)
        raise Forbidden(f"a key of role {role} can't do this; it takes {' or '.join(roles)}")


def _public(path: str) -> bool:
    return path in PUBLIC or (path.startswith(PUBLIC_PAGES) and path.count("/") == 2)


def _given(scope: HTTPScope) -> str | None:
    """The key that a request came with."""
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, key = given.partition(b" ")
    return key.strip().decode("utf-8", "replace") if scheme.lower() == b"bearer" else None
