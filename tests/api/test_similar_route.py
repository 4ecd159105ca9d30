"""What goes with an item, and who is like a user, over HTTP."""

from __future__ import annotations

import pytest

from headwater.config import Config, Recommend
from headwater.types import Event
from tests.api.serving import Served, is_problem, make, until, view

PATHS = ("/v1/items/a/similar", "/v1/users/u/similar")


def filled(config: Config | None = None) -> Served:
    served = make(config)
    other = Event("other", "view", "somebody/else", 1.0, "b")
    served.events.append([view("a"), view("b"), view("b", 1), view("c"), other], 1.0)
    return served


def test_what_goes_with_an_item() -> None:
    with filled().client() as client:
        found = client.get("/v1/items/a/similar?n=5").json()
        assert (found["item_id"], found["version"], found["sequence"]) == ("a", 1, 7)
        assert [item["item_id"] for item in found["items"]] == ["b", "c"]
        assert found["items"][0]["reasons"] == [{"expert": "popularity", "contribution": 1.0}]
        found = client.get("/v1/items/a/similar?exclude=b&exclude=x,y").json()
        assert [item["item_id"] for item in found["items"]] == ["c"]
        assert len(client.get("/v1/items/a/similar?n=1").json()["items"]) == 1


def test_who_is_like_a_user() -> None:
    with filled().client() as client:
        found = client.get("/v1/users/u/similar").json()
        assert (found["user_id"], found["version"], found["sequence"]) == ("u", 1, 7)
        assert found["users"] == [{"user_id": "somebody/else", "similarity": 0.5}]
        found = client.get("/v1/users/somebody%2Felse/similar").json()
        assert [user["user_id"] for user in found["users"]] == ["u"]


def test_an_unknown_item_is_a_problem() -> None:
    with filled().client() as client:
        assert "there is no item nope" in is_problem(client.get("/v1/items/nope/similar"), 404)


@pytest.mark.parametrize("path", PATHS)
def test_n_has_its_limits(path: str) -> None:
    with filled().client() as client:
        is_problem(client.get(f"{path}?n=0"), 400, "n")
        is_problem(client.get(f"{path}?n=101"), 400, "n")
        is_problem(client.get(f"{path}?min_offset=-1"), 400, "min_offset")


def test_ids_have_their_limits() -> None:
    with filled().client() as client:
        is_problem(client.get(f"/v1/items/{'x' * 257}/similar"), 400, "item_id")
        is_problem(client.get(f"/v1/users/{'x' * 257}/similar"), 400, "user_id")


@pytest.mark.parametrize("path", PATHS)
def test_an_offset_is_waited_for(path: str) -> None:
    with filled(Config(recommend=Recommend(wait_seconds=0.05))).client() as client:
        end = client.post(
            "/v1/events", json={"type": "view", "user_id": "w", "item_id": "a"}
        ).json()["results"][0]["offset"]
        assert client.get(f"{path}?min_offset={end}").status_code == 200
        response = client.get(f"{path}?min_offset={end + 1}")
        assert f"min_offset {end + 1} was not reached" in is_problem(response, 503)
        assert response.json()["type"] == "urn:headwater:offset-not-reached"


def test_the_model_thread_answers_and_nothing_counts_as_shown() -> None:
    served = filled()
    with served.client() as client:
        for path in PATHS:
            assert client.get(path).status_code == 200
        assert len(served.follower.threads) == 1
        client.get("/v1/popular")
        until(lambda: client.get("/v1/status").json()["clicks"])
        assert client.get("/v1/status").json()["clicks"][0]["served"] == 1


@pytest.mark.parametrize("path", PATHS)
def test_a_model_that_fails_is_said(path: str) -> None:
    served = filled()

    def failing(*_: object) -> None:
        raise ZeroDivisionError

    served.follower.similar_items = failing  # type: ignore[method-assign, assignment]
    served.follower.similar_users = failing  # type: ignore[method-assign, assignment]
    with served.client() as client:
        is_problem(client.get(path), 500)
        assert client.get("/v1/popular").status_code == 200
