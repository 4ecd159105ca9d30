"""Items and requests on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import Config, Recommend
from headwater.errors import InvalidInput, TooLarge
from headwater.ingest import (
    Refused,
    build_request,
    decode_item,
    decode_items,
    decode_request,
    patch_item,
)
from headwater.types import Item, Request

CONFIG = Config()
KETTLE: dict[str, Any] = {
    "item_id": 5,
    "title": "Kettle",
    "categories": ["kitchen", "steel"],
    "tags": "new|sale| new |",
    "price": 29,
    "text": "Boils.",
    "attributes": {"year": 2024, "brand": "Acme", "cordless": True, "colours": ["red"], "x": None},
    "vectors": {"image": [0.5, -1]},
    "published_at": "2024-01-02",
    "available": False,
}


def blame(call: Callable[[], object]) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call()
    return caught.value


def test_every_field_arrives():
    item = decode_item(json.dumps(KETTLE).encode(), None)
    assert item == Item(
        item_id="5",
        title="Kettle",
        categories=("kitchen", "steel"),
        tags=("new", "sale"),
        price=29.0,
        text="Boils.",
        attributes={"year": 2024.0, "brand": "Acme", "cordless": True, "colours": ["red"]},
        vectors={"image": [0.5, -1.0]},
        published_at=1_704_153_600.0,
        available=False,
    )
    assert msgspec.json.decode(msgspec.json.encode(item), type=Item) == item


def test_the_path_gives_the_id_and_the_body_may_repeat_it():
    assert decode_item(b"{}", "5") == decode_item(b'{"item_id": 5}', "5") == Item("5")
    assert blame(lambda: decode_item(b'{"item_id": 6}', "5")).field == "item_id"
    assert blame(lambda: decode_item(b"{}", None)).reason == "is missing"


def test_old_and_coming_items_have_a_time_of_publication():
    assert decode_item(b'{"published_at": "1913-01-01"}', "1").published_at == -1_798_761_600.0
    assert decode_item(b'{"published_at": "2999-01-01"}', "1").published_at == 32_472_144_000.0


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"item_id": 1.5}, "item_id", "not a number"),
        ({"item_id": ""}, "item_id", "is empty"),
        ({"title": "t" * 2_001}, "title", "longer than 2000"),
        ({"title": 3}, "title", "must be a string"),
        ({"text": "t" * 100_001}, "text", "longer than"),
        ({"categories": [1]}, "categories", "must hold a string"),
        ({"categories": {}}, "categories", "not an object"),
        ({"categories": ["c" * 257]}, "categories", "more than 256 characters"),
        ({"tags": [str(tag) for tag in range(201)]}, "tags", "more than 200"),
        ({"price": "9.99"}, "price", "must be a number"),
        ({"attributes": {"a": [1]}}, "attributes", "must hold a string"),
        ({"attributes": {"a": {}}}, "attributes", "not an object"),
        ({"attributes": {"": 1}}, "attributes", "is empty"),
        ({"attributes": {"a": "x" * 10_001}}, "attributes", "more than 10000"),
        ({"attributes": {str(name): 1 for name in range(201)}}, "attributes", "more than 200"),
        ({"vectors": {"v": []}}, "vectors", "from 1 to"),
        ({"vectors": {"v": [0.0] * 8_193}}, "vectors", "from 1 to"),
        ({"vectors": {"v": [1e39]}}, "vectors", "single precision"),
        ({"vectors": {"v": [None]}}, "vectors", "not null"),
        ({"vectors": {str(name): [1.0] for name in range(9)}}, "vectors", "more than 8"),
        ({"published_at": "soon"}, "published_at", "is not a time"),
        ({"available": 1}, "available", "must be true or false"),
        ({"titel": "Kettle"}, "titel", "did you mean title?"),
        ({"genres": ["Drama"]}, "genres", "did you mean categories?"),
    ],
)
def test_refusals_name_the_field(fields: dict[str, Any], field: str, reason: str):
    body = json.dumps({**KETTLE, **fields}).encode()
    error = blame(lambda: decode_item(body, None))
    assert error.field == field
    assert reason in error.reason
    refused, kept = decode_items(body + b"\n" + json.dumps(KETTLE).encode(), max_items=2)
    assert refused == Refused(field, error.reason, body)
    assert isinstance(kept, Item)


def test_many_items_come_as_an_array_or_a_line_each():
    array = decode_items(b' [{"item_id": 1}, {"item_id": 1.5}, 3]', max_items=3)
    lines = decode_items(b'{"item_id": 1}\n\r\n{"item_id": 1.5}\n3\n', max_items=3)
    assert array == lines
    assert [type(one) for one in array] == [Item, Refused, Refused]


def test_a_broken_line_spoils_only_itself_and_a_broken_array_everything():
    broken, kept = decode_items(b'{"item_id": \n{"item_id": 2}', max_items=2)
    assert isinstance(broken, Refused)
    assert broken.field == "item"
    assert kept == Item("2")
    assert blame(lambda: decode_items(b'[{"item_id": 1}, ', max_items=2)).field == "body"
    assert blame(lambda: decode_items(b" \n", max_items=2)).field == "body"


def test_too_many_items_are_an_error_of_their_own():
    assert decode_items(b"[]", max_items=0) == []
    with pytest.raises(TooLarge, match="at most 1"):
        decode_items(b'{"item_id": 1}\n{"item_id": 2}', max_items=1)


def test_vectors_of_a_name_have_one_dimension():
    body = json.dumps(
        [
            {"item_id": 1, "vectors": {"image": [1, 2], "sound": [1, 2, 3]}},
            {"item_id": 2, "vectors": {"image": [1, 2, 3]}},
            {"item_id": 3, "vectors": {"sound": [1, 2]}},
            {"item_id": 4, "vectors": {"image": [3, 4], "word": [1]}},
        ]
    ).encode()
    first, image, sound, last = decode_items(body, max_items=4)
    assert (type(first), type(last)) == (Item, Item)
    for refused, name in ((image, "image"), (sound, "sound")):
        assert isinstance(refused, Refused)
        assert refused.field == "vectors"
        assert refused.reason.startswith(f"{name} has")
    known = {"image": 2}
    same, other = b'{"vectors": {"image": [0, 1]}}', b'{"vectors": {"image": [0]}}'
    assert decode_item(same, "5", known).vectors == {"image": [0.0, 1.0]}
    assert blame(lambda: decode_item(other, "5", known)).field == "vectors"
    assert blame(lambda: patch_item(other, Item("5"), known)).field == "vectors"
    assert known == {"image": 2}


def test_one_item_is_not_a_list():
    assert blame(lambda: decode_item(b"[]", "5")).field == "body"


# --- requests ----------------------------------------------------------------------------------


def request(**fields: Any) -> Request:
    return decode_request(json.dumps(fields).encode(), config=CONFIG)


def test_a_request_of_a_user():
    assert request(user_id=5, n=3, exclude=[1, "1", "a,b"]) == Request(
        n=3, user_id="5", exclude=frozenset({"1", "a,b"})
    )
    assert request(user_id="5") == Request(n=10, user_id="5")
    assert request(anonymous_id="x") == request(user_id="anon:x")


def test_a_request_of_a_session():
    assert request(items=[3, "b"]) == Request(n=10, session_items=("3", "b"))
    assert request(items=[]) == Request(n=10)


def test_query_parameters_and_body_make_the_same_request():
    built = build_request(config=CONFIG, n=3, user_id="5", exclude=["1"])
    assert built == request(user_id="5", n=3, exclude=["1"])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 1, "anonymous_id": 2}, "anonymous_id"),
        ({"user_id": 1, "items": [2]}, "items"),
        ({"items": [1.5]}, "items"),
        ({"items": list(range(1_001))}, "items"),
        ({"items": [""]}, "items"),
        ({"items": [1], "exclude": list(range(10_001))}, "exclude"),
        ({"items": [1], "exclude": "1"}, "exclude"),
        ({"user_id": 1, "n": 0}, "n"),
        ({"user_id": 1, "n": 101}, "n"),
        ({"user_id": 1, "n": 2.5}, "n"),
        ({"user": 1}, "user"),
    ],
)
def test_refused_requests_name_the_field(fields: dict[str, Any], field: str):
    assert blame(lambda: request(**fields)).field == field


def test_the_longest_list_is_configured():
    config = Config(recommend=Recommend(max_n=500))
    assert build_request(config=config, n=500, user_id="1").n == 500
    assert "1 to 500" in blame(lambda: build_request(config=config, n=501, user_id="1")).reason


@given(st.binary(max_size=100) | st.text(max_size=60).map(str.encode))
def test_any_bytes_survive(body: bytes):
    for call in (
        lambda: decode_item(body, None),
        lambda: decode_item(body, "5"),
        lambda: decode_items(body, max_items=10),
        lambda: decode_request(body, config=CONFIG),
    ):
        try:
            call()
        except InvalidInput as error:
            named = error.field
            assert named, "a refusal names its field"


@given(
    st.dictionaries(
        st.sampled_from([*KETTLE, "n", "user_id", "items", "exclude"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_any_fields_survive(fields: dict[str, Any]):
    for one in decode_items(json.dumps(fields).encode(), max_items=1):
        if isinstance(one, Item):
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Item) == one
        else:
            assert one.field in fields or one.field == "item_id"
