"""The routes of the catalogue: what was set or removed is in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from headwater.config import Config, Serve
from headwater.types import Entry, Item, ItemRemoval
from tests.api.serving import Served, is_problem, make


@pytest.fixture
def served() -> Served:
    return make(Config(serve=Serve(max_events_per_request=20, max_body_bytes=1_000_000)))


@pytest.fixture
def client(served: Served) -> Iterator[TestClient[Litestar]]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def steady() -> Iterator[TestClient[Litestar]]:
    """A client for tests that change nothing."""
    with make().client() as client:
        yield client


def entries(served: Served) -> list[Entry]:
    return [record.entry for record in served.events.read(0, 1000)]


def test_an_item_is_set(served: Served, client: TestClient[Litestar]) -> None:
    body = {"title": "A film", "categories": ["drama"], "price": 9.5, "available": False}
    response = client.put("/v1/items/film-1", json=body)
    assert response.status_code == 200
    assert response.json() == {"item_id": "film-1", "offset": 1}
    assert entries(served) == [
        Item("film-1", title="A film", categories=("drama",), price=9.5, available=False)
    ]


def test_an_item_is_removed(served: Served, client: TestClient[Litestar]) -> None:
    client.put("/v1/items/a", json={})
    client.put("/v1/items/b", json={})
    assert len(client.get("/v1/popular").json()["items"]) == 2
    assert client.delete("/v1/items/a").json() == {"item_id": "a", "offset": 3}
    assert entries(served)[-1] == ItemRemoval("a")
    assert [item["item_id"] for item in client.get("/v1/popular").json()["items"]] == ["b"]


@pytest.mark.parametrize("item_id", ["https://example.org/a?b=c#d", "a b", "ü", "a%2Fb", "1,2"])
def test_any_id_fits_into_a_path(
    item_id: str, served: Served, client: TestClient[Litestar]
) -> None:
    path = f"/v1/items/{quote(item_id, safe='')}"
    assert client.put(path, json={"item_id": item_id}).json()["item_id"] == item_id
    assert client.delete(path).json()["item_id"] == item_id
    assert entries(served) == [Item(item_id), ItemRemoval(item_id)]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, "body"),
        (b"[]", 400, "body"),
        (b"{", 400, "body"),
        (b"\xff", 400, "body"),
        (b'{"title": 5}', 422, "title"),
        (b'{"price": 1e999}', 422, "price"),
        (b'{"titel": "x"}', 422, "titel"),
        (b'{"item_id": "other"}', 422, "item_id"),
        (b'{"published_at": "yesterday"}', 422, "published_at"),
    ],
)
def test_a_bad_item_is_refused_by_name(
    body: bytes, status: int, field: str, steady: TestClient[Litestar]
) -> None:
    is_problem(steady.put("/v1/items/a", content=body), status, field)
    assert steady.get("/v1/status").json()["end"] == 0


def test_a_bad_id_in_the_path_is_refused(steady: TestClient[Litestar]) -> None:
    is_problem(steady.put("/v1/items/%FF", json={}), 400, "item_id")
    is_problem(steady.delete("/v1/items/%FF"), 400, "item_id")
    is_problem(steady.delete(f"/v1/items/{'x' * 300}"), 400, "item_id")


@pytest.mark.parametrize("lines", [False, True])
def test_many_items_in_order(lines: bool, served: Served, client: TestClient[Litestar]) -> None:
    items = [{"item_id": "a", "title": "A"}, {"title": "nobody"}, {"item_id": 5}]
    body = "\n".join(map(json.dumps, items)) if lines else json.dumps(items)
    answer = client.post("/v1/items", content=body)
    assert answer.status_code == 200
    assert answer.json() == {
        "accepted": 2,
        "rejected": 1,
        "results": [
            {"status": "accepted", "item_id": "a", "offset": 1},
            {"status": "rejected", "field": "item_id", "reason": "is missing"},
            {"status": "accepted", "item_id": "5", "offset": 2},
        ],
    }
    assert entries(served) == [Item("a", title="A"), Item("5")]
    (letter,) = served.events.dead_letters(10)
    assert (letter.field, json.loads(letter.body)) == ("item_id", {"title": "nobody"})


def test_a_large_body_is_decoded_alike(served: Served, client: TestClient[Litestar]) -> None:
    items = [{"item_id": n, "text": "x" * 10_000} for n in range(20)]
    answer = client.post("/v1/items", json=items).json()
    assert [result["offset"] for result in answer["results"]] == list(range(1, 21))


def test_a_vector_of_another_dimension_is_refused(
    served: Served, client: TestClient[Litestar]
) -> None:
    three, two = {"vectors": {"image": [1, 2, 3]}}, {"vectors": {"image": [1, 2]}}
    assert client.put("/v1/items/a", json=three).status_code == 200
    assert client.put("/v1/items/b", json={"title": "B"}).status_code == 200
    assert "another name" in is_problem(client.put("/v1/items/b", json=two), 422, "vectors")
    is_problem(client.patch("/v1/items/b", json=two), 422, "vectors")
    answer = client.post("/v1/items", json=[{"item_id": "c", **two}, {"item_id": "d", **three}])
    assert [one["status"] for one in answer.json()["results"]] == ["rejected", "accepted"]
    is_problem(client.post("/v1/dead-letters/1/resend"), 422, "vectors")
    assert client.get("/v1/items/b").json()["item"]["vectors"] == {}
    assert client.patch("/v1/items/b", json=three).status_code == 200
    for item_id in "abd":
        client.delete(f"/v1/items/{item_id}")
    assert client.post("/v1/dead-letters/1/resend").status_code == 200


def test_too_many_items_and_too_many_bytes_are_413(client: TestClient[Litestar]) -> None:
    is_problem(client.post("/v1/items", json=[{"item_id": 1}] * 21), 413, "body")
    detail = is_problem(client.post("/v1/items", content=b" " * 1_000_001), 413)
    assert "1,000,000 bytes (serve.max_body_bytes)" in detail
    is_problem(client.put("/v1/items/a", content=b" " * 1_000_001), 413)


def test_no_items_at_all_are_400(client: TestClient[Litestar]) -> None:
    is_problem(client.post("/v1/items", content=b""), 400, "body")
