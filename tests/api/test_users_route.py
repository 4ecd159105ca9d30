"""The routes of users, and what items' share with them: show, list, change, hide."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from headwater.types import Entry, User, UserRemoval
from tests.api.serving import Served, is_problem, make

BOTH = pytest.mark.parametrize("kind", ["item", "user"])


@pytest.fixture
def served() -> Served:
    return make()


@pytest.fixture
def client(served: Served) -> Iterator[TestClient[Litestar]]:
    with served.client() as client:
        yield client


def entries(served: Served) -> list[Entry]:
    return [record.entry for record in served.events.read(0, 1000)]


def test_a_user_is_set_shown_and_hidden(served: Served, client: TestClient[Litestar]) -> None:
    attributes: dict[str, Any] = {"plan": "gold", "age": 41.0, "staff": False, "likes": ["a"]}
    answer = client.put("/v1/users/u%2F1", json={"attributes": attributes})
    assert answer.json() == {"user_id": "u/1", "offset": 1}
    shown = client.get("/v1/users/u%2F1").json()
    assert shown == {"offset": 1, "user": {"user_id": "u/1", "attributes": attributes}}
    assert client.delete("/v1/users/u%2F1").json() == {"user_id": "u/1", "offset": 2}
    is_problem(client.get("/v1/users/u%2F1"), 404)
    assert entries(served) == [User("u/1", attributes), UserRemoval("u/1")]


def test_many_users_in_order(served: Served, client: TestClient[Litestar]) -> None:
    users = [{"user_id": "a"}, {"attributes": {}}, {"user_id": 5, "attributes": {"x": 1}}]
    for body in (json.dumps(users), "\n".join(map(json.dumps, users))):
        answer = client.post(
            "/v1/users", content=body, headers={"Content-Type": "application/x-ndjson"}
        ).json()
        assert [one["status"] for one in answer["results"]] == ["accepted", "rejected", "accepted"]
    (newest, _) = served.events.dead_letters(10)
    assert (newest.source, newest.field) == ("/v1/users", "user_id")
    assert client.get("/v1/users/5").json()["user"]["attributes"] == {"x": 1.0}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, "body"),
        (b"[]", 400, "body"),
        (b"\xff", 400, "body"),
        (b'{"attributes": 5}', 422, "attributes"),
        (b'{"atributes": {}}', 422, "atributes"),
        (b'{"user_id": "other"}', 422, "user_id"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_bad_user_is_refused_by_name(
    method: str, body: bytes, status: int, field: str, client: TestClient[Litestar]
) -> None:
    client.put("/v1/users/a", json={})
    is_problem(client.request(method, "/v1/users/a", content=body), status, field)


@BOTH
def test_what_is_not_there_is_404(kind: str, client: TestClient[Litestar]) -> None:
    client.post("/v1/events", json={"type": "view", "user_id": "x", "item_id": "x"})
    for one in ("x", "y"):
        is_problem(client.get(f"/v1/{kind}s/{one}"), 404)
        is_problem(client.patch(f"/v1/{kind}s/{one}", json={}), 404)


@BOTH
def test_pages_hold_everything_once_in_a_stable_order(
    kind: str, client: TestClient[Litestar]
) -> None:
    for n in (3, 1, 4, 1, 5, 9, 2, 6):
        client.put(f"/v1/{kind}s/{n}", json={})
    client.delete(f"/v1/{kind}s/4")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(f"/v1/{kind}s", params={"n": 2} | ({"cursor": cursor} if cursor else {}))
        seen += [one[f"{kind}_id"] for one in page.json()[f"{kind}s"]]
        cursor = page.json()["next_cursor"]
        client.put(f"/v1/{kind}s/3", json={"attributes": {"later": True}})
    assert seen == ["3", "1", "5", "9", "2", "6"]
    for bad in ("x", "-1", "1" * 20):
        is_problem(client.get(f"/v1/{kind}s", params={"cursor": bad}), 400, "cursor")
    for n in (0, 1001):
        is_problem(client.get(f"/v1/{kind}s", params={"n": n}), 400, "n")


PATCHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"title": "New"}, {"title": "New"}),
    ({"title": None}, {"title": None}),
    ({"tags": ["x"]}, {"tags": ["x"]}),
    ({"attributes": {"a": None, "c": 3.0}}, {"attributes": {"b": "two", "c": 3.0}}),
    ({"attributes": None}, {"attributes": {}}),
    ({"vectors": {"v": None}}, {"vectors": {}}),
    ({"available": False}, {"available": False}),
    ({"item_id": "i"}, {}),
]


@pytest.mark.parametrize(("patch", "changed"), PATCHES)
def test_a_patch_changes_what_it_names_and_null_removes(
    patch: dict[str, Any], changed: dict[str, Any], client: TestClient[Litestar]
) -> None:
    before = {"title": "Old", "tags": ["t"], "price": 2.5, "attributes": {"a": 1.0, "b": "two"}}
    client.put("/v1/items/i", json={**before, "vectors": {"v": [1.0]}, "published_at": 5})
    old = client.get("/v1/items/i").json()["item"]
    assert client.patch("/v1/items/i", json=patch).json() == {"item_id": "i", "offset": 2}
    assert client.get("/v1/items/i").json()["item"] == {**old, **changed}


def test_what_is_shown_can_be_set_again(client: TestClient[Litestar]) -> None:
    client.put("/v1/items/i", json={"title": "T", "categories": "a|b", "published_at": 5})
    shown = client.get("/v1/items/i").json()["item"]
    assert client.put("/v1/items/i", json=shown).status_code == 200
    assert client.get("/v1/items/i").json()["item"] == shown


def test_patches_at_once_are_all_kept() -> None:
    async def all_at_once() -> dict[str, float]:
        served = make()
        async with served.async_client() as client:
            await client.put("/v1/users/u", json={})
            patches = [{"attributes": {f"a{n}": float(n)}} for n in range(20)]
            await asyncio.gather(*(client.patch("/v1/users/u", json=patch) for patch in patches))
            found: dict[str, float] = (await client.get("/v1/users/u")).json()["user"]["attributes"]
            return found

    assert asyncio.run(all_at_once()) == {f"a{n}": float(n) for n in range(20)}
