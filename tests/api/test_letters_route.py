"""Dead letters: listed, shown, and sent again as they came or corrected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from headwater.types import DeadLetter, Event, Item, User
from tests.api.serving import Served, is_problem, make

GOOD = '{"type": "view", "user_id": "u", "item_id": "a"}'


@pytest.fixture
def served() -> Served:
    return make()


@pytest.fixture
def client(served: Served) -> Iterator[TestClient[Litestar]]:
    with served.client() as client:
        yield client


def test_letters_are_listed_in_pages_newest_first(
    served: Served, client: TestClient[Litestar]
) -> None:
    served.events.refuse([DeadLetter(1.0, "/v1/events", f"{n}", "f", "r") for n in range(5)])
    seen: list[int] = []
    params: dict[str, str] = {"n": "2"}
    while "cursor" not in params or params["cursor"]:
        page = client.get("/v1/dead-letters", params=params).json()
        seen += [letter["number"] for letter in page["letters"]]
        params["cursor"] = page["next_cursor"] or ""
    assert seen == [5, 4, 3, 2, 1]
    assert client.get("/v1/dead-letters/2").json() == {
        "received_at": 1.0,
        "source": "/v1/events",
        "body": "1",
        "field": "f",
        "reason": "r",
        "number": 2,
    }
    for number in (0, 6, 10**30):
        assert client.get(f"/v1/dead-letters/{number}").status_code in (400, 404)
        assert client.post(f"/v1/dead-letters/{number}/resend").status_code in (400, 404)


@pytest.mark.parametrize(
    ("route", "bad", "good", "entry"),
    [
        ("/v1/events", '{"type": "view", "user_id": "u"}', GOOD, Event),
        ("/v1/items", '[{"title": "T"}]', '{"item_id": "a", "title": "T"}', Item),
        ("/v1/users", '[{"attributes": {}}]', '{"user_id": "u"}', User),
    ],
)
def test_a_letter_is_corrected(
    route: str, bad: str, good: str, entry: type, served: Served, client: TestClient[Litestar]
) -> None:
    client.post(route, content=bad)
    assert client.get("/v1/dead-letters/1").json()["source"] == route
    is_problem(client.post("/v1/dead-letters/1/resend"), 422, bad_field(route))
    is_problem(client.post("/v1/dead-letters/1/resend", content=b"["), 400, "body")
    is_problem(client.post("/v1/dead-letters/1/resend", content=f"[{good}]"), 400, "body")
    assert client.get("/v1/dead-letters/1").status_code == 200
    answer = client.post("/v1/dead-letters/1/resend", content=good)
    assert answer.json() == {"number": 1, "offset": 1, "duplicate": False}
    assert [type(record.entry) for record in served.events.read(0, 10)] == [entry]
    is_problem(client.get("/v1/dead-letters/1"), 404)
    is_problem(client.post("/v1/dead-letters/1/resend", content=good), 404)
    assert client.get("/v1/status").json()["dead_letters"] == 1


def bad_field(route: str) -> str:
    return {"/v1/events": "item_id", "/v1/items": "item_id", "/v1/users": "user_id"}[route]


def test_a_letter_that_is_good_by_now_is_sent_as_it_came(
    served: Served, client: TestClient[Litestar]
) -> None:
    served.events.refuse([DeadLetter(1_700_000_000.0, "/v1/events", GOOD, "type", "was unknown")])
    assert client.post("/v1/dead-letters/1/resend").json()["offset"] == 1
    (record,) = served.events.read(0, 1)
    assert isinstance(record.entry, Event)
    assert record.entry.timestamp == 1_700_000_000.0
    assert record.received_at > 1_700_000_000.0


def test_a_letter_that_was_cut_has_to_be_sent_whole(
    served: Served, client: TestClient[Litestar]
) -> None:
    text = "x" * 90_000
    client.post("/v1/items", json=[{"title": "A", "text": text}])
    detail = is_problem(client.post("/v1/dead-letters/1/resend"), 400, "body")
    assert "no more than 65,536 characters were kept" in detail
    assert client.get("/v1/dead-letters/1").status_code == 200
    whole = {"item_id": "a", "title": "A", "text": text}
    assert client.post("/v1/dead-letters/1/resend", json=whole).json()["offset"] == 1


def test_a_letter_that_may_have_been_counted_stays(
    served: Served, client: TestClient[Litestar]
) -> None:
    at = 1_700_000_000.0
    served.events.append([Event(f"e{n}", "view", "u", at + n, "a") for n in range(2)], at + 9)
    served.events.refuse([DeadLetter(at + 9, "/v1/events", GOOD, "f", "r")])
    served.events.drop(1)
    is_problem(client.post("/v1/dead-letters/1/resend"), 422, "timestamp")
    assert client.get("/v1/dead-letters/1").status_code == 200
    assert served.events.end() == 2
