"""Every error as ``application/problem+json`` (RFC 9457), with the field at fault where one is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from headwater.errors import HeadwaterError, InvalidInput, LogError, TooLarge

if TYPE_CHECKING:
    from headwater.api._metrics import ApiMetrics

MEDIA_TYPE = "application/problem+json"

AnyRequest = Request[Any, Any, Any]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong, by RFC 9457; ``field`` names the part of the request at fault."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None

    @classmethod
    def of(
        cls, status: int, detail: str, field: str | None = None, kind: str | None = None
    ) -> Problem:
        """A problem whose title is the status' own name; ``kind`` tells those of 503 apart."""
        return cls(
            type="about:blank" if kind is None else f"urn:headwater:{kind}",
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            field=field,
        )


class Unavailable(HeadwaterError):
    """The request was turned away for now; ``kind`` says why, in a word for programs.

    Kinds: ``not-ready``, ``queue-full``, ``backlog``, ``offset-not-reached``, ``log-failed``,
    ``stopping``, ``dead``.
    """

    def __init__(self, kind: str, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.kind = kind
        self.retry_after = retry_after


class Failed(HeadwaterError):
    """The model raised an error while it answered; that error is the cause of this one."""


class Rejected(HeadwaterError):
    """A single piece of input was understood and refused."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field


class Unknown(HeadwaterError):
    """What the path names isn't there."""


class Forbidden(HeadwaterError):
    """The request's key is a good one, but not for this route."""


@contextmanager
def refusing(element: str) -> Iterator[None]:
    """What is wrong with a field of the one element of a body is answered 422, not 400."""
    try:
        yield
    except InvalidInput as error:
        if error.field in ("body", element):
            raise
        raise Rejected(error.field, error.reason) from None


def said_of(
    error: Exception, method: str, path: str, metrics: ApiMetrics
) -> tuple[Problem, dict[str, str]]:
    """What is answered to a request that an error of our own, or an unexpected one, has ended.

    Returns:
        The problem, and headers beside it.
    """
    if isinstance(error, LogError):
        structlog.get_logger().error("the log failed", path=path, reason=str(error))
        error = Unavailable(
            "log-failed", "the log can't be used now; the server's own log says why", 5
        )
    match error:
        case TooLarge():
            return Problem.of(413, str(error), error.field), {}
        case InvalidInput():
            return Problem.of(400, str(error), error.field), {}
        case Rejected():
            return Problem.of(422, str(error), error.field), {}
        case Unknown():
            return Problem.of(404, str(error)), {}
        case Forbidden():
            return Problem.of(403, str(error), "Authorization"), {}
        case Unavailable():
            metrics.shed.labels(error.kind).inc()
            problem = Problem.of(503, str(error), kind=error.kind)
            return problem, {"Retry-After": str(error.retry_after)}
    structlog.get_logger().error("request failed", method=method, path=path, exc_info=error)
    return Problem.of(500, "an error in the server; its log says which"), {}


def _response(problem: Problem, headers: dict[str, str] | None = None) -> Response[Problem]:
    return Response(problem, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def _own(request: AnyRequest, error: Exception) -> Response[Problem]:
    metrics = request.app.state.service.metrics
    return _response(*said_of(error, request.method, request.url.path, metrics))


def _parameter(_: AnyRequest, error: ValidationException) -> Response[Problem]:
    faults = error.extra if isinstance(error.extra, list) else []
    fault = next((f for f in faults if isinstance(f, dict) and "key" in f), None)
    if fault is None:
        return _response(Problem.of(400, error.detail))
    name, said = str(fault["key"]), str(fault["message"]).replace("`", "")
    if said.startswith("Expected int"):
        least = said.partition(" >= ")[2]
        said = f"must be {least} or more" if least else "must be an integer"
    return _response(Problem.of(400, f"{name} {said}", name))


def _http(request: AnyRequest, error: HTTPException) -> Response[Problem]:
    detail = error.detail
    if error.status_code >= 500:
        # A client that went away in the middle of its body comes out like this, too.
        structlog.get_logger().warning(
            "request broke off", method=request.method, path=request.url.path, reason=detail
        )
    elif error.status_code == 404:
        detail = f"there is no {request.url.path}; /docs shows every route"
    elif error.status_code == 405:
        detail = f"{request.method} isn't answered here; the header Allow says what is"
    elif error.status_code == 413:
        most = request.app.state.service.config.serve.max_body_bytes
        detail = f"the body is larger than {most:,} bytes (serve.max_body_bytes); send less at once"
    return _response(Problem.of(error.status_code, detail), dict(error.headers or {}))


HANDLERS: dict[int | type[Exception], Any] = {
    ValidationException: _parameter,
    HTTPException: _http,
    Exception: _own,
}
"""For Litestar: which exception becomes which problem."""

_DESCRIPTIONS = {
    400: "The request can't be understood; `field` names the part at fault.",
    401: "No API key, or a wrong one: send `Authorization: Bearer KEY`.",
    403: "The key's role doesn't allow it.",
    404: "There is no such thing.",
    413: "The body, or the number of entries in it, is over the limit.",
    422: "Understood and refused; `field` names the part at fault.",
    500: "An error in the server.",
    503: "Turned away for now; try again after `Retry-After` seconds.",
}


def answers(*statuses: int) -> dict[int, ResponseSpec]:
    """The errors of a route, for its description; 500 comes with every route."""
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description=_DESCRIPTIONS[status],
            media_type=MEDIA_TYPE,
        )
        for status in sorted({*statuses, 500})
    }
