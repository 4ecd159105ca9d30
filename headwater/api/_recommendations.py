"""Routes that recommend: to a known user, to an anonymous session, to nobody in particular."""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.params import FromPath, QueryParameter, RawBody

from headwater.api._answer import Encoded
from headwater.api._auth import SERVE
from headwater.api._problems import answers
from headwater.api._service import Service, ServiceDependency, path_id
from headwater.ingest import DEFAULT_N, WireRequest, build_request, decode_request
from headwater.types import Recommendations

N = Annotated[int, QueryParameter(description="Length of the list.")]
Exclude = Annotated[
    tuple[str, ...],
    QueryParameter(
        description="An item that may not be in the list; repeat the parameter for more."
    ),
]
MinOffset = Annotated[
    int,
    QueryParameter(
        ge=0,
        description="Wait until the state holds this offset; 503 where that takes longer than "
        "recommend.wait_seconds.",
    ),
]


async def listed(
    service: Service, user_id: str, n: int, exclude: tuple[str, ...], min_offset: int
) -> Recommendations:
    """The list of a user, whose id is as the path has it."""
    request = build_request(
        config=service.config, n=n, user_id=path_id("user_id", user_id), exclude=exclude
    )
    answer = await service.engine.recommend(request, min_offset)
    service.metrics.of_users.inc()
    return answer


@get(
    "/v1/users/{user_id:str}/recommendations",
    tags=["recommendations"],
    summary="Recommend to a user",
    response_class=Encoded,
    responses=answers(400, 401, 403, 503),
    opt=SERVE,
)
async def recommend_to_user(
    service: ServiceDependency,
    user_id: FromPath[str],
    n: N = DEFAULT_N,
    exclude: Exclude = (),
    min_offset: MinOffset = 0,
) -> Recommendations:
    """An unknown user gets what suits everybody. A list may be shorter than n, or empty."""
    return await listed(service, user_id, n, exclude, min_offset)


@post(
    "/v1/recommendations",
    status_code=200,
    tags=["recommendations"],
    summary="Recommend to a session, or to a user",
    response_class=Encoded,
    responses=answers(400, 401, 403, 413, 503),
    opt={**SERVE, "body": WireRequest},
)
async def recommend(
    service: ServiceDependency, body: RawBody, min_offset: MinOffset = 0
) -> Recommendations:
    """To a user by id, or to the items of an anonymous session, newest last."""
    request = decode_request(body, config=service.config)
    answer = await service.engine.recommend(request, min_offset)
    service.metrics.recommendations.labels("user" if request.user_id else "session").inc()
    return answer


@get(
    "/v1/popular",
    tags=["recommendations"],
    summary="What is popular now",
    responses=answers(400, 401, 403, 503),
    opt=SERVE,
)
async def popular(
    service: ServiceDependency,
    n: N = DEFAULT_N,
    exclude: Exclude = (),
    min_offset: MinOffset = 0,
) -> Recommendations:
    request = build_request(config=service.config, n=n, items=(), exclude=exclude)
    answer = await service.engine.popular(request.n, request.exclude, min_offset)
    service.metrics.recommendations.labels("popular").inc()
    return answer


HANDLERS = [recommend_to_user, recommend, popular]
