"""The routes that recommend: requests as they reach the model, answers, and every refusal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from headwater.config import Config, Recommend, Serve
from headwater.types import Request
from tests.api.serving import Served, is_problem, make, until, view


class Asked(list[Request]):
    """Every request that reached the follower."""

    def __call__(self, requests: Sequence[Request]) -> None:
        self.extend(requests)


ASKED = Asked()


@pytest.fixture
def asked() -> Asked:
    ASKED.clear()
    return ASKED


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Litestar]]:
    """A client of an application that no test changes; ``asked`` is what its follower heard."""
    with stocked(before_answer=ASKED).client() as client:
        yield client


def stocked(**hooks: Any) -> Served:
    """An application with three items: a with 3 events, "b,c" with 2, d with 1."""
    served = make(trained_through=3, **hooks)
    served.events.append([view("a", 1), view("a", 2), view("a", 3), view("b,c", 1)], 1.0)
    served.events.append([view("b,c", 2), view("d", 1)], 1.0)
    return served


def item_ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def test_an_answer_says_which_state_gave_it(client: TestClient[Litestar]) -> None:
    answer = client.get("/v1/users/u/recommendations?n=2").json()
    assert answer.pop("recommendation_id")
    assert answer == {
        "version": 1,
        "sequence": 7,
        "trained_through": 3,
        "items": [
            {
                "item_id": "a",
                "score": 3.0,
                "reasons": [{"expert": "popularity", "contribution": 1.0}],
            },
            {
                "item_id": "b,c",
                "score": 2.0,
                "reasons": [{"expert": "popularity", "contribution": 1.0}],
            },
        ],
    }


def test_two_lists_have_two_ids(client: TestClient[Litestar]) -> None:
    first = client.get("/v1/users/u/recommendations").json()
    second = client.get("/v1/users/u/recommendations").json()
    assert first["recommendation_id"] != second["recommendation_id"]


def test_ten_items_by_default(asked: Asked, client: TestClient[Litestar]) -> None:
    client.get("/v1/users/u/recommendations")
    client.post("/v1/recommendations", json={"items": []})
    assert [request.n for request in asked] == [10, 10]


def test_a_list_may_be_shorter_than_asked_for(client: TestClient[Litestar]) -> None:
    assert item_ids(client.get("/v1/users/u/recommendations?n=100")) == ["a", "b,c", "d"]


@pytest.mark.parametrize(
    "path",
    ["/v1/users/stranger/recommendations", "/v1/popular"],
)
def test_an_empty_catalogue_is_an_empty_list(path: str) -> None:
    with make().client() as client:
        assert item_ids(client.get(path)) == []


def test_excluded_ids_may_hold_commas(asked: Asked, client: TestClient[Litestar]) -> None:
    path = "/v1/users/u/recommendations"
    assert item_ids(client.get(path, params={"exclude": "b,c"})) == ["a", "d"]
    assert item_ids(client.get(path, params={"exclude": ["a", "b,c", "d"]})) == []
    assert asked[0].exclude == {"b,c"}
    assert asked[1].exclude == {"a", "b,c", "d"}


@pytest.mark.parametrize("user_id", ["a/b", "a%2Fb", "a b", "ü", "?", "#", "..", "a//b", "%"])
def test_any_id_fits_into_a_path(user_id: str, asked: Asked, client: TestClient[Litestar]) -> None:
    escaped = quote(user_id, safe="").replace(".", "%2E")
    assert item_ids(client.get(f"/v1/users/{escaped}/recommendations"))
    assert asked[0].user_id == user_id


def test_a_session_is_recommended_to(asked: Asked, client: TestClient[Litestar]) -> None:
    answer = client.post("/v1/recommendations", json={"items": ["a", 5], "n": 7, "exclude": ["d"]})
    assert item_ids(answer) == ["b,c"]
    assert asked[0] == Request(n=7, session_items=("a", "5"), exclude=frozenset({"d"}))


def test_a_user_may_be_named_in_the_body(asked: Asked, client: TestClient[Litestar]) -> None:
    assert client.post("/v1/recommendations", json={"user_id": 5}).status_code == 200
    assert client.post("/v1/recommendations", json={"anonymous_id": "x"}).status_code == 200
    assert [request.user_id for request in asked] == ["5", "anon:x"]


def test_popular(client: TestClient[Litestar]) -> None:
    assert item_ids(client.get("/v1/popular?n=2")) == ["a", "b,c"]
    assert item_ids(client.get("/v1/popular", params={"exclude": "b,c"})) == ["a", "d"]
    assert item_ids(client.get("/v1/popular", params={"exclude": ["a", "b,c", "d"]})) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("n=0", "n"),
        ("n=101", "n"),
        ("n=-1", "n"),
        ("n=99999999999999999999999", "n"),
        ("n=ten", "n"),
        ("n=", "n"),
        ("n=1.5", "n"),
        ("n=%FF", "n"),
        ("min_offset=-1", "min_offset"),
        ("min_offset=soon", "min_offset"),
        ("exclude=", "exclude"),
        (f"exclude={'x' * 300}", "exclude"),
    ],
)
def test_a_bad_parameter_is_named(
    query: str, field: str, asked: Asked, client: TestClient[Litestar]
) -> None:
    is_problem(client.get(f"/v1/users/u/recommendations?{query}"), 400, field)
    if field == "n":
        is_problem(client.get(f"/v1/popular?{query}"), 400, field)
    assert asked == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("n=ten", "n must be an integer"),
        ("min_offset=-1", "min_offset must be 0 or more"),
        ("min_offset=soon", "min_offset must be an integer"),
        ("exclude=", "exclude is empty"),
    ],
)
def test_what_a_parameter_must_be_is_said_in_our_words(
    query: str, said: str, client: TestClient[Litestar]
) -> None:
    response = client.get(f"/v1/users/u/recommendations?{query}")
    assert is_problem(response, 400, query.partition("=")[0]) == said


def test_n_is_bounded_by_the_configuration() -> None:
    with make(Config(recommend=Recommend(max_n=3))).client() as client:
        assert client.get("/v1/users/u/recommendations?n=3").status_code == 200
        detail = is_problem(client.get("/v1/users/u/recommendations?n=4"), 400, "n")
        assert "1 to 3" in detail


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b"\xff", "body"),
        (b"{}", "user_id"),
        (b'{"items": "a"}', "items"),
        (b'{"items": [], "user_id": 1}', "items"),
        (b'{"items": [], "n": 0}', "n"),
        (b'{"items": [""]}', "items"),
        (b'{"item": []}', "item"),
    ],
)
def test_a_bad_body_is_named(body: bytes, field: str, client: TestClient[Litestar]) -> None:
    is_problem(client.post("/v1/recommendations", content=body), 400, field)


def test_a_user_id_that_is_not_utf8_is_refused(client: TestClient[Litestar]) -> None:
    is_problem(client.get("/v1/users/%FF/recommendations"), 400, "user_id")
    is_problem(client.get(f"/v1/users/{'x' * 300}/recommendations"), 400, "user_id")


def test_a_large_body_is_413() -> None:
    with make(Config(serve=Serve(max_body_bytes=1000))).client() as client:
        is_problem(client.post("/v1/recommendations", content=b" " * 1001), 413)


def test_min_offset_waits_for_an_event_that_comes() -> None:
    served = stocked()
    with served.client() as client, ThreadPoolExecutor() as pool:
        for path, method in (
            ("/v1/users/u/recommendations", client.get),
            ("/v1/popular", client.get),
            ("/v1/recommendations", lambda url: client.post(url, json={"items": []})),
        ):
            offset = served.events.end() + 1
            waiting = pool.submit(method, f"{path}?min_offset={offset}")
            time.sleep(0.05)
            assert not waiting.done()
            served.events.append([view(f"late-{offset}", k) for k in range(9)], 1.0)
            assert item_ids(waiting.result())[0] == f"late-{offset}"


def test_min_offset_gives_up_with_503() -> None:
    served = make(Config(recommend=Recommend(wait_seconds=0.1)))
    with served.client() as client:
        started = time.monotonic()
        response = client.get("/v1/users/u/recommendations?min_offset=1")
        assert time.monotonic() - started >= 0.1
        detail = is_problem(response, 503)
        assert "min_offset 1" in detail
        assert response.json()["type"] == "urn:headwater:offset-not-reached"
        assert int(response.headers["retry-after"]) >= 1
        assert (
            'headwater_shed_total{reason="offset-not-reached"} 1.0' in client.get("/metrics").text
        )


def test_a_slow_model_sheds_load_and_recovers() -> None:
    gate = threading.Event()
    busy = threading.Event()

    def slow(_: Sequence[Request]) -> None:
        busy.set()
        gate.wait(10)

    served = make(Config(serve=Serve(max_queue=2)), before_answer=slow)
    path = "/v1/users/u/recommendations"
    with served.client() as client, ThreadPoolExecutor() as pool:
        waiting = [pool.submit(client.get, path) for _ in range(2)]
        busy.wait(10)
        until(lambda: served.engine._asks.n_open == 2)
        response = client.get(path)
        is_problem(response, 503)
        assert response.json()["type"] == "urn:headwater:queue-full"
        assert int(response.headers["retry-after"]) >= 1
        # Events are still taken in.
        assert client.post(
            "/v1/events", json={"type": "view", "user_id": 1, "item_id": 1}
        ).is_success
        gate.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert client.get(path).status_code == 200
        assert 'headwater_shed_total{reason="queue-full"} 1.0' in client.get("/metrics").text


def test_a_model_that_fails_is_500_and_the_next_request_is_answered() -> None:
    def poisoned(requests: Sequence[Request]) -> None:
        if requests[0].user_id == "poison":
            raise ZeroDivisionError("a secret")

    with make(before_answer=poisoned).client() as client:
        response = client.get("/v1/users/poison/recommendations")
        assert "secret" not in is_problem(response, 500)
        assert client.get("/v1/users/u/recommendations").status_code == 200
        assert client.get("/livez").status_code == 200


def test_lists_are_counted_by_kind() -> None:
    with stocked().client() as client:
        client.get("/v1/users/u/recommendations")
        client.post("/v1/recommendations", json={"user_id": "u"})
        client.post("/v1/recommendations", json={"items": ["a"]})
        client.get("/v1/popular")
        client.get("/v1/popular?n=0")
        text = client.get("/metrics").text
    for kind, count in (("user", 2), ("session", 1), ("popular", 1)):
        assert f'headwater_recommendations_total{{kind="{kind}"}} {count}.0' in text


def test_before_the_log_is_folded_requests_are_told_to_come_back() -> None:
    gate = threading.Event()
    served = make(before_fold=lambda: gate.wait(10))
    served.events.append([view("a")], 1.0)
    with TestClient(served.app) as client:
        for path in ("/readyz", "/v1/users/u/recommendations", "/v1/popular"):
            response = client.get(path)
            is_problem(response, 503)
            assert response.json()["type"] == "urn:headwater:not-ready"
            assert "retry-after" in response.headers
        assert client.get("/livez").status_code == 200
        assert client.post(
            "/v1/events", json={"type": "view", "user_id": 1, "item_id": 1}
        ).is_success
        gate.set()
        until(lambda: client.get("/readyz").status_code == 200)
        assert item_ids(client.get("/v1/popular")) == ["1", "a"]
