"""Files of interactions: every format reads the same; what can't be used is counted and said."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import data
from headwater.errors import InvalidInput, UnreadableFile
from headwater.ingest import Interactions, read_interactions
from headwater.ingest._columns import seconds as seconds_of_column
from headwater.ingest._times import seconds
from headwater.types import Event

NOW = 1_800_000_000.0

ROWS = pl.DataFrame(
    {
        "user_id": [17, 4, 17, 4, 99],
        "item_id": ["0444778", "b, c", 'say "b"', "0444778", "ü"],
        "timestamp": [300, 100, 200, 100, 400],
        "event": ["view", "rating", "view", "purchase", "view"],
        "value": [None, 4.5, None, 2.0, None],
        "session_id": ["s2", None, "s2", "s1", None],
        "recommendation_id": [None, None, "r1", None, None],
    }
)


def write(frame: pl.DataFrame, path: Path) -> Path:
    """Writes ``frame`` in the format that the path's extension names."""
    match "".join(path.suffixes):
        case ".parquet":
            frame.write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case ".csv.gz":
            path.write_bytes(gzip.compress(frame.write_csv().encode()))
        case ".tsv":
            frame.write_csv(path, separator="\t")
        case ".jsonl":
            frame.write_ndjson(path)
        case ".ndjson.gz":
            path.write_bytes(gzip.compress(frame.write_ndjson().encode()))
        case ".inter":
            typed = frame.rename(
                {name: f"{name}:{_ATOMIC.get(name, 'token')}" for name in frame.columns}
            )
            typed.write_csv(path, separator="\t", quote_style="never")
        case other:
            raise AssertionError(other)
    return path


_ATOMIC = {"timestamp": "float", "value": "float", "rating": "float"}
FORMATS = (
    "a.parquet",
    "a.csv",
    "a.csv.gz",
    "a.tsv",
    "a.jsonl",
    "a.ndjson.gz",
    "a.inter",
)


def read(
    columns: Mapping[str, Any] | pl.DataFrame, folder: Path, name: str = "a.parquet", **options: Any
) -> Interactions:
    frame = columns if isinstance(columns, pl.DataFrame) else pl.DataFrame(columns)
    return read_interactions(write(frame, folder / name), received_at=NOW, **options)


def ids(rows: Interactions) -> list[tuple[str, str]]:
    return [(one.user_id, str(one.item_id)) for one in rows.events()]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_the_same(tmp_path: Path, name: str):
    rows = read(ROWS, tmp_path, name)
    assert rows.index.tolist() == [1, 3, 2, 0, 4]
    assert rows.timestamps.tolist() == [100.0, 100.0, 200.0, 300.0, 400.0]
    assert rows.user_ids == ["4", "17", "99"]
    assert rows.user_codes.tolist() == [0, 0, 1, 1, 2]
    assert rows.item_ids == ["b, c", "0444778", 'say "b"', "ü"]
    assert rows.item_codes.tolist() == [0, 1, 2, 1, 3]
    assert rows.type_names == ["rating", "purchase", "view"]
    assert rows.type_codes.tolist() == [0, 1, 2, 2, 2]
    np.testing.assert_array_equal(rows.values, [4.5, 2.0, np.nan, np.nan, np.nan])
    assert rows.session_ids == ["s1", "s2"]
    assert rows.session_codes.tolist() == [-1, 0, 1, 1, -1]
    assert rows.recommendation_ids == ["r1"]
    assert rows.recommendation_codes.tolist() == [-1, -1, 0, -1, -1]
    assert rows.skipped == {}
    assert rows.warnings == []
    assert len(rows) == 5


def test_arrays_have_the_types_that_kernels_take(tmp_path: Path):
    rows = read(ROWS, tmp_path)
    for codes in (rows.user_codes, rows.item_codes, rows.type_codes, rows.session_codes):
        assert codes.dtype == np.int32
        assert codes.flags.writeable
    assert rows.timestamps.dtype == rows.values.dtype == np.float64
    assert rows.index.dtype == np.int64


def test_rows_become_events(tmp_path: Path):
    rows = read(ROWS, tmp_path)
    first, *_, last = rows.events()
    assert first == Event(
        event_id="1",
        type="rating",
        user_id="4",
        timestamp=100.0,
        item_id="b, c",
        value=4.5,
        source=rows.source,
        imported=True,
    )
    assert last.item_id == "ü"
    assert rows.events(1, 3) == rows.events()[1:3]
    assert rows.events(2)[0].session_id == "s2"
    assert rows.events(2)[0].recommendation_id == "r1"
    assert [event.event_id for event in rows.events()] == [str(row) for row in rows.index]


def test_the_same_file_is_the_same_source_and_other_bytes_or_columns_are_not(tmp_path: Path):
    frame = ROWS.with_columns(other=pl.col("user_id") + 1)
    first = read(frame, tmp_path, "a.csv")
    assert read(frame, tmp_path, "b.csv").source == first.source
    assert read(frame, tmp_path, "a.csv", mapping={"user_id": "user_id"}).source == first.source
    assert read(frame, tmp_path, "a.csv", mapping={"user_id": "other"}).source != first.source
    assert read(frame[:4], tmp_path, "c.csv").source != first.source


def test_ties_keep_the_order_of_the_file_and_the_limit_comes_after_sorting(tmp_path: Path):
    columns = {"user_id": range(200), "item_id": range(200), "timestamp": [5] * 100 + [4] * 100}
    rows = read(columns, tmp_path)
    assert rows.index.tolist() == [*range(100, 200), *range(100)]
    some = read(columns, tmp_path, limit=101)
    assert some.index.tolist() == [*range(100, 200), 0]
    assert some.user_ids == [str(user) for user in [*range(100, 200), 0]]
    assert len(read(columns, tmp_path, limit=500)) == 200


@pytest.mark.parametrize("name", FORMATS)
def test_ids_are_the_same_as_integers_text_or_floats(tmp_path: Path, name: str):
    times = {"timestamp": [1, 2, 3]}
    forms = [[5, 17850, 5], ["5", "17850", "5"], [5.0, 17850.0, 5.0]]
    read_as = [
        ids(read({"user_id": form, "item_id": form, **times}, tmp_path, name)) for form in forms
    ]
    assert read_as == [[("5", "5"), ("17850", "17850"), ("5", "5")]] * 3


@pytest.mark.parametrize("name", FORMATS)
def test_floats_that_missing_ids_make_of_integers(tmp_path: Path, name: str):
    rows = read(
        {"user_id": [17850.0, None, 13047.0], "item_id": [1, 2, 3], "timestamp": [1, 2, 3]},
        tmp_path,
        name,
    )
    assert ids(rows) == [("17850", "1"), ("13047", "3")]
    assert rows.skipped == {"user_id is missing": 1}
    assert rows.index.tolist() == [0, 2]


def test_text_that_only_now_and_then_looks_like_a_float_stays(tmp_path: Path):
    rows = read(
        {"user_id": ["1.0", "1.5"], "item_id": ["v1.0", "2"], "timestamp": [1, 2]}, tmp_path
    )
    assert ids(rows) == [("1.0", "v1.0"), ("1.5", "2")]


def test_categories_are_ids_too_and_lists_are_not(tmp_path: Path):
    columns = {"user_id": ["a", "b"], "item_id": ["1", "2"], "timestamp": [1, 2]}
    frame = pl.DataFrame(columns).cast({"user_id": pl.Categorical, "item_id": pl.Enum(["1", "2"])})
    assert ids(read(frame, tmp_path)) == [("a", "1"), ("b", "2")]
    with pytest.raises(UnreadableFile, match="column user_id holds List"):
        read({**columns, "user_id": [[1], [2]]}, tmp_path)


@pytest.mark.parametrize(
    "times",
    [
        [0, 1_700_000_000],
        [0.0, 1_700_000_000.0],
        [0, 1_700_000_000_000],
        ["1970-01-01", "2023-11-14T22:13:20Z"],
        ["1970-01-01T00:00", "2023-11-14 23:13:20+01:00"],
        ["0", "1700000000"],
        [datetime(1970, 1, 1), datetime(2023, 11, 14, 22, 13, 20)],
        [datetime(1970, 1, 1, tzinfo=UTC), datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)],
    ],
)
@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_forms_of_time(tmp_path: Path, name: str, times: list[Any]):
    rows = read({"user_id": [1, 2], "item_id": [1, 2], "timestamp": times}, tmp_path, name)
    assert rows.timestamps.tolist() == [0.0, 1_700_000_000.0]


def test_dates_are_their_midnight(tmp_path: Path):
    columns = {"user_id": [1], "item_id": [1], "timestamp": [date(2026, 1, 31)]}
    assert read(columns, tmp_path).timestamps.tolist() == [1_769_817_600.0]
    assert read(columns, tmp_path, "a.csv").timestamps.tolist() == [1_769_817_600.0]


@given(
    st.from_regex(
        r"[0-9]{4}-[01][0-9]-[0-3][0-9]([Tt ][0-2][0-9]:[0-6][0-9](:[0-6][0-9]([.,][0-9]{1,7})?)?"
        r" ?(Z|z|[+-][0-2][0-9]:?[0-6][0-9])?)?",
        fullmatch=True,
    )
    | st.text(max_size=12)
)
def test_a_column_reads_a_time_as_the_wire_does(text: str):
    try:
        alone: float | None = seconds(text, "timestamp")
    except InvalidInput:
        alone = None
    frame = pl.DataFrame({"t": [text]}, schema={"t": pl.String})
    (column,) = frame.select(seconds_of_column("t", pl.String(), Path("a.csv"))).to_series()
    numbers = frame["t"].str.strip_chars().cast(pl.Float64, strict=False)
    if numbers[0] is None:  # in a file, a number may be text
        assert column == pytest.approx(alone, abs=1e-6)


def test_rows_that_cant_be_used_are_counted_by_reason(tmp_path: Path):
    good: dict[str, Any] = {
        "user_id": "u",
        "item_id": "i",
        "timestamp": "100",
        "event": "view",
        "value": "1",
    }
    bad: dict[str, dict[str, Any]] = {
        "user_id is missing": {"user_id": None},
        "item_id is missing": {"item_id": ""},
        "user_id is longer than 256 characters": {"user_id": "u" * 257},
        "session_id is longer than 256 characters": {"session_id": "s" * 257},
        "event is missing": {"event": None},
        "event is longer than 64 characters": {"event": "e" * 65},
        "timestamp is missing": {"timestamp": None},
        "timestamp is not a time": {"timestamp": "soon"},
        "timestamp is before 1970": {"timestamp": "1969-12-31"},
        "timestamp is in the future": {"timestamp": str(NOW + 301)},
        "value is not a number": {"value": "PG-13"},
        "value is not finite": {"value": "inf"},
        "value is not finite in single precision": {"value": "-1e308"},
    }
    lines = [good, *({**good, **fields} for fields in bad.values()), {**good, "value": None}]
    frame = pl.DataFrame(lines, schema=dict.fromkeys([*good, "session_id"], pl.String))
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        rows = read(frame, tmp_path, name)
        assert rows.skipped == dict.fromkeys(bad, 1)
        assert list(rows.first_skipped.items()) == [(why, n) for n, why in enumerate(bad, 2)]
        assert rows.index.tolist() == [0, len(lines) - 1]


def test_a_file_without_a_row_to_use_says_why(tmp_path: Path):
    columns = {"user_id": [1, 2, 3], "item_id": [1, 2, None], "timestamp": ["x", "y", "1"]}
    with pytest.raises(UnreadableFile, match=r"2 rows: timestamp is not a time, 1 rows: item_id"):
        read(columns, tmp_path)


def test_a_file_without_rows_is_empty(tmp_path: Path):
    rows = read(ROWS.clear(), tmp_path)
    assert len(rows) == 0
    assert rows.events() == []
    assert rows.user_ids == []


@pytest.mark.parametrize("name", FORMATS)
def test_aliases_and_the_type_of_rows_without_an_event(tmp_path: Path, name: str):
    columns: dict[str, Any] = {"user_id": [1], "item_id": [2], "timestamp": [3]}
    (viewed,) = read(columns, tmp_path, name).events()
    assert (viewed.type, viewed.value) == ("view", None)
    (rated,) = read({**columns, "rating": [4.0], "basket_id": [8]}, tmp_path, name).events()
    assert (rated.type, rated.value, rated.session_id) == ("rating", 4.0, "8")
    both = {**columns, "rating": [4.0], "value": [5.0]}
    assert read(both, tmp_path, name).events()[0].value == 5.0
    mapped = read(both, tmp_path, name, mapping={"value": "rating"})
    assert mapped.events()[0].value == 4.0


@pytest.mark.parametrize("name", FORMATS)
def test_rows_without_a_user_may_have_an_anonymous_id(tmp_path: Path, name: str):
    columns = {
        "user_id": ["ann", None, None],
        "anonymous_id": [None, "7", None],
        "item_id": [1, 2, 3],
        "timestamp": [1, 2, 3],
    }
    rows = read(columns, tmp_path, name)
    assert [(one.user_id, one.anonymous) for one in rows.events()] == [
        ("ann", False),
        ("anon:7", True),
    ]
    assert rows.skipped == {"user_id is missing": 1}
    del columns["user_id"]
    assert ids(read(columns, tmp_path, name)) == [("anon:7", "2")]


def test_a_stream_of_sessions_has_a_user_for_each(tmp_path: Path):
    columns = {"session_id": ["a", "b", "a"], "item_id": [1, 2, 3], "timestamp": [1, 2, 3]}
    rows = read(columns, tmp_path)
    assert ids(rows) == [("a", "1"), ("b", "2"), ("a", "3")]
    assert [one.session_id for one in rows.events()] == ["a", "b", "a"]


def test_users_are_not_made_of_sessions_where_there_are_users(tmp_path: Path):
    columns = {
        "user_id": ["u", None],
        "session_id": ["a", "b"],
        "item_id": [1, 2],
        "timestamp": [1, 2],
    }
    rows = read(columns, tmp_path)
    assert ids(rows) == [("u", "1")]
    assert rows.skipped == {"user_id is missing": 1}


def test_anonymous_users_stay_anonymous(tmp_path: Path):
    rows = read({"user_id": ["anon:1", "1"], "item_id": [1, 1], "timestamp": [1, 2]}, tmp_path)
    assert [one.anonymous for one in rows.events()] == [True, False]


def test_unknown_types_are_kept_with_a_warning(tmp_path: Path):
    columns = {"user_id": [1, 2, 3], "item_id": [1, 2, 3], "timestamp": [1, 2, 3]}
    rows = read({**columns, "event": ["share", "view", "share"]}, tmp_path)
    assert [one.type for one in rows.events()] == ["share", "view", "share"]
    (warning,) = rows.warnings
    assert "share is unknown: 2 events" in warning
    assert "[events.share]" in warning
    known = read({**columns, "event": ["share"] * 3}, tmp_path, event_types={"share"})
    assert known.warnings == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_column_named_as_on_the_wire_is_pointed_at(tmp_path: Path, name: str):
    columns = {"user_id": [1], "item_id": [1], "timestamp": [1], "type": ["click"]}
    rows = read(columns, tmp_path, name)
    assert (rows.type_names, len(rows.warnings)) == (["view"], 1)
    assert "--map event=type" in rows.warnings[0]
    mapped = read(columns, tmp_path, name, mapping={"event": "type"})
    assert (mapped.type_names, mapped.warnings) == (["click"], [])


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_column_is_named_with_the_option_that_helps(tmp_path: Path, name: str):
    columns = {"customerId": [1], "productId": [2], "timestamp": [3], "rating": [4.0]}
    with pytest.raises(UnreadableFile) as caught:
        read(columns, tmp_path, name)
    message = str(caught.value)
    assert f"{tmp_path / name} has no column user_id and no column item_id" in message
    assert "--map user_id=customerId --map item_id=productId" in message
    assert "columns: customerId, productId, timestamp, rating" in message
    rows = read(columns, tmp_path, name, mapping={"user_id": "customerId", "item_id": "productId"})
    assert ids(rows) == [("1", "2")]


def test_a_mapping_names_a_field_and_a_column_that_exist(tmp_path: Path):
    with pytest.raises(InvalidInput, match="there is no field user; fields: user_id"):
        read(ROWS, tmp_path, mapping={"user": "user_id"})
    with pytest.raises(UnreadableFile, match="no column uid, which --map user_id=uid names"):
        read(ROWS, tmp_path, mapping={"user_id": "uid"})


def test_other_fields_of_json_may_hold_anything(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"user_id": 1, "item_id": "a", "timestamp": 1, "context": {"a": 1}}\n\n'
        '{"user_id": "2", "item_id": 7, "timestamp": "1970-01-01T00:00:02Z", "context": [1]}\n'
    )
    assert ids(read_interactions(path)) == [("1", "a"), ("2", "7")]


@pytest.mark.parametrize("broken", ["", "{"])
def test_only_integers_and_strings_of_json_are_ids(tmp_path: Path, broken: str):
    given = ['{"a": 1}', "[1]", "true", "5.5", "1e-3", "5", "5.0", '"5.5"', '"[1]"', '"true"']
    lines = [f'{{"user_id": {one}, "item_id": "i", "timestamp": 1}}' for one in given]
    lines += ["", '{"user_id": "u", "item_id": {}, "timestamp": 1}', broken]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = read_interactions(tmp_path / "a.jsonl")
    assert [user for user, _ in ids(found)] == ["5", "5", "5.5", "[1]", "true"]
    assert found.skipped == {
        "user_id is neither an integer nor a string": 5,
        "item_id is neither an integer nor a string": 1,
        **({"line is not a JSON object": 1} if broken else {}),
    }
    assert found.first_skipped["item_id is neither an integer nor a string"] == 11


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.parquet", b"PAR1 not really", "can't be read"),
        ("a.csv", b"", "can't be read"),
        ("a.csv", b'user_id,item_id,timestamp\n1,2,"3\n', "no row to use"),
        ("a.csv", b"user_id,item_id,timestamp\n1,2,3,4\n", "no row to use"),
        ("a.csv", b"user_id,item_id,timestamp\n\xff,2,3\n", "no row to use"),
        ("a.jsonl", b'{"user_id": 1', "no line that is a JSON object"),
        ("a.jsonl", b"[1]\n", "no line that is a JSON object"),
        ("a.jsonl", b'{"user_id": 1}\n', "has no column"),
        ("a.txt", b"user_id,item_id,timestamp\n1,2,3\n", "told by the extension"),
        ("noextension", b"", "told by the extension"),
    ],
)
def test_a_file_that_cant_be_read_is_named(tmp_path: Path, name: str, body: bytes, message: str):
    (tmp_path / name).write_bytes(body)
    with pytest.raises(UnreadableFile, match=message) as caught:
        read_interactions(tmp_path / name)
    assert name in str(caught.value)


HEADER = b"user_id,item_id,timestamp,value\n"
GOOD = [b"u1,i1,1,5", b"u2,i2,2,4"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"u3,i3,3,4,5", "row has another number of fields than the header"),
        (b'u3,"i3,3,4', "row has a quote that isn't closed, or stands within a field"),
        (b"u3,\xff,3,4", "row is not UTF-8"),
        (b"u3,i3", "timestamp is missing"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_broken_row_is_skipped_alone(tmp_path: Path, bad: bytes, reason: str, place: int):
    rows = [*GOOD[:place], bad, *GOOD[place:]]
    (tmp_path / "a.csv").write_bytes(HEADER + b"\n".join(rows) + b"\n")
    found = read_interactions(tmp_path / "a.csv")
    assert ids(found) == [("u1", "i1"), ("u2", "i2")]
    assert found.values.tolist() == [5.0, 4.0]
    assert found.skipped == {reason: 1}
    assert found.index.tolist() == [n for n in range(3) if n != place]


def test_a_quoted_field_may_go_on_beside_a_broken_row(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(HEADER + b'u1,"i\n,""1""",1,5\nu3,i3,3,4,5\nu2,i2,2,4\n')
    found = read_interactions(tmp_path / "a.csv")
    assert ids(found) == [("u1", 'i\n,"1"'), ("u2", "i2")]


@pytest.mark.parametrize(
    "bad", [b"{", b"[1]", b"null", b'{"user_id": "\xff"}', b"x" * 9, b"[" * 9999]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_broken_line_of_json_is_skipped_alone(tmp_path: Path, bad: bytes, place: int):
    good = [b'{"user_id": 1, "item_id": "a", "timestamp": 1}']
    good += [b'{"user_id": "2", "item_id": 7, "timestamp": 2.5, "value": 4}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*good[:place], bad, *good[place:]]))
    found = read_interactions(tmp_path / "a.jsonl")
    assert ids(found) == [("1", "a"), ("2", "7")]
    assert found.timestamps.tolist() == [1.0, 2.5]
    assert found.skipped == {"line is not a JSON object": 1}


@pytest.mark.parametrize("name", FORMATS)
def test_a_flipped_bit_is_read_over_or_an_error_of_ours(tmp_path: Path, name: str):
    path = write(ROWS, tmp_path / name)
    whole = path.read_bytes()
    unreadable = 0
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        try:
            assert len(read_interactions(path)) <= len(ROWS) + 1
        except UnreadableFile:
            unreadable += 1
    # A broken line of JSON is lost alone; where another was, there is a header.
    assert unreadable > 0 or "json" in name


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_name_is_no_pattern(tmp_path: Path, suffix: str):
    assert len(read(ROWS, tmp_path, f"a[1]*.{suffix}")) == 5


def test_a_file_that_isnt_there_is_named(tmp_path: Path):
    with pytest.raises(UnreadableFile, match="there is no file"):
        read_interactions(tmp_path / "a.csv")
    with pytest.raises(UnreadableFile, match="there is no file"):
        read_interactions(tmp_path)


def test_the_shipped_stream():
    rows = read_interactions(data.path("movietweetings-100k") / "interactions.parquet")
    assert len(rows) == 100_000
    assert (len(rows.user_ids), len(rows.item_ids)) == (16_554, 10_506)
    assert rows.type_names == ["rating"]
    assert rows.skipped == {}
    assert (np.diff(rows.timestamps) >= 0).all()
    assert rows.item_ids[1] == "0444778"
