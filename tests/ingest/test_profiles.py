"""Files of users."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headwater.errors import InvalidInput, UnreadableFile
from headwater.ingest import Users, read_users
from headwater.types import User

ROWS = {"user_id": [5, 6], "plan": ["gold", None], "age": [41, 7]}
USERS = [User("5", {"plan": "gold", "age": 41.0}), User("6", {"age": 7.0})]


def read(columns: Any, folder: Path, name: str = "a.parquet", **options: Any) -> Users:
    frame = columns if isinstance(columns, pl.DataFrame) else pl.DataFrame(columns)
    path = folder / name
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="," if path.suffix == ".csv" else "\t")
    return read_users(path, **options)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv", "a.jsonl"])
def test_every_format_reads_the_same(tmp_path: Path, name: str):
    found = read(ROWS, tmp_path, name)
    assert found.users == list(found) == USERS
    assert len(found) == 2
    assert found.skipped == {}


def test_recboles_users(tmp_path: Path):
    (tmp_path / "ml.user").write_text(
        "user_id:token\tage:float\tzip_code:token\tlikes:token_seq\n1\t24\t85711\ta b\n2\t\t\t\n"
    )
    assert read_users(tmp_path / "ml.user").users == [
        User("1", {"age": 24.0, "zip_code": "85711", "likes": ["a", "b"]}),
        User("2"),
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [("u.user", "1|24|M|technician|08571"), ("users.dat", "1::M::24::technician::08571")],
)
def test_movielens_users(tmp_path: Path, name: str, line: str):
    (tmp_path / name).write_text(f"{line}\n{line.replace('1', '2', 1)}\nno user\n")
    found = read_users(tmp_path / name)
    known: dict[str, Any] = {
        "age": 24.0,
        "gender": "M",
        "occupation": "technician",
        "zip_code": "08571",
    }
    assert found.users == [User("1", known), User("2", known)]
    assert found.skipped == {"row has another number of fields than the header": 1}


def test_lines_as_they_are_on_the_wire(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(
        '{"user_id": 5, "attributes": {"plan": "gold", "likes": ["tea"]}}\n'
        '{"user_id": "b", "vip": true, "scores": [1, 2], "nested": {"a": 1}, "empty": ""}\n'
        '{"user_id": \n'
        '{"user_id": "c", "attributes": {"deep": {"a": 1}}}\n'
    )
    found = read_users(tmp_path / "a.jsonl")
    assert found.users == [
        User("5", {"plan": "gold", "likes": ["tea"]}),
        User("b", {"vip": True}),
    ]
    assert found.skipped.pop("line is not a JSON object") == 1
    ((reason, count),) = found.skipped.items()
    assert count == 1
    assert "attributes" in reason


def test_columns_of_every_type(tmp_path: Path):
    frame = pl.DataFrame(
        {
            "userId": [7],
            "likes": [["tea", "cake"]],
            "vip": [True],
            "since": [date(2026, 1, 31)],
            "embedding": pl.Series([[1, 2]], dtype=pl.Array(pl.Int8, 2)),
            "attributes": [{"plan": "gold"}],
            "other": [{"ignored": 1}],
            "huge": [float("inf")],
        }
    )
    assert read(frame, tmp_path).users == [
        User("7", {"likes": ["tea", "cake"], "vip": True, "since": "2026-01-31", "plan": "gold"})
    ]


def test_rows_that_cant_be_used_are_counted_by_reason(tmp_path: Path):
    columns: dict[str, Any] = {
        "user_id": ["a", None, "x" * 257],
        "plan": ["p" * 10_001, "gold", "gold"],
    }
    with pytest.raises(UnreadableFile, match="1 rows: user_id is missing"):
        read(columns, tmp_path)
    columns["plan"][0] = "gold"
    found = read(columns, tmp_path)
    assert found.users == [User("a", {"plan": "gold"})]
    assert sum(found.skipped.values()) == 2
    assert found.skipped["user_id is missing"] == 1


def test_a_mapping_moves_the_id(tmp_path: Path):
    columns = {"customer": [1], "user_id": ["not this"]}
    assert read(columns, tmp_path, mapping={"user_id": "customer"}).users == [
        User("1", {"user_id": "not this"})
    ]
    with pytest.raises(UnreadableFile, match="--map user_id=customer"):
        read({"customer": [1]}, tmp_path)
    with pytest.raises(InvalidInput, match="no field plan; fields: user_id"):
        read(columns, tmp_path, mapping={"plan": "customer"})
