"""Twenty thousand broken inputs beside good ones: each bad one is refused with its field and
reason, or is one that is good still; and the good ones beside it are all kept.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.api._events import LETTER_CHARACTERS
from headwater.config import Config
from headwater.errors import InvalidInput
from headwater.ingest import (
    Refused,
    decode_events,
    decode_items,
    decode_users,
    is_exported,
    read_exported,
    read_interactions,
    read_items,
    read_users,
)
from headwater.types import Event, Item, User
from tests.api.serving import make

NOW = 1_800_000_000.0
CONFIG = Config()

EVENT: dict[str, Any] = {
    "event_id": "e", "type": "view", "user_id": "u", "item_id": "i", "timestamp": 1_700_000_000,
    "session_id": "s", "value": 2.5, "position": 3, "scenario": "home", "context": {"a": [1]},
}  # fmt: skip
ITEM: dict[str, Any] = {
    "item_id": "i", "title": "T", "categories": ["a"], "tags": "x|y", "price": 2.5, "text": "long",
    "attributes": {"a": 1, "b": ["c"]}, "vectors": {"v": [0.5]}, "published_at": "2024-01-01",
    "available": True,
}  # fmt: skip
USER: dict[str, Any] = {"user_id": "u", "attributes": {"plan": "gold", "age": 41, "likes": ["a"]}}

# Wrong in every field; each is refused by the name of the field that it stands in.
WRONG: tuple[Any, ...] = ([[]], {"x": {}}, "", "x" * 200_000, -1e300, [None], [1, "a"])


def misspelt(row: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    name = chance.choice(sorted(row))
    at = chance.randrange(len(name) + 1)
    other = name[:at] + chance.choice("xyz_") + name[at:]
    return {other if key == name else key: value for key, value in row.items()}


def mistaken(row: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    return {**row, chance.choice(sorted(row)): chance.choice(WRONG)}


def missing(row: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    left = dict(row)
    for name in chance.sample(sorted(row), chance.randint(1, len(row))):
        del left[name]
    return left


def other_kind(_: dict[str, Any], chance: random.Random) -> Any:
    return chance.choice([None, 5, "text", [], [[]], True, 1.5])


MUTATIONS = (misspelt, mistaken, missing, other_kind)

Decoder = Callable[[bytes], list[Any]]
WIRES: dict[str, tuple[dict[str, Any], type, Decoder]] = {
    "event": (
        EVENT,
        Event,
        lambda body: decode_events(body, NOW, config=CONFIG, max_events=10_000).elements,
    ),
    "item": (ITEM, Item, lambda body: decode_items(body, max_items=10_000)),
    "user": (USER, User, lambda body: decode_users(body, max_users=10_000)),
}


@pytest.mark.parametrize("kind", WIRES)
def test_broken_elements_of_a_body(kind: str) -> None:
    good, noun, decoded = WIRES[kind]
    chance = random.Random(kind)
    rows = [MUTATIONS[n % len(MUTATIONS)](good, chance) for n in range(2_000)]
    body = json.dumps([one for row in rows for one in (row, good)]).encode()
    found = decoded(body)
    assert len(found) == 2 * len(rows)
    assert set(map(type, found[1::2])) == {noun}
    refused = [one for one in found[::2] if isinstance(one, Refused)]
    assert len(refused) > len(rows) / 2
    for one in refused:
        assert one.field
        assert one.reason
        assert one.body
    for row, one in zip(rows, found[::2], strict=True):
        if not isinstance(row, dict) or set(row) - set(good):
            assert isinstance(one, Refused), row
        elif isinstance(one, Refused) and one.field != kind:
            assert one.field in {*good, "user_id", "anonymous_id", "type"}, row


@pytest.mark.parametrize("kind", WIRES)
def test_broken_elements_sent_over_http_are_dead_letters_beside_the_good_ones(kind: str) -> None:
    good, noun, _ = WIRES[kind]
    chance = random.Random(f"{kind} over http")
    rows = [MUTATIONS[n % len(MUTATIONS)](good, chance) for n in range(200)]
    fine = [{**good, f"{kind}_id": f"fine{n}"} for n in range(200)]
    served = make()
    with served.client() as client:
        sent = [one for pair in zip(rows, fine, strict=True) for one in pair]
        answer = client.post(f"/v1/{kind}s", json=sent).json()
    of_fine, of_broken = answer["results"][1::2], answer["results"][::2]
    assert {one["status"] for one in of_fine} == {"accepted"}
    refused = [row for row, one in zip(rows, of_broken, strict=True) if one["status"] == "rejected"]
    assert answer["rejected"] == len(refused) > 100
    stored = {getattr(one.entry, f"{kind}_id") for one in served.events.read(0, 1_000)}
    assert {f"fine{n}" for n in range(200)} <= stored
    assert {type(one.entry) for one in served.events.read(0, 1_000)} == {noun}
    letters = served.events.dead_letters(1_000)[::-1]
    assert len(letters) == len(refused)
    for letter, row in zip(letters, refused, strict=True):
        assert letter.field
        assert letter.reason
        assert len(letter.body) == LETTER_CHARACTERS or json.loads(letter.body) == row


GARBAGE = [b"", b"{", b"}", b'"', b",", b"\xff", b"\x00", b"[", b"\\", b"1e999", b"NaN"]


def garbled(line: bytes, chance: random.Random, garbage: list[bytes]) -> bytes:
    """A line with some of its bytes lost, doubled, or others; line ends apart."""
    found = bytearray(line)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found))
        found[at : at + chance.randint(0, 3)] = chance.choice(garbage)
        if not found:
            return b"?"
    return bytes(found)


def json_line(n: int) -> bytes:
    row = {"user_id": f"u{n}", "item_id": f"good{n}", "timestamp": 1_000_000 + n, "value": 2.5}
    return json.dumps(row).encode()


def csv_line(n: int) -> bytes:
    return f"u{n},good{n},{1_000_000 + n},2.5".encode()


def export_line(n: int) -> bytes:
    row = {"entry": "event", "event_id": f"e{n}", "type": "view", "user_id": f"u{n}"}
    return json.dumps({**row, "item_id": f"good{n}", "timestamp": 1_000_000.5 + n}).encode()


def item_line(n: int) -> bytes:
    return json.dumps({"item_id": f"good{n}", "title": "T", "price": 2.5, "tags": ["a"]}).encode()


Lines = Callable[[int], bytes]


def mixed(line: Lines, rounds: int, seed: str, header: bytes = b"") -> bytes:
    """Good lines, each followed by a garbled one."""
    chance = random.Random(seed)
    # Between two quotes CSV holds everything for text, line ends too: they aren't broken.
    garbage = [one for one in GARBAGE if one != b'"' or not header]
    lines = [header] if header else []
    for n in range(rounds):
        lines += [line(n), garbled(line(rounds + n), chance, garbage)]
    return b"\n".join(lines) + b"\n"


def formatted(text: str) -> Lines:
    """Lines of a format: ``text`` with the line's number in it."""
    return lambda n: text.format(n=n, time=1_000_000 + n).encode()


INTERACTIONS: dict[str, tuple[Lines, bytes]] = {
    "a.jsonl": (json_line, b""),
    "a.csv": (csv_line, b"user_id,item_id,timestamp,value"),
    "a.inter": (
        formatted("u{n}\tgood{n}\t{time}\t2.5"),
        b"user_id:token\titem_id:token\ttimestamp:float\tvalue:float",
    ),
    "ratings.csv": (formatted("u{n},good{n},2.5,{time}"), b"userId,movieId,rating,timestamp"),
    "ratings.dat": (formatted("u{n}::good{n}::2.5::{time}"), b""),
    "u.data": (formatted("u{n}\tgood{n}\t2.5\t{time}"), b""),
}


@pytest.mark.parametrize("name", INTERACTIONS)
def test_broken_lines_of_a_file_of_interactions(name: str, tmp_path: Path) -> None:
    line, header = INTERACTIONS[name]
    rounds, at_once = 1_000, 20
    refused = 0
    for start in range(0, rounds, at_once):
        path = tmp_path / name
        path.write_bytes(mixed(line, at_once, f"{name} {start}", header))
        found = read_interactions(path, received_at=NOW)
        kept = {found.item_ids[code] for code in found.item_codes}
        assert {f"good{n}" for n in range(at_once)} <= kept
        assert all(found.skipped)
        assert len(found) + sum(found.skipped.values()) == 2 * at_once, "no line is lost"
        refused += sum(found.skipped.values())
    assert refused > rounds / 2


FLAGS = "|0" * 19
DESCRIBED: dict[str, tuple[Lines, bytes]] = {
    "a.jsonl": (item_line, b""),
    "a.item": (formatted("good{n}\tA film\t2.5"), b"item_id:token\ttitle:token_seq\tprice:float"),
    "movies.csv": (formatted("good{n},A film,Drama|War"), b"movieId,title,genres"),
    "movies.dat": (formatted("good{n}::A film::Drama|War"), b""),
    "u.item": (formatted(f"good{{n}}|A film|01-Jan-1995||http://x/{FLAGS}"), b""),
    "people.jsonl": (lambda n: json.dumps({**USER, "user_id": f"good{n}"}).encode(), b""),
    "a.user": (formatted("good{n}\t41\tM"), b"user_id:token\tage:float\tgender:token"),
    "users.dat": (formatted("good{n}::M::41::10::02139"), b""),
    "u.user": (formatted("good{n}|41|M|writer|02139"), b""),
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_broken_lines_of_a_file_of_items_or_users(name: str, tmp_path: Path) -> None:
    line, header = DESCRIBED[name]
    path = tmp_path / name
    path.write_bytes(mixed(line, 1_000, name, header))
    of_users = "user" in name or name == "people.jsonl"
    found: Any = read_users(path) if of_users else read_items(path)
    ids = [one.user_id if of_users else one.item_id for one in found]
    assert {f"good{n}" for n in range(1_000)} <= set(ids)
    assert len(ids) + sum(found.skipped.values()) == 2_000, "no line is lost"
    assert all(found.skipped)
    assert sum(found.skipped.values()) > 50


def test_broken_lines_of_an_export(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(mixed(export_line, 1_000, "export"))
    assert is_exported(path)
    found = list(read_exported(path, CONFIG.event_types))
    assert len(found) == 2_000
    events = [one for one in found if isinstance(one, Event)]
    assert {f"good{n}" for n in range(1_000)} <= {event.item_id for event in events}
    refused = [one for one in found if isinstance(one, InvalidInput)]
    assert len(refused) > 500
    assert all(one.field and one.reason for one in refused)
