"""Routes of the versions: what there is, returning to one, going on after a pause."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.params import RawBody

from headwater.api._auth import who
from headwater.api._problems import answers, refusing
from headwater.api._service import Service, ServiceDependency
from headwater.deploy import rollback_to
from headwater.ingest import WireOrder, WireRollback, decode_order, reason
from headwater.types import Entry, Promotion, Resume, Rollback, Version

Asked = Request[Any, Any, Any]


class RolledBack(msgspec.Struct, frozen=True):
    """A rollback as it stands in the events log: the audit trail."""

    offset: int
    at: float
    rollback_id: str
    to: int
    first: int
    through: int
    by: str
    why: str


class Promoted(msgspec.Struct, frozen=True):
    """A promotion, likewise."""

    offset: int
    at: float
    promotion_id: str
    challenger: int
    settings: dict[str, Any]
    by: str
    why: str


class Resumed(msgspec.Struct, frozen=True):
    """An order to learn on after a pause, likewise."""

    offset: int
    at: float
    by: str
    why: str


class VersionsAnswer(msgspec.Struct, frozen=True):
    """The newest versions in order of their numbers, dropped and rolled back ones too, and every
    order that was given, the newest last.
    """

    versions: list[Version]
    rollbacks: list[RolledBack]
    promotions: list[Promoted]
    resumes: list[Resumed]


class Ordered(msgspec.Struct, frozen=True):
    """Where an order stands in the events log; the trainer acts on it when it sees it."""

    offset: int


@get(
    "/v1/versions",
    tags=["operations"],
    summary="List the newest versions, and the orders that were given",
    responses=answers(401, 403, 503),
)
async def list_versions(service: ServiceDependency) -> VersionsAnswer:
    """A state ``kept`` or ``live`` can be rolled back to."""
    return await asyncio.to_thread(_listed, service)


@post(
    "/v1/versions/rollback",
    status_code=202,
    tags=["operations"],
    summary="Return to a kept version",
    responses=answers(400, 401, 403, 413, 422, 503),
    opt={"body": WireRollback, "optional": True},
)
async def roll_back(service: ServiceDependency, request: Asked, body: RawBody) -> RolledBack:
    """Sets aside, for good, the events since that version was kept, to the log's end.

    The answer comes once the order is durable; the epoch of the status rises when it is done.
    """
    with refusing("order"):
        sent = decode_order(body, WireRollback)
        order = await asyncio.to_thread(_order, service, sent, who(request.scope))
    return _as_stands(*await order_in_log(service, order), order)


@post(
    "/v1/versions/resume",
    status_code=202,
    tags=["operations"],
    summary="Learn on after a guard has paused it",
    responses=answers(400, 401, 403, 413, 422, 503),
    opt={"body": WireOrder, "optional": True},
)
async def resume(service: ServiceDependency, request: Asked, body: RawBody) -> Ordered:
    """What comes from here on is usual: the guards learn anew what that means."""
    with refusing("order"):
        why = reason(decode_order(body, WireOrder).why)
    return Ordered((await order_in_log(service, Resume(who(request.scope), why)))[0])


def _order(service: Service, sent: WireRollback, by: str) -> Rollback:
    return rollback_to(
        service.versions.listed(),
        sent.to,
        through=service.events.end(),
        by=by,
        why=reason(sent.why),
    )


async def order_in_log(service: Service, entry: Entry) -> tuple[int, float]:
    """Appends an order; the offset that it has, and the time.

    However long the backlog is: an order may be what ends it.
    """
    now = time.time()
    appended = await asyncio.wrap_future(service.events.submit([entry], now))
    service.backlog.entered(appended)
    service.engine.appended()
    return appended[0].offset, now


def _listed(service: Service) -> VersionsAnswer:
    return VersionsAnswer(
        service.versions.listed(),
        [
            _as_stands(record.offset, record.received_at, record.entry)
            for record in service.events.rollbacks(0)
            if isinstance(record.entry, Rollback)
        ],
        [
            Promoted(record.offset, record.received_at, **msgspec.structs.asdict(record.entry))
            for record in service.events.promotions(0)
            if isinstance(record.entry, Promotion)
        ],
        [
            Resumed(record.offset, record.received_at, record.entry.by, record.entry.why)
            for record in service.events.resumes(0)
            if isinstance(record.entry, Resume)
        ],
    )


def _as_stands(offset: int, at: float, order: Rollback) -> RolledBack:
    return RolledBack(offset, at, **msgspec.structs.asdict(order))


HANDLERS = [list_versions, roll_back, resume]
