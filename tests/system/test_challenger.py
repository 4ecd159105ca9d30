"""A challenger of a running system, from its addition to its place as the live model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.system.running import System, ratings, until


def test_a_challenger_learns_beside_a_running_system_and_is_promoted(tmp_path: Path) -> None:
    extra = "[deploy]\nsnapshot_events = 500\n[challengers]\nshare = 1.0\n"
    system = System(tmp_path, extra)
    try:
        system.start().wait_until_ready()
        system.post(ratings(550))
        system.wait_until_learned()
        body = {"settings": {"sequence.layers": 0, "transitions.width": 16}, "why": "smaller"}
        added = httpx.post(f"{system.url()}/v1/challengers", json=body)
        assert added.status_code == 201, added.text
        until(lambda: trial(system)["trained_through"] == 550)
        system.post(ratings(200, 550))
        until(lambda: trial(system)["sums"]["n"] > 0 and trial(system)["trained_through"] == 750)
        # It keeps a state when it stops.
        assert system.interrupt() == 0
        system.start().wait_until_ready()
        assert trial(system)["state"] == "running"
        assert system.get("/v1/status")["version"] == 1
        ordered = httpx.post(f"{system.url()}/v1/challengers/1/promote", json={"why": "sure"})
        assert ordered.status_code == 202, ordered.text
        until(lambda: system.get("/v1/status")["version"] == 2)
        assert system.get("/v1/settings")["sequence"]["layers"] == 0
        answer = system.get("/v1/users/u1/recommendations", n=5)
        assert (answer["version"], len(answer["items"])) == (2, 5)
        until(lambda: trial(system)["state"] == "promoted")
        until(lambda: not (system.data / "challengers" / "0001" / "snapshots").exists())
        system.post(ratings(100, 750))
        system.wait_until_learned()
        assert system.interrupt() == 0
        system.start().wait_until_ready()
        assert system.get("/v1/status")["version"] == 2
        (promotion,) = system.get("/v1/versions")["promotions"]
        assert (promotion["challenger"], promotion["why"]) == (1, "sure")
    finally:
        system.end()


def trial(system: System) -> dict[str, Any]:
    (one,) = system.get("/v1/challengers")["challengers"]
    found: dict[str, Any] = one["trial"]
    return found
