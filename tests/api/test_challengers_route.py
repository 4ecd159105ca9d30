"""Challengers over HTTP: added, listed, retired, promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headwater.deploy import VERSIONS, Challengers, Manifest, Snapshots, Versions
from headwater.types import Lineage, Promotion, ServedList, Trial, Version
from tests.api.serving import is_problem, make

SETTINGS = {"sequence.layers": 2}


def test_a_challenger_is_added_listed_and_retired(tmp_path: Path) -> None:
    with make(snapshots=tmp_path).client() as client:
        assert client.get("/v1/challengers").json() == {"challengers": []}
        body = {"settings": SETTINGS, "policy": "not-worse", "delta": 0.02, "why": "to see"}
        added = client.post("/v1/challengers", json=body)
        assert added.status_code == 201
        challenger = added.json()["challenger"]
        assert (challenger["number"], challenger["settings"]) == (1, SETTINGS)
        assert (challenger["policy"], challenger["why"]) == ("not-worse", "to see")
        assert challenger["by"] == "somebody without a key"
        (one,) = client.get("/v1/challengers").json()["challengers"]
        assert (one["challenger"], one["trial"]["state"]) == (challenger, "waiting")
        retired = client.post("/v1/challengers/1/retire", json={"why": "no"})
        assert retired.status_code == 202
        assert retired.json()["trial"]["state"] == "retired"
        wish = Challengers(tmp_path / "challengers").retirement(1)
        assert wish is not None
        assert wish.why == "no"


def shown(version: int, name: str, user: str | None, at: float) -> ServedList:
    return ServedList(name, user, version, 0, at, ("i",), (1.0,))


def test_clicks_of_a_canary_stand_beside_those_of_everybody_else(tmp_path: Path) -> None:
    served = make(snapshots=tmp_path)
    with served.client() as client:
        sent = {"settings": SETTINGS, "canary": 0.2}
        added = client.post("/v1/challengers", json=sent).json()["challenger"]
        assert added["canary"] == 0.2
        (one,) = client.get("/v1/challengers").json()["challengers"]
        assert one["clicks"] == [], "it hasn't begun"
        lists = [
            shown(1, "before", "a", 99.0),
            shown(1, "live", "b", 101.0),
            shown(1, "live-2", "c", 101.0),
            shown(1, "nobody", None, 101.0),
            shown(-1, "own", "d", 102.0),
            shown(-1, "after", "d", 200.0),
        ]
        log = served.feedback._served
        log.served(lists)
        log.attribute([("live", "i", 3), ("after", "i", 4)], 4, [("d", "i", 100.0, 110.0)])
        served.feedback.flush()
        challengers = Challengers(tmp_path / "challengers")
        challengers.record(1, Trial("retired", canary_since=100.0, ended_at=200.0))
        (one,) = client.get("/v1/challengers").json()["challengers"]
        found = {
            row["version"]: (row["served"], row["by_id"], row["by_window"]) for row in one["clicks"]
        }
        assert found == {-1: (1, 0, 1), 1: (2, 1, 0)}
        assert all(row["rate"]["n"] == row["served"] for row in one["clicks"])


def test_a_promotion_is_an_order_in_the_log(tmp_path: Path) -> None:
    served = make(snapshots=tmp_path)
    with served.client() as client:
        client.post("/v1/challengers", json={"settings": SETTINGS})
        detail = is_problem(client.post("/v1/challengers/1/promote"), 422, "number")
        assert "has no snapshot yet" in detail
        folder = Challengers(tmp_path / "challengers").snapshots(1)
        Snapshots(folder, 1).write({}, Manifest(1, 1, 0, 5, {}, 0.0))
        answer = client.post("/v1/challengers/1/promote", json={"why": "trust me"})
        assert answer.status_code == 202
        (record,) = served.events.promotions(0)
        assert (record.offset, answer.json()) == (1, {"offset": 1})
        assert isinstance(record.entry, Promotion)
        assert (record.entry.settings, record.entry.why) == (SETTINGS, "trust me")
        (promotion,) = client.get("/v1/versions").json()["promotions"]
        assert (promotion["challenger"], promotion["settings"]) == (1, SETTINGS)
        again = client.post("/v1/challengers/1/promote")
        assert again.json() == {"offset": 1}, "it counts once"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"settings": {}}, 422, "settings"),
        ({"settings": {"serve.port": 1}}, 422, "settings"),
        ({"settings": {"sequence.layers": "many"}}, 422, "settings"),
        ({"settings": {"sequence.layers": 1}}, 422, "settings"),
        ({"settings": {"sequence": 3, "sequence.layers": 2}}, 422, "settings"),
        ({"settings": SETTINGS, "delta": 2}, 422, "delta"),
        ({"settings": SETTINGS, "canary": 0.7}, 422, "canary"),
        ({"settings": SETTINGS, "policy": "best"}, 422, "policy"),
        ({"settings": SETTINGS, "why": "x" * 1_001}, 422, "why"),
        ({"policy": "better"}, 422, "settings"),
        ([], 400, "body"),
    ],
)
def test_what_makes_no_challenger_is_refused(
    body: Any, status: int, field: str, tmp_path: Path
) -> None:
    with make(snapshots=tmp_path).client() as client:
        is_problem(client.post("/v1/challengers", json=body), status, field)
        assert client.get("/v1/challengers").json() == {"challengers": []}


@pytest.mark.parametrize("what", ["retire", "promote"])
def test_an_unknown_challenger_is_not_found(what: str, tmp_path: Path) -> None:
    with make(snapshots=tmp_path).client() as client:
        is_problem(client.post(f"/v1/challengers/{10**30}/{what}"), 404)
        client.post("/v1/challengers", json={"settings": SETTINGS})
        is_problem(client.post(f"/v1/challengers/1/{what}", json={"why": 3}), 422, "why")


def test_settings_are_those_of_the_live_model(tmp_path: Path) -> None:
    with make(snapshots=tmp_path).client() as client:
        assert client.get("/v1/settings").json()["sequence"]["layers"] == 1
        lineage = Lineage({"sequence.layers": 3}, 7, 1)
        versions = Versions(tmp_path / VERSIONS)
        versions.add(Version(1, 2, "s", "live", {}, 9, 0.0, 2, lineage))
        assert client.get("/v1/settings").json()["sequence"]["layers"] == 3
        client.post("/v1/challengers", json={"settings": {"mixture.hidden": 8}})
        (one,) = client.get("/v1/challengers").json()["challengers"]
        wanted = {"sequence.layers": 3, "mixture.hidden": 8}
        assert one["challenger"]["settings"] == wanted, "over what promotions brought"
