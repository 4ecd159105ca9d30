"""Events on the wire: what is accepted, what is refused and which field is blamed."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import Config, EventType
from headwater.errors import HeadwaterError, InvalidInput, TooLarge
from headwater.ingest import Decoded, Refused, _events, decode_events, identifier
from headwater.types import Event

NOW = 1_800_000_000.0
DAY = 86_400.0
CONFIG = Config()
VIEW: dict[str, Any] = {"type": "view", "user_id": "ann", "item_id": "kettle"}
FULL: dict[str, Any] = {
    "event_id": "e1",
    "type": "click",
    "user_id": 17,
    "item_id": "kettle",
    "timestamp": "2026-01-31T12:00:00Z",
    "sent_at": NOW,
    "session_id": 3,
    "value": 4.5,
    "recommendation_id": "r1",
    "position": 2,
    "scenario": "home",
    "surface": "top",
    "context": {"device": "phone", "screen": [390, 844]},
}


def read(body: object, received_at: float = NOW, **options: Any) -> Decoded:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    options.setdefault("max_events", 1_000)
    return decode_events(raw, received_at, config=options.pop("config", CONFIG), **options)


def attempt(body: bytes) -> Decoded | InvalidInput:
    try:
        return read(body)
    except InvalidInput as error:
        return error


def event(**fields: Any) -> Event:
    (one,) = read({**VIEW, **fields}).elements
    assert isinstance(one, Event), one
    return one


def refusal(body: object) -> Refused:
    (one,) = read(body).elements
    assert isinstance(one, Refused), one
    return one


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


def test_every_field_arrives():
    (one,) = read(FULL, source="shop").elements
    assert one == Event(
        event_id="e1",
        type="click",
        user_id="17",
        timestamp=1_769_860_800.0,
        item_id="kettle",
        value=4.5,
        session_id="3",
        recommendation_id="r1",
        position=2,
        scenario="home",
        surface="top",
        context={"device": "phone", "screen": [390, 844]},
        source="shop",
    )


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"type": None}, "type", "must be a string"),
        ({"type": ""}, "type", "is empty"),
        ({"type": "x" * 65}, "type", "longer than 64"),
        ({"type": 3}, "type", "not an integer"),
        ({"user_id": None}, "user_id", "is missing"),
        ({"user_id": ""}, "user_id", "is empty"),
        ({"user_id": "u" * 257}, "user_id", "longer than 256"),
        ({"user_id": 1.5}, "user_id", "must be an integer or a string, not a number"),
        ({"user_id": True}, "user_id", "not true or false"),
        ({"user_id": 10**300}, "user_id", "longer than 256"),
        ({"anonymous_id": "x"}, "anonymous_id", "beside user_id"),
        ({"user_id": None, "anonymous_id": ""}, "anonymous_id", "is empty"),
        ({"user_id": None, "anonymous_id": "x" * 252}, "anonymous_id", "longer than 256"),
        ({"item_id": None}, "item_id", "is missing"),
        ({"item_id": ""}, "item_id", "is empty"),
        ({"item_id": ["kettle"]}, "item_id", "not a list"),
        ({"event_id": ""}, "event_id", "is empty"),
        ({"event_id": "e" * 257}, "event_id", "longer than 256"),
        ({"session_id": {}}, "session_id", "not an object"),
        ({"recommendation_id": ""}, "recommendation_id", "is empty"),
        ({"timestamp": "yesterday"}, "timestamp", "is not a time"),
        ({"timestamp": "1800000000"}, "timestamp", "as a number"),
        ({"timestamp": "2026-02-30"}, "timestamp", "isn't in the calendar"),
        ({"timestamp": "2026-02-20T24:00"}, "timestamp", "isn't on the clock"),
        ({"timestamp": -1}, "timestamp", "before 1970"),
        ({"timestamp": "1969-12-31"}, "timestamp", "before 1970"),
        ({"timestamp": NOW + 301}, "timestamp", "more than 5 minutes ahead"),
        ({"timestamp": NOW * 1_000_000}, "timestamp", "out of range"),
        ({"timestamp": True}, "timestamp", "not true or false"),
        ({"sent_at": "now"}, "sent_at", "is not a time"),
        ({"value": "5"}, "value", "must be a number, not a string"),
        ({"position": -1}, "position", "from 0"),
        ({"position": 1.0}, "position", "must be an integer"),
        ({"position": 10**9}, "position", "from 0"),
        ({"scenario": "s" * 257}, "scenario", "longer than 256"),
        ({"surface": 1}, "surface", "must be a string"),
        ({"context": []}, "context", "must be an object"),
        ({"context": deep(9)}, "context", "nested"),
        ({"context": {"text": "x" * 8_192}}, "context", "larger than 8192 bytes"),
        ({"context": {"big": 2**63}}, "context", "64 bits"),
        ({"usr_id": "ann"}, "usr_id", "did you mean user_id?"),
        ({"zzz": 1}, "zzz", "known are type, event_id"),
        ({"event": "view"}, "event", "did you mean type?"),
        ({"rating": 4}, "rating", "did you mean value?"),
    ],
)
def test_refusals_name_the_field(fields: dict[str, Any], field: str, reason: str):
    refused = refusal({**VIEW, **fields})
    assert refused.field == field
    assert reason in refused.reason
    assert json.loads(refused.body) == {**VIEW, **fields}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999", "1e308", "-1e39"])
def test_numbers_must_be_finite(number: str):
    body = f'{{"type": "view", "user_id": 1, "item_id": 2, "value": {number}}}'.encode()
    tried = attempt(body)
    if isinstance(tried, InvalidInput):
        assert tried.field == "body", "NaN isn't JSON at all"
    else:
        assert refusal(body).field == "value"


@pytest.mark.parametrize("missing", ["type", "user_id", "item_id"])
def test_a_missing_field_is_named(missing: str):
    refused = refusal({key: value for key, value in VIEW.items() if key != missing})
    assert (refused.field, refused.reason.split(";")[0]) == (missing, "is missing")


@pytest.mark.parametrize("element", [3, "view", None, True, [VIEW]])
def test_what_is_no_event_is_refused_by_itself(element: object):
    one, other = read([element, VIEW]).elements
    assert isinstance(one, Refused)
    assert one.field == "event"
    assert "must be an object" in one.reason
    assert isinstance(other, Event)


def test_good_elements_are_kept_beside_bad_ones_in_order():
    decoded = read([{**VIEW, "event_id": "a"}, {**VIEW, "event_id": 9, "value": "x"}, VIEW])
    assert not decoded.single
    assert [type(one) for one in decoded.elements] == [Event, Refused, Event]
    assert [one.event_id for one in decoded.elements[:2]] == ["a", "9"]


def test_one_object_is_single_and_an_empty_array_is_nothing():
    assert read(VIEW).single
    assert read([]) == Decoded([], single=False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b'{"type": "view"',
        b"[1,]",
        b"view",
        b"3",
        b'"view"',
        b"null",
        b'{"type": "\xff"}',
        b'[{"type": "view"}, "\xff"]',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"context": ' * 5_000 + b"1" + b"}" * 5_000,
        b'{"type": "view"} {}',
        "[]".encode("utf-16"),
    ],
)
def test_a_body_that_is_no_json_object_or_array_is_one_error(body: bytes):
    with pytest.raises(InvalidInput) as caught:
        read(body)
    assert caught.value.field == "body"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b" ", "is empty"),
        (b'{"type": "view"}\n{"type": "view"}', "send several as a list"),
        (b"type=view", "is not JSON"),
    ],
)
def test_a_body_that_is_no_json_is_told_what_to_be(body: bytes, said: str):
    with pytest.raises(InvalidInput, match=said):
        read(body)


def test_too_many_elements_are_an_error_of_their_own():
    assert len(read([VIEW] * 3, max_events=3).elements) == 3
    with pytest.raises(TooLarge, match="holds 4 events; send at most 3"):
        read([VIEW] * 4, max_events=3)


def test_5_and_the_text_5_are_the_same_id():
    assert event(user_id=5, item_id=7) == event(user_id="5", item_id="7")
    assert event(user_id="05").user_id == "05"
    assert identifier(5, "user_id") == identifier("5", "user_id") == "5"


def test_an_anonymous_user_can_be_sent_again_as_it_is_stored():
    (one,) = read({**VIEW, "user_id": None, "anonymous_id": 5}).elements
    assert isinstance(one, Event)
    assert (one.user_id, one.anonymous) == ("anon:5", True)
    assert event(user_id="anon:5") == one
    assert not event(user_id="ann").anonymous


@pytest.mark.parametrize(
    "form",
    [
        1_769_860_800,
        1_769_860_800.0,
        1_769_860_800_000,
        "2026-01-31T12:00:00Z",
        "2026-01-31t12:00:00z",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00",
        "2026-01-31T12:00:00.000+00:00",
        "2026-01-31T13:30:00+01:30",
        "2026-01-31T11:00:00-0100",
    ],
)
def test_forms_of_one_moment(form: object):
    assert event(timestamp=form).timestamp == 1_769_860_800.0


def test_a_date_is_its_midnight_and_fractions_count():
    assert event(timestamp="2026-01-31").timestamp == 1_769_817_600.0
    assert event(timestamp="1970-01-01T00:00:00.25Z").timestamp == 0.25
    assert event(timestamp=99_999_999_999 / 1_000).timestamp == 99_999_999.999
    assert event(timestamp=100_000_000_000).timestamp == 100_000_000.0


def test_without_a_timestamp_it_is_the_moment_of_receipt():
    assert event().timestamp == NOW
    assert event(sent_at=NOW - 3_600).timestamp == NOW


def test_a_clock_ahead_of_ours_within_five_minutes_is_believed():
    assert event(timestamp=NOW + 299).timestamp == NOW + 299


@pytest.mark.parametrize("off", [-7_200.0, 7_200.0, 30 * DAY])
def test_a_wrong_clock_is_corrected_by_sent_at(off: float):
    happened = event(timestamp=NOW - 10 + off, sent_at=NOW + off)
    assert happened.timestamp == pytest.approx(NOW - 10)


def test_a_delay_of_a_minute_is_not_a_wrong_clock():
    assert event(timestamp=NOW - 100, sent_at=NOW - 60).timestamp == NOW - 100


def test_events_without_polarity_and_unknown_ones_need_no_item():
    for kind in ("search", "impression", "newsletter"):
        (one,) = read({"type": kind, "user_id": 1}).elements
        assert isinstance(one, Event)
        assert one.item_id is None


def test_configured_types_need_an_item_when_they_say_something_of_it():
    config = Config(events={"share": EventType(weight=2.0), "visit": EventType(polarity=0)})
    share, visit = read(
        [{"type": "share", "user_id": 1}, {"type": "visit", "user_id": 1}], config=config
    ).elements
    assert isinstance(share, Refused)
    assert share.field == "item_id"
    assert isinstance(visit, Event)


def test_an_own_event_id_wins_over_the_key():
    assert [
        one.event_id for one in read({**VIEW, "event_id": 7}, idempotency_key="k").elements
    ] == ["7"]


def test_the_idempotency_key_names_one_event_or_each_by_its_place():
    assert [one.event_id for one in read(VIEW, idempotency_key="k").elements] == ["k"]
    many = read([VIEW, {**VIEW, "value": "x"}, VIEW], idempotency_key="k")
    assert [one.event_id for one in many.elements] == ["k/0", "k/1", "k/2"]


@pytest.mark.parametrize("key", ["", "k" * 257])
def test_an_idempotency_key_must_be_an_id(key: str):
    with pytest.raises(InvalidInput, match="Idempotency-Key"):
        read(VIEW, idempotency_key=key)


def test_the_same_content_has_the_same_event_id():
    fields = {"timestamp": NOW - 5, "context": {"a": 1, "b": {"c": 2, "d": 3}}}
    shuffled = {"context": {"b": {"d": 3, "c": 2}, "a": 1}, "timestamp": (NOW - 5) * 1_000}
    assert event(**fields).event_id == event(**shuffled).event_id
    assert event(item_id=5).event_id == event(item_id="5").event_id
    again = event(**fields, sent_at=NOW + 3_600)
    assert again.event_id == event(**fields).event_id, "a retry brings a new sent_at"


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "click"},
        {"user_id": "bob"},
        {"item_id": "pan"},
        {"timestamp": NOW - 6},
        {"value": 1.0},
        {"session_id": 1},
        {"recommendation_id": 1},
        {"position": 0},
        {"scenario": "home"},
        {"surface": "home"},
        {"context": {}},
    ],
)
def test_other_content_has_another_event_id(fields: dict[str, Any]):
    assert event(**{"timestamp": NOW - 5, **fields}).event_id != event(timestamp=NOW - 5).event_id


def test_without_a_timestamp_the_day_of_receipt_tells_repeats_from_retries():
    midnight = NOW // DAY * DAY
    first, retry, next_day = (
        read(VIEW, at).elements[0].event_id
        for at in (midnight + 60.0, midnight + 3_600.0, midnight + DAY + 60.0)
    )
    assert first == retry
    assert first != next_day


# --- plain ones, many at a time -----------------------------------------------------------------

PLAIN: dict[str, Any] = {**VIEW, "event_id": "e1", "timestamp": NOW}
LATEST = NOW + 300.0
OTHER_VALUES: dict[str, list[Any]] = {
    "type": ["", "x" * 64, "x" * 65, "purchase", "unheard of", 3],
    "event_id": ["", "x" * 256, "x" * 257, "é" * 256, 5, None],
    "user_id": ["", "x" * 256, "x" * 257, "anon:7", 5, None],
    "item_id": ["", "x" * 256, "x" * 257, 5, None],
    "timestamp": [0, -1, -0.0, LATEST, LATEST + 1.0, 1_700_000_000_000, 1e11, "2026-01-31", None],
    "value": [4.5, 4, -1e300, "4.5", None],
    "anonymous_id": ["a", None],
    "sent_at": [NOW - 3_600.0, None],
    "session_id": ["s", None],
    "position": [2, -1],
    "context": [{"a": 1}, None],
    "unknown": [1],
}


@pytest.mark.parametrize("event_type", [*CONFIG.event_types])
def test_a_plain_array_is_not_looked_at_one_by_one(
    event_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [{**PLAIN, "type": event_type, "event_id": f"e{n}", "value": n} for n in range(3)]
    expected = [event(**one) for one in sent]
    monkeypatch.delattr(_events, "checked_event")
    assert read(sent).elements == expected


@given(
    st.lists(
        st.dictionaries(st.sampled_from(sorted(OTHER_VALUES)), st.integers(0, 8), max_size=2),
        min_size=1,
        max_size=4,
    )
)
def test_arrays_are_read_as_their_elements_are(changes: list[dict[str, int]]) -> None:
    sent = [
        {**PLAIN, **{k: OTHER_VALUES[k][n % len(OTHER_VALUES[k])] for k, n in one.items()}}
        for one in changes
    ]
    together = read(sent).elements
    assert together == [read(one).elements[0] for one in sent]


def test_too_many_plain_ones_are_too_many() -> None:
    with pytest.raises(TooLarge):
        read([PLAIN, PLAIN], max_events=1)


# --- whatever comes in -------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["view", "search", "2026-01-31", "x" * 300, 1e11, -1, 2**70]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(sorted(FULL)), inner, max_size=6)
    ),
    max_leaves=12,
)


def survives(body: bytes) -> None:
    """Whatever the bytes: usable events, refusals that say what and why, or ``InvalidInput``."""
    tried = attempt(body)
    for one in tried.elements if isinstance(tried, Decoded) else [tried]:
        if isinstance(one, Refused | InvalidInput):
            assert one.field
            assert one.reason
        else:
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Event) == one
            assert 0 <= one.timestamp <= NOW + 300
            assert 0 < len(one.event_id) <= 262
            assert one.user_id
            assert one.value is None or math.isfinite(one.value)


@given(st.binary(max_size=200))
def test_any_bytes_survive(body: bytes):
    survives(body)


@given(JSON)
def test_any_json_survives(value: object):
    survives(json.dumps(value).encode())


@given(st.sampled_from(sorted(FULL)), JSON)
def test_one_replaced_field_is_the_one_that_is_named(field: str, value: object):
    body = json.dumps({**FULL, field: value}).encode()
    tried = attempt(body)
    if isinstance(tried, InvalidInput):  # Python writes NaN, which isn't JSON
        assert b"NaN" in body or b"Infinity" in body
        return
    (one,) = tried.elements
    if isinstance(one, Refused):
        # A clock that is far off moves the timestamp where no event can be.
        assert one.field in ({"timestamp", "sent_at"} if field == "sent_at" else {field})


def test_two_thousand_mutations_survive():
    rng = random.Random(5)
    seed = json.dumps([FULL, VIEW, {**FULL, "context": {"a": [1, {"b": None}]}}]).encode()
    for _ in range(2_000):
        body = bytearray(seed)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(body))
            match rng.randrange(4):
                case 0:
                    body[at] = rng.randrange(256)
                case 1:
                    del body[at : at + rng.randint(1, 20)]
                case 2:
                    body[at:at] = rng.choice(
                        [b"{", b"}", b"[", b'"', b"\\u", b"1e9", b"null", b","]
                    )
                case _:
                    body += body[at : at + rng.randint(1, 30)]
            if not body:
                break
        survives(bytes(body))


def test_every_refusal_is_an_error_of_ours():
    assert issubclass(TooLarge, InvalidInput)
    assert issubclass(InvalidInput, HeadwaterError)
