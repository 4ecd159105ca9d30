"""Routes for those who run the server: probes, status, settings, metrics."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from litestar import MediaType, Response, get

from headwater import __version__
from headwater.api._backlog import seconds_behind
from headwater.api._metrics import metrics_of
from headwater.api._problems import Unavailable, answers
from headwater.api._service import Service, ServiceDependency
from headwater.config import effective, overridden
from headwater.types import Metrics, Status


class Probe(msgspec.Struct, frozen=True):
    """The answer of a probe that succeeded."""

    status: str


class MetricsAnswer(msgspec.Struct, frozen=True):
    """How well predictions did on the events that followed them, as the trainer last reported."""

    trained_through: int
    metrics: list[Metrics]


@get("/livez", tags=["operations"], summary="Whether the process works", responses=answers(503))
async def livez(service: ServiceDependency) -> Probe:
    if not service.engine.alive:
        raise Unavailable("dead", "the model thread has ended; restart the server")
    return Probe("alive")


@get("/readyz", tags=["operations"], summary="Whether the log is folded", responses=answers(503))
async def readyz(service: ServiceDependency) -> Probe:
    if not service.engine.ready:
        standing = service.engine.standing
        raise Unavailable("not-ready", f"the log is being folded, at offset {standing.offset}")
    return Probe("ready")


@get(
    "/v1/status",
    tags=["operations"],
    summary="Where the server stands",
    responses=answers(401, 403, 503),
)
async def status(service: ServiceDependency) -> Status:
    return await asyncio.to_thread(_status, service)


def _status(service: Service) -> Status:
    standing = service.engine.standing
    end = service.events.end()
    now = time.time()
    return Status(
        role="api",
        software=__version__,
        uptime_seconds=now - service.started_at,
        ready=service.engine.ready,
        version=standing.version,
        epoch=standing.epoch,
        sequence=standing.sequence,
        start=service.events.start(),
        end=end,
        offset=standing.offset,
        lag=max(0, end - standing.offset),
        trained_through=standing.trained_through,
        gradient_through=standing.gradient_through,
        training_lag=max(0, end - standing.trained_through),
        lag_seconds=seconds_behind(service.events, standing.offset, now),
        training_lag_seconds=seconds_behind(service.events, standing.trained_through, now),
        dead_letters=service.events.dead_letter_count(),
        clicks=service.feedback.click_through(),
        trainer={k: v for k, v in standing.report.items() if k != "metrics"},
    )


@get(
    "/v1/metrics",
    tags=["operations"],
    summary="How good the predictions are",
    responses=answers(401, 403, 503),
)
async def quality(service: ServiceDependency) -> MetricsAnswer:
    """Each prediction is tested on the event that followed, before that event is learned."""
    standing = service.engine.standing
    metrics = await asyncio.to_thread(metrics_of, service, standing)
    return MetricsAnswer(standing.report.get("trained_through", 0), metrics)


@get(
    "/v1/settings",
    tags=["operations"],
    summary="The effective settings, those that promotions brought too, secrets hidden",
    responses=answers(401, 403, 503),
)
async def settings(service: ServiceDependency) -> dict[str, Any]:
    live = await asyncio.to_thread(service.versions.live)
    return effective(overridden(service.config, live.lineage.settings if live else {}))


@get(
    "/metrics",
    tags=["operations"],
    summary="Everything countable, for Prometheus",
    media_type=MediaType.TEXT,
    responses=answers(401, 403, 503),
)
async def metrics(service: ServiceDependency) -> Response[bytes]:
    text = await asyncio.to_thread(service.metrics.exposition)
    return Response(text, media_type="text/plain; version=0.0.4")


HANDLERS = [livez, readyz, status, quality, settings, metrics]
