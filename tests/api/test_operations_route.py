"""Probes, status, settings and metrics, and the key that guards them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families

from headwater.api import _auth
from headwater.config import Config, Serve
from headwater.types import DeadLetter, Metric, Metrics
from tests.api.serving import Served, is_problem, make, until, view

KEY = "a-key-that-is-long-enough"

REPORT: dict[str, Any] = {
    "trained_through": 3,
    "events_per_second": 812.5,
    "update_bytes": 4096,
    "rates": {"sequence": 1.0, "mixture": 1.5},
    "cleaned": {"duplicate": 12, "burst": 0},
    "changes": {"types": 2, "rate": 0},
    "metrics": msgspec.to_builtins(
        [
            Metrics("newest", "all", {"mixture.ndcg@10": Metric(0.25, 0.2, 0.3, 400)}),
            Metrics("newest", "satisfaction", {"positive_share": Metric(0.75, 0.7, 0.8, 90)}),
            Metrics("newest", "history:0", {"mixture.ndcg@10": Metric(0.1, 0.0, 0.2, 40)}),
        ]
    ),
}


@pytest.fixture
def served() -> Served:
    served = make(report=REPORT, trained_through=3)
    served.events.append([view("a", n) for n in range(5)], 1.0)
    served.events.refuse([DeadLetter(1.0, "", "{}", "type", "is missing")])
    return served


@pytest.fixture
def client(served: Served) -> Iterator[TestClient[Litestar]]:
    with served.client() as client:
        yield client


def samples(client: TestClient[Litestar]) -> dict[tuple[str, ...], float]:
    """Every sample of ``/metrics``: name, then its labels as ``name=value`` in order of name."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_probes(client: TestClient[Litestar]) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_a_dead_model_thread_is_not_alive_and_not_ready() -> None:
    served = make()
    deaths: list[Exception] = []

    def broken() -> Any:
        raise ValueError("the snapshot is torn")

    served.engine._follower = broken
    served.engine._died = deaths.append
    with TestClient(served.app) as client:
        until(lambda: not served.engine.alive)
        response = client.get("/livez")
        is_problem(response, 503)
        assert response.json()["type"] == "urn:headwater:dead"
        is_problem(client.get("/readyz"), 503)
        is_problem(client.get("/v1/popular"), 503)
        assert client.get("/v1/status").json()["ready"] is False
    assert [str(death) for death in deaths] == ["the snapshot is torn"]


def test_status(client: TestClient[Litestar]) -> None:
    answer = client.get("/v1/status").json()
    assert answer.pop("uptime_seconds") >= 0.0
    assert answer.pop("software")
    assert answer.pop("lag_seconds") == 0.0
    assert answer.pop("training_lag_seconds") > 0.0
    assert answer == {
        "role": "api",
        "ready": True,
        "version": 1,
        "epoch": 1,
        "sequence": 7,
        "start": 0,
        "end": 5,
        "offset": 5,
        "lag": 0,
        "trained_through": 3,
        "gradient_through": 0,
        "training_lag": 2,
        "dead_letters": 1,
        "clicks": [],
        "trainer": {key: value for key, value in REPORT.items() if key != "metrics"},
    }


def test_status_counts_clicks_by_version(served: Served, client: TestClient[Litestar]) -> None:
    shown = [client.get("/v1/popular").json() for _ in range(4)]
    click = {
        "type": "click",
        "user_id": "u",
        "item_id": "a",
        "recommendation_id": shown[0]["recommendation_id"],
    }
    assert client.post("/v1/events", json=click).is_success
    until(lambda: [row["clicked"] for row in client.get("/v1/status").json()["clicks"]] == [1])
    (row,) = client.get("/v1/status").json()["clicks"]
    assert (row["version"], row["served"]) == (1, 4)
    assert row["rate"]["value"] == 0.25
    assert 0.0 < row["rate"]["low"] < 0.25 < row["rate"]["high"] < 1.0
    found = samples(client)
    assert found["headwater_served_total", "version=1"] == 4.0
    assert found["headwater_clicked_total", "by=id", "version=1"] == 1.0
    assert found["headwater_clicked_total", "by=window", "version=1"] == 0.0
    place = ("metric=click_through", "segment=satisfaction", "window=newest")
    assert found["headwater_metric", *place] == 0.25
    *quality, satisfaction = client.get("/v1/metrics").json()["metrics"]
    assert quality == [one for one in REPORT["metrics"] if one["segment"] != "satisfaction"]
    assert satisfaction["segment"] == "satisfaction"
    assert satisfaction["values"]["positive_share"]["value"] == 0.75
    assert satisfaction["values"]["click_through"] == row["rate"]


def test_quality_is_the_trainers_report(client: TestClient[Litestar]) -> None:
    assert client.get("/v1/metrics").json() == {
        "trained_through": 3,
        "metrics": REPORT["metrics"],
    }


def test_without_a_report_there_is_no_quality() -> None:
    with make().client() as client:
        assert client.get("/v1/metrics").json() == {"trained_through": 0, "metrics": []}
        assert client.get("/v1/status").json()["trainer"] == {}


def test_settings_hide_the_key() -> None:
    with make(Config(seed=5, serve=Serve(api_key=KEY))).client() as client:
        response = client.get("/v1/settings", headers={"Authorization": f"Bearer {KEY}"})
        assert response.json()["seed"] == 5
        assert response.json()["events"]["purchase"]["weight"] == 5.0
        assert KEY not in response.text


def test_prometheus_sees_state_quality_and_requests(client: TestClient[Litestar]) -> None:
    client.get("/v1/users/u/recommendations")
    client.get("/v1/users/another/recommendations")
    client.get("/v1/users/u/recommendations?n=0")
    client.get("/nowhere/4711")
    client.request("BREW", "/livez")
    found = samples(client)
    assert found["headwater_events_log_offset",] == 5.0
    assert found["headwater_folded_offset",] == 5.0
    assert found["headwater_trained_through_offset",] == 3.0
    assert found["headwater_lag_events",] == 0.0
    assert found["headwater_training_lag_events",] == 2.0
    assert found["headwater_training_lag_seconds",] > 0.0
    assert found["headwater_lag_seconds",] == 0.0
    assert found["headwater_backlog",] == 0.0
    assert found["headwater_dead_letters",] == 1.0
    assert found["headwater_ready",] == 1.0
    assert found["headwater_trainer", "name=update_bytes"] == 4096.0
    assert found["headwater_trainer", "name=rates.mixture"] == 1.5
    assert ("headwater_trainer", "name=cleaned.duplicate") not in found, "it is a metric of its own"
    assert found["headwater_cleaned_events_total", "reason=duplicate"] == 12.0
    assert found["headwater_cleaned_events_total", "reason=burst"] == 0.0
    assert ("headwater_trainer", "name=changes.types") not in found
    assert found["headwater_stream_changes_total", "what=types"] == 2.0
    place = ("metric=mixture.ndcg@10", "segment=all", "window=newest")
    assert found["headwater_metric", *place] == 0.25
    assert found["headwater_metric_low", *place] == 0.2
    assert found["headwater_metric_high", *place] == 0.3
    route = "route=/v1/users/{user_id}/recommendations"
    assert found["headwater_http_requests_total", "method=GET", route, "status=200"] == 2.0
    assert found["headwater_http_requests_total", "method=GET", route, "status=400"] == 1.0
    assert found["headwater_http_request_seconds_count", "method=GET", route] == 3.0
    assert found["headwater_http_request_seconds_bucket", "le=+Inf", "method=GET", route] == 3.0
    assert found["headwater_http_requests_total", "method=none", "route=none", "status=404"] == 1.0
    assert found["headwater_http_requests_total", "method=none", "route=none", "status=405"] == 1.0
    assert not any("4711" in label or "BREW" in label for name in found for label in name)


def test_two_applications_count_apart() -> None:
    first, second = make(), make()
    with first.client() as one, second.client() as other:
        one.get("/v1/popular")
        assert samples(one)["headwater_recommendations_total", "kind=popular"] == 1.0
        assert samples(other)["headwater_recommendations_total", "kind=popular"] == 0.0


def test_the_root_links_to_routes_that_exist(client: TestClient[Litestar]) -> None:
    links = [value for value in client.get("/").json().values() if value.startswith("/")]
    assert len(links) == 4
    assert all(client.get(link).status_code == 200 for link in links)


def test_what_is_not_there_is_a_problem(client: TestClient[Litestar]) -> None:
    assert "/nope" in is_problem(client.get("/nope"), 404)
    is_problem(client.get("/v1/users//recommendations"), 404)
    is_problem(client.get("/docs/more"), 404)
    response = client.put("/v1/events", content=b"{}")
    is_problem(response, 405)
    assert "POST" in response.headers["allow"]


# --- the key -------------------------------------------------------------------------------------

ROUTES = [
    ("POST", "/v1/events"),
    ("GET", "/v1/users/u/recommendations"),
    ("POST", "/v1/recommendations"),
    ("GET", "/v1/popular"),
    ("GET", "/v1/users/u/explanation"),
    ("GET", "/v1/items/a/similar"),
    ("GET", "/v1/users/u/similar"),
    ("PUT", "/v1/items/a"),
    ("DELETE", "/v1/items/a"),
    ("POST", "/v1/items"),
    ("GET", "/v1/items/a"),
    ("PATCH", "/v1/items/a"),
    ("GET", "/v1/items"),
    ("GET", "/v1/users/u"),
    ("PUT", "/v1/users/u"),
    ("PATCH", "/v1/users/u"),
    ("DELETE", "/v1/users/u"),
    ("POST", "/v1/users"),
    ("GET", "/v1/users"),
    ("GET", "/v1/dead-letters"),
    ("GET", "/v1/dead-letters/1"),
    ("POST", "/v1/dead-letters/1/resend"),
    ("GET", "/v1/versions"),
    ("POST", "/v1/versions/rollback"),
    ("POST", "/v1/versions/resume"),
    ("GET", "/v1/challengers"),
    ("POST", "/v1/challengers"),
    ("POST", "/v1/challengers/1/promote"),
    ("POST", "/v1/challengers/1/retire"),
    ("GET", "/v1/status"),
    ("GET", "/v1/metrics"),
    ("GET", "/v1/settings"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
    ("GET", "/nope"),
    ("BREW", "/v1/events"),
    ("GET", "//livez"),
    ("GET", "/livez/../v1/status"),
    ("GET", "/%6Civez"),
]


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient[Litestar]]:
    with make(Config(serve=Serve(api_key=KEY))).client() as client:
        yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_needs_the_key(method: str, path: str, guarded: TestClient[Litestar]) -> None:
    for headers in (
        {},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer ü"},
    ):
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        response = guarded.request(method, path, headers=raw)
        is_problem(response, 401, "Authorization")
        assert response.headers["www-authenticate"].startswith("Bearer")
    for scheme in ("Bearer", "bearer"):
        response = guarded.request(method, path, headers={"Authorization": f"{scheme} {KEY}"})
        assert response.status_code != 401


@pytest.mark.parametrize("path", sorted(_auth.PUBLIC))
def test_a_public_route_needs_none(path: str, guarded: TestClient[Litestar]) -> None:
    assert guarded.get(path).status_code == 200


def test_every_route_of_the_application_is_in_the_list(client: TestClient[Litestar]) -> None:
    filled = {"/u": "/{user_id}", "/a": "/{item_id}", "/1": "/{number}"}
    covered = {re.sub(r"/[ua1](?=/|$)", lambda part: filled[part[0]], path) for _, path in ROUTES}
    described = set(client.get("/openapi.json").json()["paths"])
    assert described <= covered | _auth.PUBLIC


def test_without_a_configured_key_none_is_asked_for(client: TestClient[Litestar]) -> None:
    assert client.get("/v1/status").status_code == 200
    assert client.get("/v1/status", headers={"Authorization": "Bearer x"}).status_code == 200
