"""The OpenAPI description against the application: thousands of requests made from it, good and
bad ones, by schemathesis. No answer is a 5xx, and every answer is as described.

A description can't say which items, letters or challengers there are. In every other request what
is there is named, so that it isn't only the way to a 404 that is tried.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from headwater.config import Config, Recommend, Serve
from headwater.deploy import VERSIONS, Challengers, Manifest, Snapshots, Versions
from headwater.types import DeadLetter, Item, User, Version
from tests.api.serving import make, until, view

CASES = 150
"""Requests of each operation: more than 2,000 in all."""

KNOWN = "known to be there"
EVENT: dict[str, Any] = {
    "type": "view",
    "user_id": KNOWN,
    "item_id": KNOWN,
    **dict.fromkeys(("anonymous_id", "timestamp", "sent_at")),
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/events": EVENT,
    "/v1/recommendations": {"user_id": KNOWN, "anonymous_id": None, "items": None, "n": 3},
    "/v1/challengers": {"settings": {"sequence.layers": 2}, "delta": 0.0, "canary": 0.0},
    "/v1/versions/rollback": {"to": 1},
}
"""What stands in a body that no description tells; null counts as not given."""

done: Counter[str] = Counter()
taken: Counter[str] = Counter()
refused: Counter[str] = Counter()
LETTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "/v1/events": ('{"type": "view"}', EVENT),
    "/v1/items": ('{"title": "A"}', {"item_id": KNOWN}),
    "/v1/users": ("{}", {"user_id": KNOWN}),
}
"""By route what was refused there, and what it lacks."""
LETTERS_OF_EACH = CASES
next_letter = {route: itertools.count(at, len(LETTERS)) for at, route in enumerate(LETTERS, 1)}


def name_what_is_there(case: Any, method: str, path: str) -> None:
    """Changes a case so that its path and body name what there is."""
    there = {"item_id": KNOWN, "user_id": KNOWN, "number": 1}
    body, own = case.body, BODIES.get(path, {})
    if path.endswith("/resend"):
        # A letter that was sent again is gone.
        route = letter_for(body)
        there["number"], own = next(next_letter[route]), LETTERS[route][1]
    if method != "DELETE":
        case.path_parameters.update({name: there[name] for name in case.path_parameters})
    case.query.pop("min_offset", None)
    if own and isinstance(body, dict):
        case.body = {**body, **own}
    elif own and isinstance(body, list):
        case.body = [{**one, **own} if isinstance(one, dict) else one for one in body]


def letter_for(body: Any) -> str:
    """The route of a letter that a body may correct."""
    names = set(body) if isinstance(body, dict) else set()
    if "type" in names:
        return "/v1/events"
    return "/v1/users" if names <= {"user_id", "attributes"} else "/v1/items"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the application listens: on a port of its own, as schemathesis speaks HTTP."""
    folder = tmp_path_factory.mktemp("snapshots")
    (folder / "s1").touch()
    Versions(folder / VERSIONS).add(Version(1, 1, "s1", "live", {}, 1, 1.0))
    challengers = Challengers(folder / "challengers")
    challengers.add({"sequence.layers": 2}, policy="better", delta=0.0, by="", why="")
    Snapshots(challengers.snapshots(1), 1).write({}, Manifest(1, 1, 0, 5, {}, 0.0))
    served = make(
        Config(serve=Serve(max_body_bytes=200_000), recommend=Recommend(wait_seconds=0.0)),
        snapshots=folder,
    )
    served.events.append([view(KNOWN), Item(KNOWN, title="Zero"), User(KNOWN)], 1.0)
    letters = [
        DeadLetter(1.0, route, body, "user_id", "is missing")
        for route, (body, _) in LETTERS.items()
    ]
    served.events.refuse(letters * LETTERS_OF_EACH)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(served.app, interface="asgi3", log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        until(lambda: served.engine.ready)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def schema(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def operations() -> list[tuple[str, str]]:
    with make().client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


OPERATIONS = operations()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_described(
    method: str, path: str, mode: GenerationMode, schema: Any, url: str, session: requests.Session
) -> None:
    name, operation = f"{method} {path}", schema[path][method]
    cases: st.SearchStrategy[Any] = operation.as_strategy(generation_mode=mode)

    @settings(
        max_examples=CASES // 2,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, there=st.booleans())
    def answered(case: Any, there: bool) -> None:
        if there:
            name_what_is_there(case, method, path)
        done[name] += 1
        response = case.call(session=session, base_url=url)
        answer = response.json() if response.content.startswith(b"{") else {}
        if response.status_code < 300 and answer.get("accepted", 1):
            taken[name] += mode is GenerationMode.POSITIVE
        if response.status_code in (400, 422) or answer.get("rejected"):
            refused[name] += mode is GenerationMode.NEGATIVE
        # The one 5xx that a request can ask for: to wait for an offset that isn't there yet.
        waited = response.status_code == 503 and b"offset-not-reached" in response.content
        assert response.status_code < 500 or waited, response.text
        operation.validate_response(response)

    try:
        answered()
    except Unsatisfiable:
        # Where any text will do in the only place there is, nothing can be wrong.
        assert mode is GenerationMode.NEGATIVE


def test_there_were_enough() -> None:
    assert sum(done.values()) >= 2_000, done
    assert set(done) == {f"{method} {path}" for method, path in OPERATIONS}


def test_what_is_good_is_taken_and_what_is_bad_is_refused() -> None:
    for method, path in OPERATIONS:
        name = f"{method} {path}"
        enough = done[name] // 20
        assert taken[name] > enough, f"hardly a request as described was taken: {name}"
        if method in ("POST", "PUT", "PATCH"):
            assert refused[name] > CASES // 20, f"hardly a bad body was looked at: {name}"
