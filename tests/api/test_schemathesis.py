"""The OpenAPI description against the application: thousands of requests made from it, good and
bad ones, by schemathesis. No answer is a 5xx, and every answer is as described.
"""

from __future__ import annotations

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
from headwater.types import DeadLetter, Item, User
from tests.api.serving import make, until, view

CASES = 150
"""Requests of each operation: more than 2,000 in all."""

done: Counter[str] = Counter()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where the application listens: on a port of its own, as schemathesis speaks HTTP."""
    served = make(
        Config(serve=Serve(max_body_bytes=200_000), recommend=Recommend(wait_seconds=0.0))
    )
    served.events.append([view("a"), Item("0", title="Zero"), User("0")], 1.0)
    letter = DeadLetter(1.0, "/v1/events", '{"type": "view"}', "user_id", "is missing")
    served.events.refuse([letter] * 50)
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
    operation = schema[path][method]
    cases: st.SearchStrategy[Any] = operation.as_strategy(generation_mode=mode)

    @settings(
        max_examples=CASES // 2,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def answered(case: Any) -> None:
        done[f"{method} {path}"] += 1
        response = case.call(session=session, base_url=url)
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
