"""Routes of the challengers: what is tried beside the live model, and what is to become of it."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import PathParameter, RawBody

from headwater.api._auth import who
from headwater.api._problems import Rejected, Unknown, answers, refusing
from headwater.api._service import Service, ServiceDependency
from headwater.api._versions import Ordered, order_in_log
from headwater.deploy import challenging
from headwater.errors import InvalidInput
from headwater.ingest import WireChallenger, WireOrder, decode_order, reason
from headwater.types import Challenger, ClickThrough, Promotion, Trial

Asked = Request[Any, Any, Any]

Number = Annotated[int, PathParameter(ge=1, description="The challenger's number.")]


class Tried(msgspec.Struct, frozen=True):
    """A challenger, and how it does.

    ``clicks`` are those on the lists that known users were shown while its canary lasted, by
    version: the challenger's lists have minus its number, those of everybody else a live version.
    """

    challenger: Challenger
    trial: Trial
    clicks: list[ClickThrough] = []


class ChallengersAnswer(msgspec.Struct, frozen=True):
    """All challengers in the order in which they were added, the newest last."""

    challengers: list[Tried]


@get(
    "/v1/challengers",
    tags=["operations"],
    summary="List the challengers, and how they do",
    responses=answers(401, 403, 503),
)
async def list_challengers(service: ServiceDependency) -> ChallengersAnswer:
    """``lift`` is how much higher their NDCG@10 is, with an interval that holds at all times."""
    return await asyncio.to_thread(_listed, service)


@post(
    "/v1/challengers",
    status_code=201,
    tags=["operations"],
    summary="Let other settings learn in the shadow of the live ones",
    responses=answers(400, 401, 403, 413, 422, 503),
    opt={"body": WireChallenger},
)
async def add_challenger(service: ServiceDependency, request: Asked, body: RawBody) -> Tried:
    """It waits until those before it have ended, and takes over once the evidence is enough."""
    with refusing("challenger"):
        sent = decode_order(body, WireChallenger)
        added = await asyncio.to_thread(_add, service, sent, who(request.scope))
    return Tried(added, Trial())


@post(
    "/v1/challengers/{number:int}/retire",
    status_code=202,
    tags=["operations"],
    summary="End a challenger",
    responses=answers(400, 401, 403, 404, 413, 422, 503),
    opt={"body": WireOrder, "optional": True},
)
async def retire_challenger(
    service: ServiceDependency, request: Asked, number: Number, body: RawBody
) -> Tried:
    """Nothing of it goes live; the answer comes before it has stopped."""
    with refusing("order"):
        why = reason(decode_order(body, WireOrder).why)
    return await asyncio.to_thread(_retire, service, number, who(request.scope), why)


@post(
    "/v1/challengers/{number:int}/promote",
    status_code=202,
    tags=["operations"],
    summary="Put a challenger in the live model's place",
    responses=answers(400, 401, 403, 404, 413, 422, 503),
    opt={"body": WireOrder, "optional": True},
)
async def promote_challenger(
    service: ServiceDependency, request: Asked, number: Number, body: RawBody
) -> Ordered:
    """Whatever the evidence says so far. The answer comes once the order is durable; ``version``
    in the status rises when it is done.
    """
    with refusing("order"):
        why = reason(decode_order(body, WireOrder).why)
    order = await asyncio.to_thread(_promotion, service, number, who(request.scope), why)
    return Ordered((await order_in_log(service, order))[0])


def _listed(service: Service) -> ChallengersAnswer:
    return ChallengersAnswer(
        [
            Tried(challenger, trial, _clicks(service, trial))
            for challenger, trial in service.challengers.listed()
        ]
    )


def _clicks(service: Service, trial: Trial) -> list[ClickThrough]:
    if trial.canary_since is None:
        return []
    until = time.time() if trial.ended_at is None else trial.ended_at
    return service.feedback.click_through_of_users(trial.canary_since, until)


def _add(service: Service, sent: WireChallenger, by: str) -> Challenger:
    settings = challenging(service.config, service.versions.live(), sent.settings)
    return service.challengers.add(
        settings,
        policy=sent.policy,
        delta=sent.delta,
        by=by,
        why=reason(sent.why),
        canary=sent.canary,
    )


def _retire(service: Service, number: int, by: str, why: str) -> Tried:
    _known(service, number)
    try:
        service.challengers.retire(number, by, why)
        return Tried(*service.challengers.get(number))
    except InvalidInput as error:
        raise Rejected("number", error.reason) from None


def _promotion(service: Service, number: int, by: str, why: str) -> Promotion:
    _known(service, number)
    try:
        return service.challengers.promotion(number, by, why)
    except InvalidInput as error:
        raise Rejected("number", error.reason) from None


def _known(service: Service, number: int) -> None:
    if all(one.number != number for one, _ in service.challengers.listed()):
        raise Unknown(f"there is no challenger {number}")


HANDLERS = [list_challengers, add_challenger, retire_challenger, promote_challenger]
