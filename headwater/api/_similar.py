"""Routes of likeness: what goes with an item, who is like a user."""

from __future__ import annotations

from litestar import get
from litestar.params import FromPath

from headwater.api._auth import SERVE
from headwater.api._problems import Unknown, answers
from headwater.api._recommendations import Exclude, MinOffset, N
from headwater.api._service import ServiceDependency, path_id
from headwater.ingest import DEFAULT_N, build_request, identifier
from headwater.types import SimilarItems, SimilarUsers


@get(
    "/v1/items/{item_id:str}/similar",
    tags=["recommendations"],
    summary="What goes with an item",
    responses=answers(400, 401, 403, 404, 503),
    opt=SERVE,
)
async def similar_items(
    service: ServiceDependency,
    item_id: FromPath[str],
    n: N = DEFAULT_N,
    exclude: Exclude = (),
    min_offset: MinOffset = 0,
) -> SimilarItems:
    """Never the item itself. 404 for one that is removed, or that nothing has named. A list may
    be shorter than n, or empty. It isn't kept as a list that was shown.
    """
    known = identifier(path_id("item_id", item_id), "item_id")
    asked = build_request(config=service.config, n=n, items=(known,), exclude=exclude)
    found = await service.engine.similar_items(known, asked.n, asked.exclude, min_offset)
    if found is None:
        raise Unknown(f"there is no item {known}; an event or PUT makes one known")
    return found


@get(
    "/v1/users/{user_id:str}/similar",
    tags=["recommendations"],
    summary="Who is like a user",
    responses=answers(400, 401, 403, 503),
    opt=SERVE,
)
async def similar_users(
    service: ServiceDependency,
    user_id: FromPath[str],
    n: N = DEFAULT_N,
    min_offset: MinOffset = 0,
) -> SimilarUsers:
    """Among the users with the newest events, as many as recommend.active_users says. Nobody is
    like an unknown user.
    """
    known = identifier(path_id("user_id", user_id), "user_id")
    asked = build_request(config=service.config, n=n, user_id=known)
    return await service.engine.similar_users(known, asked.n, min_offset)


HANDLERS = [similar_items, similar_users]
