"""What goes over the wire for each method, and what comes back: one code for both clients."""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec

from headwater.errors import HeadwaterError, Rejected, Unreachable
from headwater.types import (
    Appended,
    Event,
    Explanation,
    Item,
    Recommendations,
    SimilarItems,
    SimilarUsers,
    Status,
    User,
)

ENTRIES_PER_REQUEST = 1_000
"""Entries sent at a time, far below what a server takes by default: a batch that has to be sent
again costs little."""
BYTES_PER_REQUEST = 4_000_000
"""Bytes likewise, half of what a server takes by default: given vectors make long entries."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between attempts; each pause is twice the one before, and drawn from its upper half so
that many clients don't come back at once."""
AGAIN = frozenset({429, 502, 503, 504})
"""Statuses that say "not now", of the server or of a proxy before it."""

T = TypeVar("T")

AnyEvent = Event | Mapping[str, Any]
"""An event as a noun, or as the fields of ``POST /v1/events``."""

Outcome = httpx.Response | httpx.TransportError
Conversation = Generator[tuple[float, httpx.Request], Outcome, T]
"""Yields a pause and a request, is sent what became of it, and returns the answer."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[bytes], T]
    params: Mapping[str, str | int | list[str]] = field(default_factory=dict)
    body: bytes | None = None


class _Result(msgspec.Struct):
    status: str
    event_id: str | None = None
    item_id: str | None = None
    offset: int = 0
    field: str = ""
    reason: str = ""


class _Results(msgspec.Struct):
    results: list[_Result]


class _Change(msgspec.Struct):
    offset: int


class _Problem(msgspec.Struct):
    detail: str
    field: str | None = None


class Exchange:
    """Requests, answers and patience: everything but sending and sleeping."""

    def __init__(self, url: str, patience: float) -> None:
        self.url = url.rstrip("/")
        self.patience = patience

    def converse(self, http: httpx.Client | httpx.AsyncClient, call: Call[T]) -> Conversation[T]:
        """Tries a call until it is answered or ``patience`` has run out."""
        deadline = time.monotonic() + self.patience
        headers = {"Content-Type": "application/json"} if call.body is not None else {}
        pause, wait = FIRST_PAUSE, 0.0
        while True:
            request = http.build_request(
                call.method,
                f"{self.url}{call.path}",
                params=dict(call.params),
                content=call.body,
                headers=headers,
            )
            outcome = yield wait, request
            if isinstance(outcome, httpx.Response) and outcome.status_code not in AGAIN:
                return _read(outcome, call)
            if isinstance(outcome, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
                raise HeadwaterError(f"{self.url} can't be asked: {outcome}")
            wait = max(_retry_after(outcome), random.uniform(pause / 2, pause))
            if time.monotonic() + wait > deadline:
                raise Unreachable(f"{self.url} {_refusal(outcome)}")
            pause = min(2 * pause, LONGEST_PAUSE)

    def appending(
        self, http: httpx.Client | httpx.AsyncClient, path: str, entries: list[Any]
    ) -> Conversation[list[Appended]]:
        """Sends entries in parts; behind one that is too large, in parts of half its size."""
        encoded = [msgspec.json.encode(entry) for entry in entries]
        results: list[Appended | Rejected] = []
        start, most = 0, ENTRIES_PER_REQUEST
        while start < len(encoded):
            part = encoded[start : start + most]
            fitting = bisect_right(list(accumulate(map(len, part))), BYTES_PER_REQUEST)
            part = part[: max(fitting, 1)]
            body = b"[" + b",".join(part) + b"]"
            call = Call("POST", path, _read_results, body=body)
            try:
                results += yield from self.converse(http, call)
            except _TooLarge:
                if len(part) == 1:
                    raise
                most = len(part) // 2
            else:
                start += len(part)
        return accepted(results)


def sending(events: AnyEvent | Sequence[AnyEvent]) -> list[Any]:
    """As they go on the wire, each with its id."""
    many = [events] if isinstance(events, Event | Mapping) else events
    return [_event(one) for one in many]


def _event(event: AnyEvent) -> dict[str, Any]:
    wire = dict(event) if isinstance(event, Mapping) else msgspec.to_builtins(event)
    if isinstance(event, Event):
        # Where an event came from, of which kind its user is and what it passed over, the server
        # says for itself.
        for own in ("entry", "source", "anonymous", "imported", "passed_over"):
            wire.pop(own, None)
    if wire.get("event_id") in (None, ""):
        wire["event_id"] = uuid4().hex
    return wire


def setting(entries: Sequence[Item] | Sequence[User]) -> list[Any]:
    wire = [msgspec.to_builtins(entry) for entry in entries]
    for one in wire:
        del one["entry"]
    return wire


def removing(kind: str, id: str) -> Call[Appended]:
    """Of ``items`` or ``users``."""
    return Call("DELETE", f"/v1/{kind}/{_escaped(id)}", _read_change)


def recommending(
    wanted: Mapping[str, Any], exclude: Collection[str], min_offset: int
) -> Call[Recommendations]:
    # By body rather than by path: an id may hold anything, and a proxy decodes paths.
    body = {**wanted, "exclude": list(exclude)} if exclude else wanted
    params = _from(min_offset)
    encoded = msgspec.json.encode(body)
    return Call("POST", "/v1/recommendations", _read_list, params=params, body=encoded)


def asking_popular(n: int) -> Call[Recommendations]:
    return Call("GET", "/v1/popular", _read_list, params={"n": n})


def explaining(user_id: str, n: int) -> Call[Explanation]:
    path = f"/v1/users/{_escaped(user_id)}/explanation"
    return Call("GET", path, _read_explanation, params={"n": n})


def similar_items(
    item_id: str, n: int, exclude: Collection[str], min_offset: int
) -> Call[SimilarItems]:
    path = f"/v1/items/{_escaped(item_id)}/similar"
    return Call(
        "GET",
        path,
        _read_similar_items,
        params={"n": n, "exclude": list(exclude), **_from(min_offset)},
    )


def similar_users(user_id: str, n: int, min_offset: int) -> Call[SimilarUsers]:
    path = f"/v1/users/{_escaped(user_id)}/similar"
    return Call("GET", path, _read_similar_users, params={"n": n, **_from(min_offset)})


def _escaped(id: str) -> str:
    """The id as a part of a path; of dots alone it would be read as a step up."""
    return quote(id, safe="").replace(".", "%2E")


def _from(min_offset: int) -> dict[str, int]:
    return {"min_offset": min_offset} if min_offset else {}


def _read_list(body: bytes) -> Recommendations:
    return msgspec.json.decode(body, type=Recommendations)


def _read_explanation(body: bytes) -> Explanation:
    return msgspec.json.decode(body, type=Explanation)


def _read_similar_items(body: bytes) -> SimilarItems:
    return msgspec.json.decode(body, type=SimilarItems)


def _read_similar_users(body: bytes) -> SimilarUsers:
    return msgspec.json.decode(body, type=SimilarUsers)


def _read_status(body: bytes) -> Status:
    return msgspec.json.decode(body, type=Status)


def _read_change(body: bytes) -> Appended:
    return Appended(msgspec.json.decode(body, type=_Change).offset, False)


def _read_results(body: bytes) -> list[Appended | Rejected]:
    return [
        Rejected(one.field, one.reason)
        if one.status == "rejected"
        else Appended(one.offset, one.status == "duplicate")
        for one in msgspec.json.decode(body, type=_Results).results
    ]


ASKING_STATUS = Call("GET", "/v1/status", _read_status)


def accepted(results: list[Appended | Rejected]) -> list[Appended]:
    """The results, if nothing was refused.

    Raises:
        Rejected: the first that was; all results are in it.
    """
    for one in results:
        if isinstance(one, Rejected):
            raise Rejected(one.field, one.reason, results)
    return [one for one in results if isinstance(one, Appended)]


class _TooLarge(HeadwaterError):
    """More was sent in one request than a server, or a proxy before it, takes."""


def _read(response: httpx.Response, call: Call[T]) -> T:
    if response.is_success:
        try:
            return call.read(response.content)
        except msgspec.DecodeError as error:
            raise HeadwaterError(
                f"{response.url} answers something else than Headwater does: {error}"
            ) from None
    if response.status_code == 413:
        raise _TooLarge(f"{response.url} {_refusal(response)}")
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        raise HeadwaterError(
            f"{response.url} answers {response.status_code}; is it a Headwater server?"
        ) from None
    if problem.field is None or response.status_code in (401, 403):
        raise HeadwaterError(problem.detail)
    reason = problem.detail.removeprefix(problem.field).lstrip(": ")
    raise Rejected(problem.field, reason)


def _retry_after(outcome: Outcome) -> float:
    """Seconds that the server asks to wait; 0 where it doesn't say."""
    said = outcome.headers.get("Retry-After", "") if isinstance(outcome, httpx.Response) else ""
    try:
        return max(float(said), 0.0)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(said)
    except ValueError:
        return 0.0
    return max((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time(), 0.0)


def _refusal(outcome: Outcome) -> str:
    if isinstance(outcome, httpx.TransportError):
        return f"doesn't answer: {outcome or type(outcome).__name__}"
    try:
        detail = msgspec.json.decode(outcome.content, type=_Problem).detail
    except msgspec.DecodeError:
        detail = outcome.reason_phrase
    return f"answers {outcome.status_code}: {detail}"


def headers_of(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
