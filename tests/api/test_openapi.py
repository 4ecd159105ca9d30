"""The description is whole, and true: routes, bodies, limits, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from headwater.api import _auth
from headwater.config import Config, Recommend, Serve
from tests.api.serving import check, make, view

KEY = "a-key-that-is-long-enough"
Operation = tuple[str, str, dict[str, Any]]

STATUSES = {
    "append_events": {"200", "400", "413", "422", "500", "503"},
    "recommend_to_user": {"200", "400", "500", "503"},
    "recommend": {"200", "400", "413", "500", "503"},
    "popular": {"200", "400", "500", "503"},
    "explain": {"200", "400", "500", "503"},
    "similar_items": {"200", "400", "404", "500", "503"},
    "similar_users": {"200", "400", "500", "503"},
    "get_item": {"200", "400", "404", "500", "503"},
    "list_items": {"200", "400", "500", "503"},
    "change_item": {"200", "400", "404", "413", "422", "500", "503"},
    "get_user": {"200", "400", "404", "500", "503"},
    "list_users": {"200", "400", "500", "503"},
    "set_user": {"200", "400", "413", "422", "500", "503"},
    "change_user": {"200", "400", "404", "413", "422", "500", "503"},
    "set_users": {"200", "400", "413", "500", "503"},
    "hide_user": {"200", "400", "500", "503"},
    "list_letters": {"200", "400", "500", "503"},
    "get_letter": {"200", "400", "404", "500", "503"},
    "resend_letter": {"200", "400", "404", "413", "422", "500", "503"},
    "set_item": {"200", "400", "413", "422", "500", "503"},
    "set_items": {"200", "400", "413", "500", "503"},
    "remove_item": {"200", "400", "500", "503"},
    "list_versions": {"200", "500", "503"},
    "roll_back": {"202", "400", "413", "422", "500", "503"},
    "resume": {"202", "400", "413", "422", "500", "503"},
    "livez": {"200", "500", "503"},
    "readyz": {"200", "500", "503"},
    "status": {"200", "500", "503"},
    "quality": {"200", "500", "503"},
    "settings": {"200", "500", "503"},
    "list_challengers": {"200", "500", "503"},
    "add_challenger": {"201", "400", "413", "422", "500", "503"},
    "retire_challenger": {"202", "400", "404", "413", "422", "500", "503"},
    "promote_challenger": {"202", "400", "404", "413", "422", "500", "503"},
    "metrics": {"200", "500", "503"},
}
BODIES = {
    "append_events": {"WireEvent"},
    "recommend": {"WireRequest"},
    "set_item": {"WireItem"},
    "set_items": {"WireItem"},
    "change_item": {"WireItem"},
    "set_user": {"WireUser"},
    "set_users": {"WireUser"},
    "change_user": {"WireUser"},
    "resend_letter": {"WireEvent", "WireItem", "WireUser"},
    "roll_back": {"WireRollback"},
    "resume": {"WireOrder"},
    "add_challenger": {"WireChallenger"},
    "retire_challenger": {"WireOrder"},
    "promote_challenger": {"WireOrder"},
}
OPTIONAL = {
    "resend_letter",
    "roll_back",
    "resume",
    "retire_challenger",
    "promote_challenger",
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Litestar]]:
    served = make(Config(recommend=Recommend(max_n=25)))
    served.events.append([view("a")], 1.0)
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def document(client: TestClient[Litestar]) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert response.headers["content-type"] == "application/vnd.oai.openapi+json"
    found: dict[str, Any] = response.json()
    return found


def operations(document: dict[str, Any]) -> list[Operation]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    found = set(refs(document))
    assert len(found) > 10
    for ref in found:
        node: Any = document
        for part in ref.removeprefix("#/").split("/"):
            node = node[part]
        assert node


def test_every_route_is_described_and_no_other(
    client: TestClient[Litestar], document: dict[str, Any]
) -> None:
    app = cast(Litestar, client.app)
    served = {
        (route.path_format, method.lower())
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }
    described = {(path, method) for path, method, _ in operations(document)}
    assert served - described == {
        (path, "get") for path in ("/", "/docs", "/openapi.json", "/users/{user_id}")
    }
    assert described <= served


def test_every_operation_has_a_name_and_a_summary(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert sorted(names) == sorted(STATUSES)
    assert all(
        operation["summary"] and operation["tags"] for _, _, operation in operations(document)
    )


def test_every_error_is_described_as_a_problem(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        assert set(operation["responses"]) == STATUSES[operation["operationId"]]
        for status, response in operation["responses"].items():
            assert response["description"]
            if status >= "400":
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}
                assert list(response["content"]) == ["application/problem+json"]
            if status == "503":
                assert "Retry-After" in response["headers"]


def test_bodies_are_described_by_what_decodes_them(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        body = operation.get("requestBody")
        wanted = BODIES.get(operation["operationId"])
        if wanted is None:
            assert body is None
            continue
        assert body is not None
        assert body["required"] == (operation["operationId"] not in OPTIONAL)
        assert {ref.split("/")[-1] for ref in refs(body)} == wanted
    for many, id_field in (("/v1/items", "item_id"), ("/v1/users", "user_id")):
        content = document["paths"][many]["post"]["requestBody"]["content"]
        element = content["application/json"]["schema"]["items"]
        assert element["allOf"][1]["required"] == [id_field]
    event = document["components"]["schemas"]["WireEvent"]
    assert event["required"] == ["type"]
    assert event["additionalProperties"] is False
    assert {"user_id", "anonymous_id", "sent_at", "scenario"} <= set(event["properties"])


def test_limits_are_those_of_the_configuration(
    client: TestClient[Litestar], document: dict[str, Any]
) -> None:
    path = "/v1/users/{user_id}/recommendations"
    parameters = {one["name"]: one for one in document["paths"][path]["get"]["parameters"]}
    assert set(parameters) == {"user_id", "n", "exclude", "min_offset"}
    n = parameters["n"]["schema"]
    assert (n["minimum"], n["maximum"], n["default"]) == (1, 25, 10)
    for value, status in ((0, 400), (1, 200), (25, 200), (26, 400)):
        assert client.get(f"/v1/users/u/recommendations?n={value}").status_code == status
    assert parameters["min_offset"]["schema"]["minimum"] == 0
    assert parameters["exclude"]["schema"]["type"] == "array"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/v1/events", {"type": "view", "user_id": "u", "item_id": "a"}),
        ("get", "/v1/users/{user_id}/recommendations", None),
        ("post", "/v1/recommendations", {"items": ["a"]}),
        ("get", "/v1/popular", None),
        ("put", "/v1/items/{item_id}", {}),
        ("post", "/v1/items", [{"item_id": "a"}]),
        ("get", "/v1/items/{item_id}", None),
        ("patch", "/v1/items/{item_id}", {}),
        ("get", "/v1/items", None),
        ("put", "/v1/users/{user_id}", {"attributes": {"plan": "gold"}}),
        ("get", "/v1/users/{user_id}", None),
        ("patch", "/v1/users/{user_id}", {}),
        ("post", "/v1/users", [{"user_id": "u"}, {}]),
        ("get", "/v1/users", None),
        ("delete", "/v1/users/{user_id}", None),
        ("get", "/v1/dead-letters", None),
        ("get", "/v1/dead-letters/{number}", None),
        ("post", "/v1/dead-letters/{number}/resend", {"user_id": "u"}),
        ("delete", "/v1/items/{item_id}", None),
        ("get", "/v1/versions", None),
        ("get", "/v1/challengers", None),
        ("get", "/v1/status", None),
        ("get", "/v1/metrics", None),
        ("get", "/livez", None),
    ],
)
def test_an_answer_has_the_described_fields(
    method: str, path: str, body: Any, client: TestClient[Litestar], document: dict[str, Any]
) -> None:
    given = {} if body is None else {"json": body}
    response = client.request(
        method.upper(), path.format(user_id="u", item_id="z", number=1), **given
    )
    assert response.status_code == 200
    described = document["paths"][path][method]["responses"]["200"]["content"]
    schema = described[response.headers["content-type"].partition(";")[0]]["schema"]
    answer = response.json()
    check(answer, schema, document)


def test_the_check_of_answers_can_fail(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ItemAnswer"}
    check({"item_id": "a", "offset": 1}, schema, document)
    for wrong in (
        {"item_id": "a"},
        {"item_id": 1, "offset": 1},
        {"item_id": "a", "offset": 1, "x": 1},
    ):
        with pytest.raises(AssertionError):
            check(wrong, schema, document)


def test_the_key_is_described_where_it_is_needed(document: dict[str, Any]) -> None:
    assert not any("security" in operation for _, _, operation in operations(document))
    with make(Config(serve=Serve(api_key=KEY))).client() as client:
        guarded = client.get("/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
    assert guarded["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, _, operation in operations(guarded):
        public = path in _auth.PUBLIC
        assert ("401" in operation["responses"]) == (not public)
        assert operation.get("security") == (None if public else [{"key": []}])
        if not public:
            assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]


def test_the_page_loads_nothing_from_elsewhere(client: TestClient[Litestar]) -> None:
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert 'fetch("/openapi.json"' in response.text
