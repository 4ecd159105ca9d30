"""Every route by every role, without a key, and with one that was revoked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from headwater.api import _auth
from headwater.config import Config, Serve
from headwater.keys import KeyRing, Keys
from tests.api.serving import is_problem, make

CONFIGURED = "the-key-of-the-configuration"
INGEST, SERVE, ADMIN = {"ingest", "admin"}, {"serve", "admin"}, {"admin"}

OPEN_TO = {
    ("POST", "/v1/events"): INGEST,
    ("GET", "/v1/users/{user_id}/recommendations"): SERVE,
    ("GET", "/v1/users/{user_id}/similar"): SERVE,
    ("GET", "/v1/items/{item_id}/similar"): SERVE,
    ("GET", "/v1/users/{user_id}/explanation"): ADMIN,
    ("POST", "/v1/recommendations"): SERVE,
    ("GET", "/v1/popular"): SERVE,
    ("GET", "/v1/items"): SERVE,
    ("GET", "/v1/items/{item_id}"): SERVE,
    ("PUT", "/v1/items/{item_id}"): INGEST,
    ("PATCH", "/v1/items/{item_id}"): INGEST,
    ("DELETE", "/v1/items/{item_id}"): INGEST,
    ("POST", "/v1/items"): INGEST,
    ("GET", "/v1/users"): ADMIN,
    ("GET", "/v1/users/{user_id}"): ADMIN,
    ("PUT", "/v1/users/{user_id}"): INGEST,
    ("PATCH", "/v1/users/{user_id}"): INGEST,
    ("DELETE", "/v1/users/{user_id}"): INGEST,
    ("POST", "/v1/users"): INGEST,
    ("GET", "/v1/dead-letters"): ADMIN,
    ("GET", "/v1/dead-letters/{number}"): ADMIN,
    ("POST", "/v1/dead-letters/{number}/resend"): ADMIN,
    ("GET", "/v1/versions"): ADMIN,
    ("POST", "/v1/versions/rollback"): ADMIN,
    ("POST", "/v1/versions/resume"): ADMIN,
    ("GET", "/v1/challengers"): ADMIN,
    ("POST", "/v1/challengers"): ADMIN,
    ("POST", "/v1/challengers/{number}/retire"): ADMIN,
    ("POST", "/v1/challengers/{number}/promote"): ADMIN,
    ("GET", "/v1/status"): ADMIN,
    ("GET", "/v1/metrics"): ADMIN,
    ("GET", "/v1/settings"): ADMIN,
    ("GET", "/metrics"): ADMIN,
    ("GET", "/"): INGEST | SERVE,
    ("GET", "/openapi.json"): INGEST | SERVE,
}

Secrets = dict[str, str]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Secrets, Path]:
    data = tmp_path_factory.mktemp("data")
    keys = Keys(data)
    made = {role: keys.create(role)[1] for role in ("ingest", "serve", "admin")}
    revoked, made["revoked"] = keys.create("admin")
    keys.revoke(revoked.id)
    made["configured"] = CONFIGURED
    return made, data


@pytest.fixture(scope="module")
def client(secrets: tuple[Secrets, Path]) -> Iterator[TestClient[Litestar]]:
    config = Config(serve=Serve(api_key=CONFIGURED))
    with make(config, keys=KeyRing(secrets[1], CONFIGURED)).client() as client:
        yield client


def ask(client: TestClient[Litestar], method: str, path: str, secret: str | None) -> Any:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    filled = path.format(user_id="u", item_id="a", number="1")
    return client.request(method, filled, headers=headers)


def routes(client: TestClient[Litestar]) -> set[tuple[str, str]]:
    app = cast(Litestar, client.app)
    found = {
        (method, route.path_format)
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }
    return {
        (method, path)
        for method, path in found
        if path not in _auth.PUBLIC and not path.startswith(_auth.PUBLIC_PAGES)
    }


def test_the_table_names_every_route_and_no_other(client: TestClient[Litestar]) -> None:
    assert routes(client) == set(OPEN_TO)


@pytest.mark.parametrize(("method", "path"), OPEN_TO)
@pytest.mark.parametrize("who", ["ingest", "serve", "admin", "configured", "revoked", None])
def test_a_route_is_open_to_its_roles_alone(
    method: str,
    path: str,
    who: str | None,
    client: TestClient[Litestar],
    secrets: tuple[Secrets, Path],
) -> None:
    response = ask(client, method, path, None if who is None else secrets[0][who])
    if who in (None, "revoked"):
        is_problem(response, 401, "Authorization")
    elif ("admin" if who == "configured" else who) in OPEN_TO[method, path]:
        assert response.status_code not in (401, 403, 405, 500)
    else:
        detail = is_problem(response, 403, "Authorization")
        assert f"role {who}" in detail


@pytest.mark.parametrize("path", sorted(_auth.PUBLIC))
def test_the_public_routes_are_open(path: str, client: TestClient[Litestar]) -> None:
    assert client.get(path).status_code == 200


def test_a_running_server_notices_keys_within_a_second(tmp_path: Path) -> None:
    with make(keys=KeyRing(tmp_path)).client() as client:

        def status(secret: str | None) -> int:
            return int(ask(client, "GET", "/v1/status", secret).status_code)

        def within_a_second(secret: str | None, code: int) -> bool:
            deadline = time.monotonic() + 1.0
            while status(secret) != code and time.monotonic() < deadline:
                time.sleep(0.01)
            return status(secret) == code

        assert status(None) == 200
        assert "security" not in client.get("/openapi.json").json()["paths"]["/v1/status"]["get"]
        key, secret = Keys(tmp_path).create("admin")
        assert within_a_second(None, 401)
        assert status(secret) == 200
        described = ask(client, "GET", "/openapi.json", secret).json()
        assert "security" in described["paths"]["/v1/status"]["get"]
        Keys(tmp_path).revoke(key.id)
        assert within_a_second(secret, 401)
        assert status(None) == 401
