"""A key is printed once and kept nowhere: in no log of a running system, and in no file of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.keys import Keys
from tests.system.running import System, until

CONFIGURED = "configured-key-of-an-admin"
WRONG = "wrong-key-that-somebody-tried"


def holding(folder: Path, secret: str) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if secret.encode() in path.read_bytes()]


@pytest.fixture
def system(tmp_path: Path):
    system = System(tmp_path, f'[serve]\napi_key = "{CONFIGURED}"\n')
    try:
        yield system
    finally:
        system.end()


def test_no_log_and_no_file_holds_a_key(system: System) -> None:
    made = {role: Keys(system.data).create(role)[1] for role in ("ingest", "serve", "admin")}
    system.start().wait_until_ready()
    event = {"type": "view", "user_id": "u", "item_id": "i"}
    asked = [
        ("POST", "/v1/events", event),
        ("POST", "/v1/events", {"type": "view"}),
        ("POST", "/v1/items", [{"item": 1}]),
        ("GET", "/v1/users/u/recommendations", None),
        ("GET", "/v1/settings", None),
        ("GET", "/v1/nowhere", None),
        ("POST", "/v1/versions/rollback", {"to": 7}),
    ]
    answered = []
    for secret in (*made.values(), CONFIGURED, WRONG):
        headers = {"Authorization": f"Bearer {secret}"}
        for method, path, body in asked:
            answer = system.client.request(
                method, f"{system.url()}{path}", headers=headers, json=body
            )
            answered.append(answer.status_code)
            assert secret not in answer.text
    assert {200, 401, 403, 404, 422} <= set(answered)
    system.interrupt()
    until(lambda: system.log("role stopped"))
    for secret in (*made.values(), WRONG):
        assert holding(system.folder, secret) == []
        # Nor is it there without what says whose it is.
        assert holding(system.folder, secret.split("_", 2)[-1]) == []
    assert holding(system.folder, CONFIGURED) == [system.settings], "where the operator wrote it"
