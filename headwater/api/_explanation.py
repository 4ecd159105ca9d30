"""What a user's list is made from: as JSON, and as a page that shows that JSON."""

from __future__ import annotations

from importlib import resources

from litestar import MediaType, Response, get
from litestar.params import FromPath

from headwater.api._problems import answers
from headwater.api._recommendations import N
from headwater.api._service import ServiceDependency, path_id
from headwater.ingest import DEFAULT_N, build_request, identifier
from headwater.types import Explanation

_PAGE = resources.files("headwater.api").joinpath("user.html").read_bytes()
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'"
}


@get(
    "/v1/users/{user_id:str}/explanation",
    tags=["recommendations"],
    summary="What a user's list is made from",
    responses=answers(400, 401, 403, 503),
)
async def explain(
    service: ServiceDependency, user_id: FromPath[str], n: N = DEFAULT_N
) -> Explanation:
    """The history with its weights, and the list that the user would be recommended now, with
    every expert's share and the features that count. It isn't kept as a list that was shown.
    """
    known = identifier(path_id("user_id", user_id), "user_id")
    request = build_request(config=service.config, n=n, user_id=known)
    return await service.engine.explain(known, request.n)


@get("/users/{user_id:str}", include_in_schema=False)
async def user_page(user_id: FromPath[str]) -> Response[bytes]:
    """The same for every user: it asks the route above for what it shows, with a key if needed."""
    return Response(_PAGE, media_type=MediaType.HTML, headers=_HEADERS)


HANDLERS = [explain, user_page]
