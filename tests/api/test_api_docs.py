"""``docs/api.md`` is so: every route and reason is in it, and its examples answer what it says."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from litestar import Litestar
from litestar.testing import TestClient

from headwater import api
from headwater.evaluate import HISTORY_BUCKETS, ITEM_AGE_BUCKETS, RANK_METRICS, _satisfaction
from tests.api.serving import check, make

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"```sh\ncurl (.*?)\n```\n\n```json\n(.*?)\n```", PAGE, re.DOTALL)

# What depends on the model, on the trainer or on the day.
VOLATILE = {
    "clicks",
    "epoch",
    "features",
    "history",
    "lag_seconds",
    "metrics",
    "reasons",
    "received_at",
    "recommendation_id",
    "score",
    "sequence",
    "software",
    "title",
    "trained_through",
    "trainer",
    "gradient_through",
    "training_lag",
    "training_lag_seconds",
    "uptime_seconds",
    "version",
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Litestar]]:
    with make().client() as client:
        yield client


@pytest.fixture(scope="module")
def document(client: TestClient[Litestar]) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def stable(answer: Any) -> Any:
    if isinstance(answer, dict):
        problem = "detail" in answer
        return {
            key: stable(value)
            for key, value in answer.items()
            if key not in VOLATILE or (problem and key == "title")
        }
    return [stable(value) for value in answer] if isinstance(answer, list) else answer


def run(client: TestClient[Litestar], arguments: str) -> Response:
    """What curl would be answered: it posts where there is a body and no other method is named."""
    method, url, body = None, "", None
    parts = iter(shlex.split(arguments))
    for part in parts:
        if part == "-X":
            method = next(parts)
        elif part == "-d":
            body = next(parts)
        else:
            url = part.removeprefix("localhost:8080")
    return client.request(method or ("GET" if body is None else "POST"), url, content=body)


def folded(client: TestClient[Litestar]) -> None:
    """Returns once what was acknowledged is in the answers, for which nobody waits otherwise."""
    until = time.monotonic() + 60.0
    while client.get("/v1/status").json()["lag"] and time.monotonic() < until:
        time.sleep(0.001)


def schema_of(response: Response, document: dict[str, Any]) -> dict[str, Any]:
    path = response.request.url.path
    for template, operations in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            answers = operations[response.request.method.lower()]["responses"]
            (content,) = answers[str(response.status_code)]["content"].values()
            found: dict[str, Any] = content["schema"]
            return found
    raise AssertionError(f"{path} isn't described")


def test_examples_are_answered_as_the_page_says(
    client: TestClient[Litestar], document: dict[str, Any]
) -> None:
    assert len(EXAMPLES) == 24
    for arguments, documented in EXAMPLES:
        folded(client)
        response = run(client, arguments)
        said = json.loads(documented)
        assert stable(response.json()) == stable(said), arguments
        check(said, schema_of(response, document), document)


def test_every_route_has_its_line(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in PAGE


def test_every_field_of_an_event_and_an_item_is_there(document: dict[str, Any]) -> None:
    for name in ("WireEvent", "WireItem", "WireUser", "WireRequest"):
        for field in document["components"]["schemas"][name]["properties"]:
            assert f"`{field}`" in PAGE or f'"{field}"' in PAGE, field


def test_every_reason_to_be_turned_away_is_there() -> None:
    code = "".join(path.read_text() for path in Path(api.__file__).parent.glob("*.py"))
    kinds = set(re.findall(r'Unavailable\(\s*"([\w-]+)"', code))
    assert len(kinds) == 7
    documented = set(re.findall(r"`urn:headwater:([\w-]+)`", PAGE))
    assert documented == kinds


def test_every_figure_is_there() -> None:
    lists = {"coverage@10", "novelty@10", "gini@10"}
    proxies = {*_satisfaction.SHARES, *_satisfaction.MEANS, "return_share"}
    for name in {*RANK_METRICS} | lists | proxies:
        assert f"`{name}`" in PAGE, name
    for segment in HISTORY_BUCKETS + ITEM_AGE_BUCKETS:
        assert segment in PAGE, segment


def test_every_metric_is_there(client: TestClient[Litestar]) -> None:
    families = set(re.findall(r"^# TYPE (\w+)", client.get("/metrics").text, re.MULTILINE))
    named = set(re.findall(r"`(headwater_\w+)", PAGE))
    missing = {family for family in families if family not in named}
    assert missing == {"headwater_metric_low", "headwater_metric_high"}
