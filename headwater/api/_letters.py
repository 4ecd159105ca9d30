"""Routes of the dead letters: what was refused, and another try with it."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.params import PathParameter, RawBody

from headwater.api._events import LETTER_CHARACTERS, append, too_old
from headwater.api._items import vector_dimensions
from headwater.api._problems import Rejected, Unknown, answers, refusing
from headwater.api._service import (
    DEFAULT_PAGE,
    Cursor,
    PageLength,
    Service,
    ServiceDependency,
    cursor_row,
    page_length,
)
from headwater.errors import InvalidInput
from headwater.ingest import (
    Refused,
    WireEvent,
    WireItem,
    WireUser,
    decode_events,
    decode_item,
    decode_user,
)
from headwater.types import DeadLetter, Entry

Number = Annotated[int, PathParameter(ge=1, description="The letter's number.")]


class LettersPage(msgspec.Struct, frozen=True):
    """Letters, newest first; without ``next_cursor`` there are no more."""

    letters: list[DeadLetter]
    next_cursor: str | None


class Resent(msgspec.Struct, frozen=True):
    """Where the letter's content stands in the log now; the letter itself is gone."""

    number: int
    offset: int
    duplicate: bool


@get(
    "/v1/dead-letters",
    tags=["dead letters"],
    summary="List what was refused",
    responses=answers(400, 401, 403, 503),
)
async def list_letters(
    service: ServiceDependency, cursor: Cursor = None, n: PageLength = DEFAULT_PAGE
) -> LettersPage:
    """Newest first, each with the field at fault and the reason."""
    before = None if cursor is None else cursor_row(cursor)
    most = page_length(n)
    letters = await asyncio.to_thread(service.events.dead_letters, most, before)
    return LettersPage(letters, str(letters[-1].number) if len(letters) == most else None)


@get(
    "/v1/dead-letters/{number:int}",
    tags=["dead letters"],
    summary="Show what was refused",
    responses=answers(400, 401, 403, 404, 503),
)
async def get_letter(service: ServiceDependency, number: Number) -> DeadLetter:
    return await _letter(service, number)


@post(
    "/v1/dead-letters/{number:int}/resend",
    status_code=200,
    tags=["dead letters"],
    summary="Send again what was refused",
    responses=answers(400, 401, 403, 404, 413, 422, 503),
    opt={"body": (WireEvent, WireItem, WireUser), "optional": True},
)
async def resend_letter(service: ServiceDependency, number: Number, body: RawBody) -> Resent:
    """As it came, or as the body corrects it; accepted, the letter is gone, refused, it stays.

    It is read by the rules of the route that it came in by, as of the time when it came.
    """
    letter = await _letter(service, number)
    if not body.strip() and len(letter.body) >= LETTER_CHARACTERS:
        raise InvalidInput(
            "body",
            f"is needed: of the letter no more than {LETTER_CHARACTERS:,} characters were kept",
        )
    sent = body if body.strip() else letter.body.encode()
    entry = _entry(service, letter, sent, await vector_dimensions(service, sent))
    (appended,) = await append(service, [entry], [], time.time())
    if appended.older_than is not None:
        raise Rejected("timestamp", too_old(appended.older_than))
    await asyncio.to_thread(service.events.settle, number)
    return Resent(number, appended.offset, appended.duplicate)


async def _letter(service: Service, number: int) -> DeadLetter:
    letter = None
    # SQLite's integers end there.
    if number < 2**63:
        letter = await asyncio.to_thread(service.events.dead_letter, number)
    if letter is None:
        raise Unknown(f"there is no dead letter {number}; it was sent again, or dropped for others")
    return letter


def _entry(service: Service, letter: DeadLetter, body: bytes, dimensions: dict[str, int]) -> Entry:
    kind = {"/v1/items": "item", "/v1/users": "user"}.get(letter.source, "event")
    with refusing(kind):
        if kind == "item":
            return decode_item(body, None, dimensions)
        if kind == "user":
            return decode_user(body, None)
        decoded = decode_events(body, letter.received_at, config=service.config, max_events=1)
        if not decoded.single:
            raise InvalidInput("body", "is a list; send one event")
        (element,) = decoded.elements
        if isinstance(element, Refused):
            raise InvalidInput(element.field, element.reason)
        return element


HANDLERS = [list_letters, get_letter, resend_letter]
