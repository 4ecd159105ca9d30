"""The ASGI application: routes, errors, key, counters, and the model thread's lifetime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from headwater.api import (
    _auth,
    _challengers,
    _events,
    _explanation,
    _items,
    _letters,
    _operations,
    _problems,
    _recommendations,
    _similar,
    _users,
    _versions,
)
from headwater.api._direct import direct
from headwater.api._engine import Engine
from headwater.api._follows import Follows
from headwater.api._metrics import StateCollector
from headwater.api._openapi import pages
from headwater.api._service import Service
from headwater.config import Config
from headwater.deploy import VERSIONS, Challengers, Versions
from headwater.feedback import Feedback
from headwater.keys import KeyRing
from headwater.log import EventsLog, UpdatesLog

HANDLERS = [
    *_events.HANDLERS,
    *_recommendations.HANDLERS,
    *_similar.HANDLERS,
    *_explanation.HANDLERS,
    *_items.HANDLERS,
    *_users.HANDLERS,
    *_letters.HANDLERS,
    *_operations.HANDLERS,
    *_versions.HANDLERS,
    *_challengers.HANDLERS,
]


def create_app(
    config: Config,
    *,
    follower: Callable[[], Follows],
    events: EventsLog,
    updates: UpdatesLog,
    feedback: Feedback,
    snapshots: Path,
    challengers: Path,
    keys: KeyRing | None = None,
    died: Callable[[Exception], None] = lambda _: None,
) -> Litestar:
    """The HTTP API over open logs; the caller closes them after the application's shutdown.

    Args:
        follower: makes the follower of both logs; called once, on the model thread.
        snapshots: the folder of the kept versions.
        challengers: the folder of the challengers.
        keys: who may ask for what; by default the configured key alone, if there is one.
        died: called with the error by which the model thread ended, after which ``/livez`` fails.
    """
    ring = keys if keys is not None else KeyRing(None, config.serve.api_key)
    engine = Engine(
        follower,
        events,
        updates,
        feedback,
        max_queue=config.serve.max_queue,
        max_wait=config.serve.max_wait_milliseconds / 1000.0,
        wait_seconds=config.recommend.wait_seconds,
        died=died,
    )
    service = Service(
        config=config,
        events=events,
        engine=engine,
        feedback=feedback,
        versions=Versions(snapshots / VERSIONS),
        challengers=Challengers(challengers),
    )
    service.metrics.registry.register(StateCollector(service))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await engine.stop()

    app = Litestar(
        [*HANDLERS, *pages(HANDLERS, config, ring)],
        before_request=_auth.by_role,
        dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
        exception_handlers=_problems.HANDLERS,
        lifespan=[lifespan],
        logging_config=None,
        openapi_config=None,
        request_max_body_size=config.serve.max_body_bytes,
        state=State({"service": service}),
    )
    inner = _auth.require_key(direct(app.asgi_handler, service), ring)
    app.asgi_handler = service.metrics.measured(_on_raw_path(inner))
    return app


def _on_raw_path(app: ASGIApp) -> ASGIApp:
    """Routes by the path as it was sent, so that an id with an encoded slash stays one segment."""

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        request = cast(HTTPScope, scope)
        request["path"] = request["raw_path"].partition(b"?")[0].decode("latin-1")
        await app(scope, receive, send)

    return routed
