from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.log.chunks import Packed, Strings
from headwater.packing import pack_strings
from headwater.preprocess import Vocabulary
from headwater.preprocess._index import Index
from headwater.types import NO_ROW


@given(st.lists(st.text(max_size=5)), st.text(max_size=5))
def test_rows_are_given_in_order_of_first_sight_and_for_good(ids, asked):
    words = Vocabulary()
    rows = [words.row(id) for id in ids]
    unique = list(dict.fromkeys(ids))
    assert rows == [unique.index(id) for id in ids]
    assert (list(words), len(words)) == (unique, len(unique))
    assert [words.id(row) for row in rows] == ids
    assert words.find(asked) == (unique.index(asked) if asked in unique else NO_ROW)
    assert words.known([asked, *ids]) == [unique.index(id) for id in [asked, *ids] if id in unique]
    assert len(words) == len(unique), "asking adds nothing"
    again = Vocabulary()
    again.load(words.state())
    assert list(again) == unique
    assert again.row("a new one of more letters") == len(unique)


def test_a_state_that_holds_an_id_twice_is_refused():
    text, offsets = pack_strings(["a", "b", "a"])
    with pytest.raises(ValueError, match="twice"):
        Vocabulary().load({"text": text, "offsets": np.array(offsets), "free": np.zeros(0, "i4")})


@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from("abcdefgh"), max_size=5))))
def test_a_released_row_is_the_next_new_ids_the_lowest_first(steps):
    words = Vocabulary()
    rows: dict[str, int] = {}
    free: set[int] = set()
    for releases, ids in steps:
        if releases:
            gone = sorted({rows[id] for id in ids if id in rows})
            words.release(np.array(gone + sorted(free), np.int32))
            free |= set(gone)
            rows = {id: row for id, row in rows.items() if row not in free}
        else:
            for id in ids:
                if id not in rows:
                    rows[id] = min(free) if free else len(rows)
                    free.discard(rows[id])
                assert words.row(id) == rows[id]
        assert {id: words.find(id) for id in "abcdefgh" if words.find(id) != NO_ROW} == rows
        assert (len(words), words.n_known) == (len(rows) + len(free), len(rows))
        assert set(np.flatnonzero(~words.in_use()).tolist()) == free
        again = Vocabulary()
        again.load(words.state())
        words = again


@pytest.mark.parametrize("n", [1, 4, 5, 40])
def test_few_ids_are_found_as_many_are(n: int):
    words = Vocabulary()
    words.rows([f"{k}" for k in range(0, 60, 2)])
    asked = [None if k % 3 == 2 else f"{k}" for k in range(n)]
    assert words.find_rows(asked).tolist() == [
        NO_ROW if id is None else words.find(id) for id in asked
    ]
    assert len(words) == 30, "nothing is added"


def test_thousands_of_ids_come_and_go_as_in_a_dictionary():
    draw = random.Random(0)
    words = Vocabulary()
    rows: dict[str, int] = {}
    for _ in range(40):
        ids = [f"{draw.randrange(20_000)}" for _ in range(1_000)]
        found = words.rows(ids)
        rows |= zip(ids, found.tolist(), strict=True)
        assert found.tolist() == [rows[id] for id in ids]
        assert len(set(rows.values())) == len(rows), "no row is two ids'"
        gone = draw.sample(sorted(rows), len(rows) // 3)
        words.release(np.array([rows.pop(id) for id in gone], np.int32))
        asked = [*gone, *rows]
        assert words.find_rows(asked).tolist() == [rows.get(id, NO_ROW) for id in asked]
        assert [words.find(id) for id in asked[-50:]] == [rows[id] for id in asked[-50:]]
    assert words.n_known == len(rows)


_LENGTHS = (0, 1, 7, 8, 9, 31, 32, 255, 256, 65_535, 65_536)


def _stored(arrays: list[list[Any]], ranges: list[tuple[int, int]]) -> Strings[str | None]:
    parts = [
        Packed(msgspec.msgpack.encode(of), *one) for of, one in zip(arrays, ranges, strict=True)
    ]
    return Strings(
        parts,
        lambda parts: [
            text
            for part in parts
            for text in msgspec.msgpack.decode(part.array, type=list[str | None])[
                part.start : part.stop
            ]
        ],
    )


def test_stored_strings_have_the_rows_of_the_strings():
    long: list[Any] = ["é" * (n // 2) + "x" * (n % 2) for n in _LENGTHS]
    arrays: list[list[Any]] = [
        [None, *long, "a"],
        ["b", None, "a"],
        [f"u{n}" for n in range(70_000)],
    ]
    ranges = [(1, len(long) + 2), (0, 3), (40_000, 69_999)]
    column = _stored(arrays, ranges)
    plain = [text for of, (a, b) in zip(arrays, ranges, strict=True) for text in of[a:b]]
    assert [*column] == plain
    assert len(column) == len(plain)
    words, others = Vocabulary(), Vocabulary()
    assert words.rows(column).tolist() == others.rows(plain).tolist()
    assert [*words] == [*others]
    assert words.rows(plain).tolist() == others.rows(column).tolist()
    assert words.find_rows(_stored([["a", "c", None]], [(0, 3)])).tolist() == [
        others.find("a"),
        NO_ROW,
        NO_ROW,
    ]


def test_what_is_stored_and_no_string_is_refused():
    with pytest.raises(msgspec.ValidationError):
        Vocabulary().rows(_stored([["a", 1]], [(0, 2)]))


def test_ids_that_are_no_text_are_told_apart():
    words = Vocabulary()
    assert words.rows(["\ud800", "\udfff", "\ud800", "?"]).tolist() == [0, 1, 0, 2]
    assert words.find("\udfff") == 1


def test_no_strings_have_no_rows():
    assert Vocabulary().rows(_stored([], [])).tolist() == []


def test_fewer_strings_than_their_block_says_are_refused():
    with pytest.raises(ValueError, match="3 ids are said to be there, and 2 are"):
        Vocabulary().rows(_stored([["a", "b"]], [(0, 3)]))


def test_a_row_that_is_not_in_use_is_not_taken_away():
    index = Index()
    for row, id in enumerate("abc"):
        index.add(id, row)
    with pytest.raises(KeyError, match="1"):
        index.remove(np.array([1, 1], np.int32))
    assert [index.find(id) for id in "abc"] == [0, NO_ROW, 2]
