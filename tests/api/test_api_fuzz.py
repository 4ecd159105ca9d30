"""Whatever is sent: no error of the server, and every error a problem that was described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from headwater.config import Config, Recommend, Serve
from tests.api.serving import make

few = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, -1, 1e308, 1_700_000_000_000, 2**63, 2**64]),
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\x00", "x" * 300, "view", "purchase", "2026-01-01", "\ud800", "null"]),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def objects(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields, good and bad values alike, and sometimes one more."""
    known: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {}, optional=dict.fromkeys(names, values)
    )
    return st.one_of(known, known, st.dictionaries(texts, values, max_size=2))


EVENT = objects(
    "event_id",
    "type",
    "user_id",
    "anonymous_id",
    "item_id",
    "timestamp",
    "sent_at",
    "session_id",
    "value",
    "recommendation_id",
    "position",
    "scenario",
    "surface",
    "context",
)
ITEM = objects(
    "item_id",
    "title",
    "categories",
    "tags",
    "price",
    "text",
    "attributes",
    "vectors",
    "published_at",
    "available",
)
REQUEST = objects("n", "user_id", "anonymous_id", "items", "exclude")


def bodies(some: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    """Bytes of every kind of wrong, and of right."""
    encoded = st.one_of(some, st.lists(some, max_size=4), values).map(
        lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
    )
    raw = st.one_of(some, values).map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
    cut = st.tuples(encoded, st.integers(1, 10)).map(lambda pair: pair[0][: -pair[1]])
    return st.one_of(encoded, encoded, raw, cut, st.binary(max_size=50))


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Litestar]]:
    config = Config(
        serve=Serve(max_body_bytes=4_000, max_events_per_request=3),
        recommend=Recommend(wait_seconds=0.01),
    )
    with make(config).client() as client:
        yield client


@pytest.fixture(scope="module")
def statuses(client: TestClient[Litestar]) -> dict[tuple[str, str], set[int]]:
    """The described statuses of every operation."""
    paths = client.get("/openapi.json").json()["paths"]
    return {
        (method.upper(), path): {int(status) for status in operation["responses"]}
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def holds(response: Any, described: set[int]) -> None:
    assert response.status_code < 500, response.text
    assert response.status_code in described, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code
        if response.status_code == 422:
            assert response.json()["field"]


@few
@given(body=bodies(EVENT), key=st.none() | texts)
def test_events(client: Any, statuses: Any, body: bytes, key: str | None) -> None:
    headers = [] if key is None else [(b"idempotency-key", key.encode("utf-8", "replace"))]
    response = client.post("/v1/events", content=body, headers=headers)
    holds(response, statuses["POST", "/v1/events"])
    if response.status_code == 200:
        answer = response.json()
        counted = answer["accepted"] + answer["duplicate"] + answer["rejected"]
        assert counted == len(answer["results"])


@few
@given(body=bodies(ITEM))
def test_many_items(client: Any, statuses: Any, body: bytes) -> None:
    holds(client.post("/v1/items", content=body), statuses["POST", "/v1/items"])


@few
@given(body=bodies(ITEM), item_id=st.text(min_size=1, max_size=10))
def test_one_item(client: Any, statuses: Any, body: bytes, item_id: str) -> None:
    path = f"/v1/items/{quote(item_id, safe='')}"
    holds(client.put(path, content=body), statuses["PUT", "/v1/items/{item_id}"])


@few
@given(body=bodies(REQUEST))
def test_requests(client: Any, statuses: Any, body: bytes) -> None:
    holds(client.post("/v1/recommendations", content=body), statuses["POST", "/v1/recommendations"])


@few
@given(
    user_id=st.text(min_size=1, max_size=10),
    query=st.lists(
        st.tuples(st.sampled_from(["n", "exclude", "x"]), texts | numbers.map(str)), max_size=4
    ),
    raw=st.binary(max_size=10),
)
def test_queries(
    client: Any, statuses: Any, user_id: str, query: list[tuple[str, str]], raw: bytes
) -> None:
    path = f"/v1/users/{quote(user_id, safe='')}/recommendations"
    pairs = "&".join(f"{name}={quote(value.encode('utf-8', 'replace'))}" for name, value in query)
    described = statuses["GET", "/v1/users/{user_id}/recommendations"]
    holds(client.get(f"{path}?{pairs}"), described)
    holds(client.get(f"{path}?n={quote(raw)}"), described)


@few
@given(path=st.text(max_size=20).map(quote) | st.binary(max_size=20).map(quote))
def test_paths(client: Any, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        response = client.request(method, f"/v1/{path}")
        holds(response, {200, 400, 404, 405, 422})
