"""Routes of users: set, change, show, list and hide them."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import msgspec
from litestar import delete, get, patch, post, put
from litestar.params import FromPath, RawBody

from headwater.api._auth import ADMIN, INGEST
from headwater.api._events import THREAD_BYTES, append
from headwater.api._problems import Unknown, answers, refusing
from headwater.api._service import (
    DEFAULT_PAGE,
    Cursor,
    PageLength,
    Service,
    ServiceDependency,
    cursor_row,
    page_length,
    path_id,
)
from headwater.ingest import Refused, WireUser, decode_user, decode_users, identifier, patch_user
from headwater.types import User, UserRemoval


class UserAnswer(msgspec.Struct, frozen=True):
    """Where the change of a user stands in the events log."""

    user_id: str
    offset: int


class UserResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one user; ``field`` and ``reason`` say why it was rejected."""

    status: Literal["accepted", "rejected"]
    user_id: str | None = None
    offset: int | None = None
    field: str | None = None
    reason: str | None = None


class UsersAnswer(msgspec.Struct, frozen=True):
    """What became of every user, in the order in which they were sent."""

    accepted: int
    rejected: int
    results: list[UserResult]


class UserView(msgspec.Struct, frozen=True):
    """A user as it is known; a ``PUT`` takes it as it is."""

    user_id: str
    attributes: dict[str, str | float | bool | list[str]]

    @classmethod
    def of(cls, user: User) -> UserView:
        return cls(**msgspec.structs.asdict(user))


class KnownUser(msgspec.Struct, frozen=True):
    """A user, and the offset through which the log was read to know it so."""

    offset: int
    user: UserView


class UsersPage(msgspec.Struct, frozen=True):
    """Users in order of first sighting; without ``next_cursor`` there are no more."""

    offset: int
    users: list[UserView]
    next_cursor: str | None


@get(
    "/v1/users/{user_id:str}",
    tags=["users"],
    summary="Show a user",
    responses=answers(400, 401, 403, 404, 503),
    opt=ADMIN,
)
async def get_user(service: ServiceDependency, user_id: FromPath[str]) -> KnownUser:
    """The user as it was last set; 404 for one that is hidden, or that only events name."""
    known = _id(user_id)
    user, offset = await _known(service, known)
    return KnownUser(offset, UserView.of(user))


@get(
    "/v1/users",
    tags=["users"],
    summary="List users",
    responses=answers(400, 401, 403, 503),
    opt=ADMIN,
)
async def list_users(
    service: ServiceDependency, cursor: Cursor = None, n: PageLength = DEFAULT_PAGE
) -> UsersPage:
    """Page by page, in a stable order: what is added meanwhile comes at the end."""
    after, most = cursor_row(cursor), page_length(n)
    (users, row), offset = await service.engine.look(lambda known: known.listed_users(after, most))
    return UsersPage(
        offset, [UserView.of(user) for user in users], None if row is None else str(row)
    )


@put(
    "/v1/users/{user_id:str}",
    tags=["users"],
    summary="Set a user",
    responses=answers(400, 401, 403, 413, 422, 503),
    opt={**INGEST, "body": WireUser},
)
async def set_user(service: ServiceDependency, user_id: FromPath[str], body: RawBody) -> UserAnswer:
    """The user is from now on what the body says; fields that it leaves out are empty."""
    known = _id(user_id)
    with refusing("user"):
        user = decode_user(body, known)
    async with service.changing("user", [known]):
        appended = await append(service, [user], [], time.time())
    return UserAnswer(user.user_id, appended[0].offset)


@patch(
    "/v1/users/{user_id:str}",
    tags=["users"],
    summary="Change a user",
    responses=answers(400, 401, 403, 404, 413, 422, 503),
    opt={**INGEST, "body": WireUser},
)
async def change_user(
    service: ServiceDependency, user_id: FromPath[str], body: RawBody
) -> UserAnswer:
    """A JSON merge patch (RFC 7396): fields of the body replace the user's, null removes one."""
    known = _id(user_id)
    async with service.changing("user", [known]):
        user, _ = await _known(service, known)
        with refusing("user"):
            user = patch_user(body, user)
        appended = await append(service, [user], [], time.time())
    return UserAnswer(user.user_id, appended[0].offset)


@post(
    "/v1/users",
    status_code=200,
    tags=["users"],
    summary="Set many users",
    responses=answers(400, 401, 403, 413, 503),
    opt={**INGEST, "body": list[WireUser], "lines": True, "id": "user_id"},
)
async def set_users(service: ServiceDependency, body: RawBody) -> UsersAnswer:
    """A JSON array of users, or one user per line; a rejected one doesn't touch the others."""
    received_at = time.time()
    most = service.config.serve.max_events_per_request
    if len(body) > THREAD_BYTES:
        decoded = await asyncio.to_thread(decode_users, body, max_users=most)
    else:
        decoded = decode_users(body, max_users=most)
    users = [one for one in decoded if isinstance(one, User)]
    refused = [one for one in decoded if isinstance(one, Refused)]
    async with service.changing("user", [user.user_id for user in users]):
        places = iter(await append(service, users, refused, received_at, "/v1/users"))
    return UsersAnswer(
        accepted=len(users),
        rejected=len(refused),
        results=[
            UserResult("accepted", user_id=one.user_id, offset=next(places).offset)
            if isinstance(one, User)
            else UserResult("rejected", field=one.field, reason=one.reason)
            for one in decoded
        ],
    )


@delete(
    "/v1/users/{user_id:str}",
    status_code=200,
    tags=["users"],
    summary="Hide a user",
    responses=answers(400, 401, 403, 503),
    opt=INGEST,
)
async def hide_user(service: ServiceDependency, user_id: FromPath[str]) -> UserAnswer:
    """Attributes and history are cleared: recommendations are those of an unknown user, until
    there are new events. What the model learned from the events, and they themselves, stay.
    """
    removal = UserRemoval(_id(user_id))
    async with service.changing("user", [removal.user_id]):
        appended = await append(service, [removal], [], time.time())
    return UserAnswer(removal.user_id, appended[0].offset)


def _id(raw: str) -> str:
    return identifier(path_id("user_id", raw), "user_id")


async def _known(service: Service, user_id: str) -> tuple[User, int]:
    user, offset = await service.engine.look(lambda known: known.user(user_id))
    if user is None:
        raise Unknown(f"there is no user {user_id}; PUT sets one")
    return user, offset


HANDLERS = [get_user, list_users, set_user, change_user, set_users, hide_user]
