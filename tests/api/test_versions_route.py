"""Versions over HTTP: listed, returned to by an order in the log, with who ordered it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from headwater.config import Config, Serve
from headwater.deploy import VERSIONS, Versions
from headwater.keys import KeyRing, Keys
from headwater.types import Metric, Resume, Rollback, Version
from tests.api.serving import is_problem, make, until, view


def kept(folder: Path) -> Versions:
    versions = Versions(folder / VERSIONS)
    for number in (1, 2, 3):
        (folder / f"s{number}").touch()
        metrics = {"m": Metric(0.5, 0.4, 0.6, 100)}
        versions.add(Version(number, 1, f"s{number}", "live", metrics, 10 * number, 5.0))
    (folder / "s1").unlink()
    return versions


def test_versions_are_listed_with_the_rollbacks(tmp_path: Path) -> None:
    kept(tmp_path)
    with make(snapshots=tmp_path).client() as client:
        found = client.get("/v1/versions").json()
        assert [(v["number"], v["state"], v["offset"]) for v in found["versions"]] == [
            (1, "dropped", 10),
            (2, "kept", 20),
            (3, "live", 30),
        ]
        assert found["versions"][0]["metrics"] == {
            "m": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
        }
        assert found["rollbacks"] == []
        client.post("/v1/versions/rollback", json={"to": 2, "why": "bot"})
        (rollback,) = client.get("/v1/versions").json()["rollbacks"]
        assert (rollback["to"], rollback["why"], rollback["offset"]) == (2, "bot", 1)


def test_a_rollback_is_an_order_in_the_log_by_the_owner_of_the_key(tmp_path: Path) -> None:
    kept(tmp_path)
    key, secret = Keys(tmp_path).create("admin", "ops")
    served = make(snapshots=tmp_path, keys=KeyRing(tmp_path))
    served.events.append([view("a", n) for n in range(42)], 2e9)
    with served.client() as client:
        headers = {"Authorization": f"Bearer {secret}"}
        answer = client.post("/v1/versions/rollback", json={"to": 2, "why": "bot"}, headers=headers)
        assert answer.status_code == 202
        (record,) = served.events.rollbacks(0)
        assert answer.json()["offset"] == record.offset == 43
        order = record.entry
        assert isinstance(order, Rollback)
        assert (order.to, order.first, order.through) == (2, 21, 42)
        assert (order.by, order.why) == (f"key {key.id} (ops)", "bot")
        newest = client.post("/v1/versions/rollback", headers=headers)
        assert (newest.json()["to"], newest.json()["first"]) == (3, 31)
        resumed = client.post("/v1/versions/resume", json={"why": "sale"}, headers=headers)
        assert resumed.status_code == 202
        entry = served.events.read(resumed.json()["offset"] - 1, 1)[0].entry
        assert entry == Resume(f"key {key.id} (ops)", "sale")
        (order,) = client.get("/v1/versions", headers=headers).json()["resumes"]
        assert (order["offset"], order["by"]) == (resumed.json()["offset"], entry.by)
        assert order["why"] == "sale"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"to": 1}, 422, "to"),
        ({"to": 9}, 422, "to"),
        ({"to": "two"}, 422, "to"),
        ({"why": "x" * 1_001}, 422, "why"),
        ({"two": 1}, 422, "two"),
        ([], 400, "body"),
    ],
)
def test_an_order_that_cannot_be_met_is_refused_and_not_stored(
    body: Any, status: int, field: str, tmp_path: Path
) -> None:
    kept(tmp_path)
    served = make(snapshots=tmp_path)
    with served.client() as client:
        is_problem(client.post("/v1/versions/rollback", json=body), status, field)
        if "to" not in body:
            is_problem(client.post("/v1/versions/resume", json=body), status, field)
    assert served.events.end() == 0


def test_without_a_kept_version_there_is_nothing_to_return_to(tmp_path: Path) -> None:
    with make(snapshots=tmp_path).client() as client:
        assert client.get("/v1/versions").json() == {
            "versions": [],
            "rollbacks": [],
            "promotions": [],
            "resumes": [],
        }
        detail = is_problem(client.post("/v1/versions/rollback"), 422, "to")
        assert "no version is kept yet" in detail


def test_an_order_is_taken_while_events_are_shed(tmp_path: Path) -> None:
    kept(tmp_path)
    gate = threading.Event()
    gate.set()
    config = Config(serve=Serve(max_backlog=1))
    served = make(config, snapshots=tmp_path, before_fold=lambda: gate.wait(10))
    sent = {"type": "view", "user_id": "u", "item_id": "a"}
    with served.client() as client:
        gate.clear()
        assert client.post("/v1/events", json=sent).status_code == 200
        is_problem(client.post("/v1/events", json={**sent, "item_id": "b"}), 503)
        assert client.post("/v1/versions/rollback", json={"to": 2}).status_code == 202
        assert client.post("/v1/versions/resume").status_code == 202
        gate.set()
        until(lambda: served.engine.standing.offset == 3)
        assert client.post("/v1/events", json=sent).status_code == 200
