"""A follower that is easy to see through, and an application around it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from httpx import ASGITransport, AsyncClient, Response
from litestar import Litestar
from litestar.testing import TestClient

from headwater.api import create_app
from headwater.config import Config
from headwater.feedback import Feedback
from headwater.keys import KeyRing
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.log.served import ServedLog
from headwater.preprocess import Preprocessor
from headwater.types import (
    Event,
    ExplainedItem,
    Explanation,
    FeatureEffect,
    HistoryEvent,
    Item,
    ItemRemoval,
    Reason,
    Recommendations,
    RecommendedItem,
    Request,
    SimilarItems,
    SimilarUser,
    SimilarUsers,
)


@dataclass
class CountingFollower:
    """Recommends the items with the most events, the newest offset of each deciding ties.

    The hooks let a test slow it down, or make it fail.
    """

    events: MemoryEventsLog
    before_fold: Callable[[], None] = lambda: None
    after_fold: Callable[[], None] = lambda: None
    before_answer: Callable[[Sequence[Request]], None] = lambda _: None
    offset: int = 0
    epoch: int = 1
    version: int = 1
    sequence: int = 7
    trained_through: int = 0
    gradient_through: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    caches: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    newest: dict[str, int] = field(default_factory=dict)
    of_user: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str | None] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    answered: int = 0
    prepared: int = 0
    due: int = 0
    left: int = 0
    directory: Preprocessor = field(default_factory=lambda: Preprocessor(Config()))

    def prepare(self) -> None:
        self.prepared += 1

    def look_on(self) -> bool:
        self.threads.add(threading.get_ident())
        self.due = max(self.due - 1, 0)
        return self.due > 0

    def catch_up(self) -> None:
        self.before_fold()
        self.threads.add(threading.get_ident())
        while records := self.events.read(self.offset, 1000):
            for record in records:
                entry = record.entry
                if isinstance(entry, Item):
                    self.counts[entry.item_id] += 0
                    self.titles[entry.item_id] = entry.title
                elif isinstance(entry, Event):
                    if entry.item_id is not None:
                        self.counts[entry.item_id] += 1
                        self.newest[entry.item_id] = record.offset
                        self.of_user[entry.item_id] = entry.user_id
                elif isinstance(entry, ItemRemoval):
                    self.counts.pop(entry.item_id, None)
                self.offset = record.offset
            self.directory.batch(records)
        self.after_fold()

    def recommend(self, requests: Sequence[Request], now: float) -> list[Recommendations]:
        self.before_answer(requests)
        self.threads.add(threading.get_ident())
        self.batches.append(len(requests))
        return [
            self._answer(request.n, request.exclude.union(request.session_items))
            for request in requests
        ]

    def rest(self) -> bool:
        self.due, self.left = self.left, 0
        return self.due > 0

    def popular(self, n: int) -> Recommendations:
        return self._answer(n, frozenset())

    def explain(self, user_id: str, n: int, now: float) -> Explanation:
        self.threads.add(threading.get_ident())
        seen = [item_id for item_id in self.newest if self.of_user.get(item_id) == user_id]
        found = self._answer(n, frozenset())
        return Explanation(
            user_id=user_id,
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            offset=self.offset,
            events=len(seen),
            history=[HistoryEvent(one, None, "view", 1.0, 1.0 / len(seen)) for one in seen],
            items=[
                ExplainedItem(
                    one.item_id,
                    self.titles.get(one.item_id),
                    one.score,
                    one.reasons,
                    [FeatureEffect("item.log_events", 0.25, -0.5)],
                )
                for one in found.items
            ],
        )

    def similar_items(self, item_id: str, n: int, exclude: frozenset[str]) -> SimilarItems | None:
        self.threads.add(threading.get_ident())
        if item_id not in self.counts:
            return None
        return SimilarItems(
            item_id=item_id,
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            items=self._answer(n, exclude | {item_id}).items,
        )

    def similar_users(self, user_id: str, n: int) -> SimilarUsers:
        self.threads.add(threading.get_ident())
        others = sorted(set(self.of_user.values()) - {user_id})
        return SimilarUsers(
            user_id=user_id,
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            users=[SimilarUser(other, 0.5) for other in others][:n],
        )

    def _answer(self, n: int, exclude: frozenset[str]) -> Recommendations:
        self.answered += 1
        best = sorted(
            (item_id for item_id in self.counts if item_id not in exclude),
            key=lambda item_id: (-self.counts[item_id], -self.newest.get(item_id, 0)),
        )
        return Recommendations(
            recommendation_id=f"list-{self.answered}",
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            items=[
                RecommendedItem(item_id, float(self.counts[item_id]), [Reason("popularity", 1.0)])
                for item_id in best[:n]
            ],
        )


@dataclass
class Served:
    """An application over logs in memory, with the parts that a test looks at."""

    app: Litestar
    events: MemoryEventsLog
    updates: MemoryUpdatesLog
    follower: CountingFollower
    feedback: Feedback

    @property
    def engine(self) -> Any:
        return self.app.state.service.engine

    @contextmanager
    def client(self) -> Iterator[TestClient[Litestar]]:
        """A client of the running application, ready to answer."""
        with TestClient(self.app) as client:
            until(lambda: self.engine.ready)
            yield client

    @asynccontextmanager
    async def async_client(self) -> AsyncIterator[AsyncClient]:
        """Likewise, on the event loop of the caller."""
        transport = ASGITransport(app=cast(Any, self.app))
        async with (
            self.app.lifespan(),
            AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            async with asyncio.timeout(10):
                while not self.engine.ready:
                    await asyncio.sleep(0.001)
            yield client


def make(
    config: Config | None = None,
    *,
    events: MemoryEventsLog | None = None,
    keys: KeyRing | None = None,
    snapshots: Path = Path("there-is-none"),
    **options: Any,
) -> Served:
    """An application; ``options`` are the follower's hooks."""
    config = config or Config()
    events, updates = events or MemoryEventsLog(), MemoryUpdatesLog()
    follower = CountingFollower(events, **options)
    feedback = Feedback(ServedLog(None), config)
    app = create_app(
        config,
        follower=lambda: follower,
        events=events,
        updates=updates,
        feedback=feedback,
        snapshots=snapshots,
        challengers=snapshots / "challengers",
        keys=keys,
    )
    return Served(app, events, updates, follower, feedback)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Waits for ``condition``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.002)


def view(item_id: str, n: int = 0, **fields: Any) -> Event:
    """A stored view of ``item_id``; ``n`` tells several of them apart."""
    return Event(
        event_id=f"{item_id}-{n}",
        type="view",
        user_id="u",
        timestamp=1.0,
        item_id=item_id,
        **fields,
    )


def is_problem(response: Response, status: int, field: str | None = None) -> str:
    """Checks that an answer is a problem of the documented form; returns its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) - {"field"} == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert problem["title"]
    assert problem.get("field") == field
    detail: str = problem["detail"]
    assert detail
    return detail


KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
}


def check(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Whether a value has the kinds and fields of a schema; the subset of JSON Schema in use."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].split("/")[-1]]
    if "oneOf" in schema:
        kinds = [one.get("type") for one in schema["oneOf"]]
        assert (value is None and "null" in kinds) or value is not None
        return
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
        for name, own in value.items():
            check(own, schema["properties"][name], document)
    elif kind == "array":
        assert isinstance(value, list)
        for own in value:
            check(own, schema["items"], document)
    elif kind is not None:
        assert isinstance(value, KINDS[kind])
