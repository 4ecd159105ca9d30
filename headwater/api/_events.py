"""The route that takes events in."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import structlog
from litestar import Response, post
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter, RawBody

from headwater.api._auth import INGEST
from headwater.api._problems import Rejected, answers
from headwater.api._service import Service, ServiceDependency
from headwater.errors import LogError
from headwater.ingest import Decoded, Refused, WireEvent, decode_events
from headwater.types import Appended, DeadLetter, Entry, Event

LAG_HEADER = "Headwater-Training-Lag"
THREAD_BYTES = 65_536
"""Larger bodies are decoded on another thread: 64 KiB take about a millisecond, 8 MB a tenth of a
second in which the event loop would answer nobody."""
LETTER_CHARACTERS = 65_536
"""What is kept of refused input; without a limit, garbage at full size would fill the disk."""

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="Stands for event_id in an event that has none: the same key, the same event.",
    ),
]


class EventResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one event; ``field`` and ``reason`` say why it was rejected."""

    event_id: str | None
    status: Literal["accepted", "duplicate", "rejected"]
    offset: int | None = None
    field: str | None = None
    reason: str | None = None


class EventsAnswer(msgspec.Struct, frozen=True):
    """What became of every event, in the order in which they were sent."""

    accepted: int
    duplicate: int
    rejected: int
    results: list[EventResult]


@post(
    "/v1/events",
    status_code=200,
    tags=["events"],
    summary="Append one event or an array of them",
    responses=answers(400, 401, 403, 413, 422, 503),
    response_headers=[
        ResponseHeader(
            name=LAG_HEADER,
            description="Events acknowledged that the model hasn't learned yet.",
            documentation_only=True,
        )
    ],
    opt={**INGEST, "body": WireEvent | list[WireEvent]},
)
async def append_events(
    service: ServiceDependency, body: RawBody, idempotency_key: IdempotencyKey = None
) -> Response[EventsAnswer]:
    """Answers once every accepted event is durable; each has its offset in the answer.

    A duplicate is answered with the offset that the event has already. In an
    array, a rejected event doesn't touch the others; a single one answers 422.
    """
    answer, lag = await taken_in(service, body, idempotency_key)
    return Response(answer, headers={LAG_HEADER: str(lag)})


async def taken_in(
    service: Service, body: bytes, idempotency_key: str | None = None
) -> tuple[EventsAnswer, int]:
    """What became of the events of a body, and how many the model hasn't learned yet."""
    service.backlog.check()
    received_at = time.time()
    if len(body) > THREAD_BYTES:
        decoded = await asyncio.to_thread(_decode, service, body, received_at, idempotency_key)
    else:
        decoded = _decode(service, body, received_at, idempotency_key)
    refused = [one for one in decoded.elements if isinstance(one, Refused)]
    events = [one for one in decoded.elements if isinstance(one, Event)]
    appended = await append(service, await _passed_over(service, events), refused, received_at)
    results = _results(decoded, appended)
    counts = Counter(result.status for result in results)
    for status, count in counts.items():
        service.metrics.events.labels(status).inc(count)
    if decoded.single and results[0].status == "rejected":
        raise Rejected(results[0].field or "", results[0].reason or "")
    answer = EventsAnswer(
        accepted=counts["accepted"],
        duplicate=counts["duplicate"],
        rejected=counts["rejected"],
        results=results,
    )
    return answer, max(0, service.backlog.end - service.engine.standing.trained_through)


async def append(
    service: Service,
    entries: Sequence[Entry],
    refused: Sequence[Refused],
    received_at: float,
    route: str = "/v1/events",
) -> list[Appended]:
    """Commits entries and keeps what was refused as dead letters; returns once both are durable.

    Args:
        route: where it came in; a letter that is sent again is read by that route's rules.

    Raises:
        Unavailable: too many entries wait already.
        LogError: nothing was stored.
    """
    with service.backlog.entering(len(entries) + len(refused)):
        committed = asyncio.wrap_future(service.events.submit(entries, received_at))
        if not refused:
            appended = await committed
        else:
            letters = [_letter(one, received_at, route) for one in refused]
            appended, _ = await asyncio.gather(
                committed, asyncio.to_thread(service.events.refuse, letters)
            )
    service.backlog.entered(appended)
    service.engine.appended()
    return appended


async def _passed_over(service: Service, events: list[Event]) -> list[Event]:
    """The events as they are appended: what a list showed above a click is asked for once, now.

    What was served may be lost later, and what is learned has to follow from the events alone.
    """
    if not any(event.recommendation_id and event.position for event in events):
        return events
    try:
        return await asyncio.to_thread(service.feedback.passed_over, events)
    except LogError:
        structlog.get_logger().exception("what was shown above a click was not read")
        return events


def _decode(service: Service, body: bytes, received_at: float, key: str | None) -> Decoded:
    return decode_events(
        body,
        received_at,
        config=service.config,
        max_events=service.config.serve.max_events_per_request,
        idempotency_key=key,
    )


def _results(decoded: Decoded, appended: Sequence[Appended]) -> list[EventResult]:
    places = iter(appended)
    results = []
    for one in decoded.elements:
        if isinstance(one, Refused):
            results.append(
                EventResult(one.event_id, "rejected", field=one.field, reason=one.reason)
            )
        else:
            place = next(places)
            if place.older_than is not None:
                reason = too_old(place.older_than)
                results.append(
                    EventResult(one.event_id, "rejected", field="timestamp", reason=reason)
                )
                continue
            status: Literal["accepted", "duplicate"] = (
                "duplicate" if place.duplicate else "accepted"
            )
            results.append(EventResult(one.event_id, status, offset=place.offset))
    return results


def too_old(than: float) -> str:
    """Why an event was refused that may have been dropped, and what to do about the next one."""
    return (
        f"must be later than {datetime.fromtimestamp(than, UTC):%Y-%m-%dT%H:%M:%SZ}: events that "
        "old are no longer kept, so whether this one was counted already can't be told; send "
        "events sooner, or keep more of them (log.keep_days, log.keep_megabytes)"
    )


def _letter(refused: Refused, received_at: float, route: str) -> DeadLetter:
    return DeadLetter(
        received_at=received_at,
        source=route,
        body=refused.body.decode("utf-8", errors="replace")[:LETTER_CHARACTERS],
        field=refused.field,
        reason=refused.reason,
    )


HANDLERS = [append_events]
