"""A rollback of a running system, while clients ask: no answer fails, and none is of two models."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx

from tests.system.running import System, ratings, until

CLEAN, POISON = 1_100, 600
DONE_WITHIN = 20.0
"""Seconds; one is the goal, and what a busy test machine gives is another matter."""


def poison() -> list[dict[str, Any]]:
    return [
        {"type": "rating", "user_id": f"fake{n}", "item_id": "pushed", "value": 10}
        for n in range(POISON)
    ]


def test_no_answer_fails_or_mixes_while_the_model_is_rolled_back(tmp_path: Path) -> None:
    system = System(tmp_path, "[deploy]\nsnapshot_events = 500\n")
    try:
        system.start().wait_until_ready()
        for start in range(0, CLEAN, 550):
            system.post(ratings(550, start))
        system.wait_until_learned()
        # The snapshot is written behind the update that the API has seen by now.
        good = until(lambda: [v for v in versions(system) if v["state"] in ("kept", "live")])[-1]
        assert 0 < good["offset"] <= CLEAN
        system.post(poison())
        system.wait_until_learned()
        assert "pushed" in popular(system.get("/v1/popular", n=100))

        answers: list[tuple[int, bool]] = []
        failed: list[str] = []
        stop = threading.Event()
        url = system.url()

        def ask(client: int) -> None:
            with httpx.Client(timeout=30.0) as http:
                while not stop.is_set():
                    path = ("/v1/popular", f"/v1/users/fake{client}/recommendations")[client % 2]
                    answer = http.get(f"{url}{path}", params={"n": 100})
                    if answer.status_code != 200:
                        failed.append(answer.text)
                        continue
                    found = answer.json()
                    if client % 2 == 0:
                        answers.append((found["sequence"], "pushed" in popular(found)))

        clients = [threading.Thread(target=ask, args=(client,)) for client in range(4)]
        for client in clients:
            client.start()
        try:
            time.sleep(0.5)
            started = time.monotonic()
            ordered = httpx.post(
                f"{url}/v1/versions/rollback", json={"to": good["number"], "why": "poison"}
            )
            assert ordered.status_code == 202, ordered.text
            until(lambda: system.get("/v1/status")["epoch"] == 2, DONE_WITHIN)
            seconds = time.monotonic() - started
            time.sleep(0.5)
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert failed == []
        new = {sequence for sequence, pushed in answers if not pushed}
        old = {sequence for sequence, pushed in answers if pushed}
        assert old
        assert new
        assert max(old) < min(new), "from one answer to the next, once and for all"
        assert seconds < DONE_WITHIN

        system.post(ratings(200, CLEAN))
        system.wait_until_learned()
        assert "pushed" not in popular(system.get("/v1/popular", n=100))
        [rollback] = system.get("/v1/versions")["rollbacks"]
        assert (rollback["first"], rollback["through"]) == (good["offset"] + 1, CLEAN + POISON)
        assert rollback["why"] == "poison"
        # And after a restart, from the log.
        assert system.interrupt() == 0
        system.start().wait_until_ready()
        assert "pushed" not in popular(system.get("/v1/popular", n=100))
    finally:
        system.end()


def versions(system: System) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = system.get("/v1/versions")["versions"]
    return found


def popular(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]
