"""Routes that set and remove items of the catalogue."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import msgspec
from litestar import delete, post, put
from litestar.params import FromPath, RawBody

from headwater.api._events import THREAD_BYTES, append
from headwater.api._problems import Rejected, answers
from headwater.api._service import ServiceDependency, path_id
from headwater.errors import InvalidInput
from headwater.ingest import Refused, WireItem, decode_item, decode_items, identifier
from headwater.types import Item, ItemRemoval


class ItemAnswer(msgspec.Struct, frozen=True):
    """Where the change of an item stands in the events log."""

    item_id: str
    offset: int


class ItemResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one item; ``field`` and ``reason`` say why it was rejected."""

    status: Literal["accepted", "rejected"]
    item_id: str | None = None
    offset: int | None = None
    field: str | None = None
    reason: str | None = None


class ItemsAnswer(msgspec.Struct, frozen=True):
    """What became of every item, in the order in which they were sent."""

    accepted: int
    rejected: int
    results: list[ItemResult]


@put(
    "/v1/items/{item_id:str}",
    tags=["items"],
    summary="Set an item",
    responses=answers(400, 401, 403, 413, 422, 503),
    opt={"body": WireItem},
)
async def set_item(service: ServiceDependency, item_id: FromPath[str], body: RawBody) -> ItemAnswer:
    """The item is from now on what the body says; fields that it leaves out are empty."""
    known = _id(item_id)
    try:
        item = decode_item(body, known)
    except InvalidInput as error:
        if error.field in ("body", "item"):
            raise
        raise Rejected(error.field, error.reason) from None
    appended = await append(service, [item], [], time.time())
    return ItemAnswer(item.item_id, appended[0].offset)


@post(
    "/v1/items",
    status_code=200,
    tags=["items"],
    summary="Set many items",
    responses=answers(400, 401, 403, 413, 503),
    opt={"body": list[WireItem]},
)
async def set_items(service: ServiceDependency, body: RawBody) -> ItemsAnswer:
    """A JSON array of items, or one item per line; a rejected one doesn't touch the others."""
    received_at = time.time()
    most = service.config.serve.max_events_per_request
    if len(body) > THREAD_BYTES:
        decoded = await asyncio.to_thread(decode_items, body, max_items=most)
    else:
        decoded = decode_items(body, max_items=most)
    items = [one for one in decoded if isinstance(one, Item)]
    refused = [one for one in decoded if isinstance(one, Refused)]
    places = iter(await append(service, items, refused, received_at))
    return ItemsAnswer(
        accepted=len(items),
        rejected=len(refused),
        results=[
            ItemResult("accepted", item_id=one.item_id, offset=next(places).offset)
            if isinstance(one, Item)
            else ItemResult("rejected", field=one.field, reason=one.reason)
            for one in decoded
        ],
    )


@delete(
    "/v1/items/{item_id:str}",
    status_code=200,
    tags=["items"],
    summary="Remove an item",
    responses=answers(400, 401, 403, 503),
)
async def remove_item(service: ServiceDependency, item_id: FromPath[str]) -> ItemAnswer:
    """The item isn't recommended again until it is set again; what was learned of it is cleared."""
    removal = ItemRemoval(_id(item_id))
    appended = await append(service, [removal], [], time.time())
    return ItemAnswer(removal.item_id, appended[0].offset)


def _id(raw: str) -> str:
    return identifier(path_id("item_id", raw), "item_id")


HANDLERS = [set_item, set_items, remove_item]
