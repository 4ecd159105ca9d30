"""Routes of the catalogue: set, change, show, list and remove items."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import msgspec
from litestar import delete, get, patch, post, put
from litestar.params import FromPath, RawBody

from headwater.api._auth import INGEST, SERVE
from headwater.api._events import THREAD_BYTES, append
from headwater.api._problems import Unavailable, Unknown, answers, refusing
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
from headwater.ingest import Refused, WireItem, decode_item, decode_items, identifier, patch_item
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


class ItemView(msgspec.Struct, frozen=True):
    """An item as it is known; a ``PUT`` takes it as it is."""

    item_id: str
    title: str | None
    categories: tuple[str, ...]
    tags: tuple[str, ...]
    price: float | None
    text: str | None
    attributes: dict[str, str | float | bool | list[str]]
    vectors: dict[str, list[float]]
    published_at: float | None
    available: bool

    @classmethod
    def of(cls, item: Item) -> ItemView:
        return cls(**msgspec.structs.asdict(item))


class KnownItem(msgspec.Struct, frozen=True):
    """An item, and the offset through which the log was read to know it so."""

    offset: int
    item: ItemView


class ItemsPage(msgspec.Struct, frozen=True):
    """Items in order of first sighting; without ``next_cursor`` there are no more."""

    offset: int
    items: list[ItemView]
    next_cursor: str | None


@get(
    "/v1/items/{item_id:str}",
    tags=["items"],
    summary="Show an item",
    responses=answers(400, 401, 403, 404, 503),
    opt=SERVE,
)
async def get_item(service: ServiceDependency, item_id: FromPath[str]) -> KnownItem:
    """The item as it was last set; 404 for one that is removed, or that only events name."""
    known = _id(item_id)
    item, offset = await _known(service, known)
    return KnownItem(offset, ItemView.of(item))


@get(
    "/v1/items",
    tags=["items"],
    summary="List the catalogue",
    responses=answers(400, 401, 403, 503),
    opt=SERVE,
)
async def list_items(
    service: ServiceDependency, cursor: Cursor = None, n: PageLength = DEFAULT_PAGE
) -> ItemsPage:
    """Page by page, in a stable order: what is added meanwhile comes at the end."""
    after, most = cursor_row(cursor), page_length(n)
    (items, row), offset = await service.engine.look(lambda known: known.listed_items(after, most))
    return ItemsPage(
        offset, [ItemView.of(item) for item in items], None if row is None else str(row)
    )


@put(
    "/v1/items/{item_id:str}",
    tags=["items"],
    summary="Set an item",
    responses=answers(400, 401, 403, 413, 422, 503),
    opt={**INGEST, "body": WireItem},
)
async def set_item(service: ServiceDependency, item_id: FromPath[str], body: RawBody) -> ItemAnswer:
    """The item is from now on what the body says; fields that it leaves out are empty."""
    known = _id(item_id)
    dimensions = await vector_dimensions(service, body)
    with refusing("item"):
        item = decode_item(body, known, dimensions)
    async with service.changing("item", [known]):
        appended = await append(service, [item], [], time.time())
    return ItemAnswer(item.item_id, appended[0].offset)


@patch(
    "/v1/items/{item_id:str}",
    tags=["items"],
    summary="Change an item",
    responses=answers(400, 401, 403, 404, 413, 422, 503),
    opt={**INGEST, "body": WireItem},
)
async def change_item(
    service: ServiceDependency, item_id: FromPath[str], body: RawBody
) -> ItemAnswer:
    """A JSON merge patch (RFC 7396): fields of the body replace the item's, null removes one."""
    known = _id(item_id)
    async with service.changing("item", [known]):
        item, _ = await _known(service, known)
        dimensions = await vector_dimensions(service, body)
        with refusing("item"):
            item = patch_item(body, item, dimensions)
        appended = await append(service, [item], [], time.time())
    return ItemAnswer(item.item_id, appended[0].offset)


@post(
    "/v1/items",
    status_code=200,
    tags=["items"],
    summary="Set many items",
    responses=answers(400, 401, 403, 413, 503),
    opt={**INGEST, "body": list[WireItem], "lines": True, "id": "item_id"},
)
async def set_items(service: ServiceDependency, body: RawBody) -> ItemsAnswer:
    """A JSON array of items, or one item per line; a rejected one doesn't touch the others."""
    received_at = time.time()
    most = service.config.serve.max_events_per_request
    known = await vector_dimensions(service, body)
    if len(body) > THREAD_BYTES:
        decoded = await asyncio.to_thread(decode_items, body, max_items=most, dimensions=known)
    else:
        decoded = decode_items(body, max_items=most, dimensions=known)
    items = [one for one in decoded if isinstance(one, Item)]
    refused = [one for one in decoded if isinstance(one, Refused)]
    async with service.changing("item", [item.item_id for item in items]):
        places = iter(await append(service, items, refused, received_at, "/v1/items"))
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
    opt=INGEST,
)
async def remove_item(service: ServiceDependency, item_id: FromPath[str]) -> ItemAnswer:
    """The item isn't recommended again until it is set again; what was learned of it is cleared."""
    removal = ItemRemoval(_id(item_id))
    async with service.changing("item", [removal.item_id]):
        appended = await append(service, [removal], [], time.time())
    return ItemAnswer(removal.item_id, appended[0].offset)


async def vector_dimensions(service: Service, body: bytes) -> dict[str, int]:
    """The dimensions that vectors in a body must have, by name.

    None while the log is being folded, or lists wait, when items are taken in all the same: the
    fold leaves out what doesn't fit.
    """
    if b"vectors" not in body or not service.engine.ready:
        return {}
    try:
        dimensions, _ = await service.engine.look(lambda known: known.dimensions())
    except Unavailable:
        return {}
    return dimensions


def _id(raw: str) -> str:
    return identifier(path_id("item_id", raw), "item_id")


async def _known(service: Service, item_id: str) -> tuple[Item, int]:
    item, offset = await service.engine.look(lambda known: known.item(item_id))
    if item is None:
        raise Unknown(f"there is no item {item_id} in the catalogue; PUT sets one")
    return item, offset


HANDLERS = [get_item, list_items, set_item, change_item, set_items, remove_item]
