"""What is answered without the framework says what the framework would, in every part."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from headwater.api import _app, _direct
from headwater.config import Config, Serve
from headwater.errors import LogError
from tests.api.serving import Served, make, view

LIST = "/v1/users/u/recommendations"
EVENT = b'{"event_id": "e", "type": "view", "user_id": "u", "item_id": "a"}'

Asked = tuple[str, str, dict[str, Any]]

PLAIN: list[Asked] = [
    ("GET", LIST, {}),
    ("GET", f"{LIST}?n=2", {}),
    ("GET", f"{LIST}?min_offset=1&n=1", {}),
    ("GET", f"{LIST}?n=0", {}),
    ("GET", f"{LIST}?n=100000", {}),
    ("GET", f"{LIST}?min_offset=99", {}),
    ("GET", "/v1/users/%C3%BC%2F%25/recommendations", {}),
    ("GET", "/v1/users/%FF/recommendations", {}),
    ("GET", f"/v1/users/{'u' * 2_000}/recommendations", {}),
    ("POST", "/v1/events", {"content": EVENT}),
    ("POST", "/v1/events", {"content": b"[%b, {}]" % EVENT}),
    ("POST", "/v1/events", {"content": b"{}"}),
    ("POST", "/v1/events", {"content": b"nothing"}),
    ("POST", "/v1/events", {"content": b"[" + b"{}," * 30 + b"{}]"}),
]
"""Answered directly."""

OTHER: list[Asked] = [
    ("GET", f"{LIST}?n=2&n=3", {}),
    ("GET", f"{LIST}?n=-1", {}),
    ("GET", f"{LIST}?n=002", {}),
    ("GET", f"{LIST}?n=", {}),
    ("GET", f"{LIST}?n={'9' * 40}", {}),
    ("GET", f"{LIST}?exclude=a", {}),
    ("GET", f"{LIST}?what=1", {}),
    ("GET", f"{LIST}/", {}),
    ("GET", "/v1/users//recommendations", {}),
    ("GET", "/v1/users/a/b/recommendations", {}),
    ("HEAD", LIST, {}),
    ("POST", LIST, {"content": b"{}"}),
    ("GET", "/v1/events", {}),
    ("POST", "/v1/events?a=b", {"content": EVENT}),
    ("POST", "/v1/events", {"content": EVENT, "headers": {"Idempotency-Key": "k"}}),
    ("POST", "/v1/events", {"content": b" " * 5_000}),
    ("POST", "/v1/events", {"content": iter([EVENT])}),
]
"""Left to the framework."""


def stocked(**options: Any) -> Served:
    config = Config(serve=Serve(max_body_bytes=4_000, max_events_per_request=10))
    served = make(config.model_copy(update={"recommend": _impatient(config)}), **options)
    served.events.append([view("a", 1), view("a", 2), view("b", 1)], 1.0)
    return served


def _impatient(config: Config) -> Any:
    return config.recommend.model_copy(update={"wait_seconds": 0.05})


@pytest.fixture(params=[False, True], ids=["direct", "around"])
def around(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether everything goes the framework's way."""
    if request.param:
        monkeypatch.setattr(_app, "direct", lambda app, _: app)
    return bool(request.param)


def said(client: TestClient[Litestar], asked: Asked) -> tuple[Any, ...]:
    method, path, options = asked
    answer = client.request(method, path, **options)
    body = answer.text
    if answer.status_code == 200 and method == "GET":
        body = str(answer.json()["items"])  # every list has an id of its own
    return answer.status_code, dict(answer.headers) | {"date": ""}, body


def counted(client: TestClient[Litestar]) -> list[str]:
    """What the requests were counted as."""
    lines = client.get("/metrics").text.splitlines()
    names = ("headwater_http_requests_total", "headwater_shed_total", "headwater_events_total")
    return [line for line in lines if line.startswith((*names, "headwater_recommendations"))]


def test_both_ways_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_said() -> list[Any]:
        found: list[Any] = []
        with stocked().client() as client:
            for asked in PLAIN + OTHER:
                if (content := asked[2].get("content")) is not None and not isinstance(
                    content, bytes
                ):
                    asked = (*asked[:2], {"content": iter([EVENT])})
                found.append((asked[:2], said(client, asked)))
            found.append(counted(client))
        return found

    directly = all_said()
    monkeypatch.setattr(_app, "direct", lambda app, _: app)
    assert directly == all_said()


def test_what_is_plain_is_answered_directly_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached: list[str] = []
    wrapped = _direct.direct

    def watched(app: Any, service: Any) -> Any:
        async def noted(scope: Any, receive: Any, send: Any) -> None:
            reached.append(scope["method"])
            await app(scope, receive, send)

        return wrapped(noted, service)

    monkeypatch.setattr(_app, "direct", watched)
    with stocked().client() as client:
        for method, path, options in PLAIN:
            client.request(method, path, **options)
        assert reached == []
        for method, path, options in OTHER:
            client.request(method, path, **options)
        assert reached == [method for method, *_ in OTHER]


def test_errors_behind_a_plain_request_are_told(
    around: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> None:
        raise ValueError("broken")

    served = stocked(before_answer=fails)

    def refuse(*_: Any) -> Any:
        raise LogError("the disk is full")

    with served.client() as client:
        answer = client.get(LIST)
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        monkeypatch.setattr(served.events, "submit", refuse)
        answer = client.post("/v1/events", content=EVENT)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["type"] == "urn:headwater:log-failed"


def test_a_client_that_goes_away_in_its_body_leaves_nothing_behind() -> None:
    served = stocked()
    messages: list[Any] = [
        {"type": "http.request", "body": EVENT[:10], "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    with served.client() as client:
        before = served.events.end()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/events",
            "raw_path": b"/v1/events",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-length", b"%d" % len(EVENT))],
            "state": {},
        }

        async def ask() -> None:
            await served.app(scope, receive, send)  # type: ignore[arg-type]

        with client.portal() as portal:
            portal.call(ask)
        assert served.events.end() == before
