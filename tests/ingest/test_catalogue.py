"""Files of items: every format reads the same."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headwater import data
from headwater.errors import InvalidInput, UnreadableFile
from headwater.ingest import Items, read_items
from headwater.types import Item

ROWS = pl.DataFrame(
    {
        "item_id": ["0444778", "8", "9"],
        "title": ["Gigli", "Say it", None],
        "genres": ["Comedy|Crime", None, "Drama"],
        "price": [2.5, None, 10.0],
        "year": [2003, 1989, None],
        "studio": ["a", None, "b"],
    }
)
ITEMS = [
    Item(
        "0444778",
        title="Gigli",
        categories=("Comedy", "Crime"),
        price=2.5,
        attributes={"year": 2003.0, "studio": "a"},
    ),
    Item("8", title="Say it", attributes={"year": 1989.0}),
    Item("9", categories=("Drama",), price=10.0, attributes={"studio": "b"}),
]


def write(frame: pl.DataFrame, path: Path) -> Path:
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
        case ".jsonl.gz":
            path.write_bytes(gzip.compress(frame.write_ndjson().encode()))
        case other:
            raise AssertionError(other)
    return path


def read(
    columns: dict[str, Any] | pl.DataFrame,
    folder: Path,
    name: str = "a.parquet",
    **options: Any,
) -> Items:
    frame = columns if isinstance(columns, pl.DataFrame) else pl.DataFrame(columns)
    return read_items(write(frame, folder / name), **options)


def only(items: Items) -> Item:
    (item,) = items
    return item


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.jsonl.gz"]
)
def test_every_format_reads_the_same(tmp_path: Path, name: str):
    read_in = read(ROWS, tmp_path, name)
    assert read_in.items == ITEMS
    assert list(read_in) == ITEMS
    assert len(read_in) == 3
    assert read_in.skipped == {}


def test_recboles_items(tmp_path: Path):
    (tmp_path / "a.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\t"
        "cast:token_seq\tlength:float\tposter:float_seq\n"
        '1\t"Toy" Story\t1995\tAnimation Comedy\tHanks Allen\t81\t0.5 -1 2e-1\n'
        "2\tHeat\t\t\t\t\t\n"
        "3\tSabrina\t\tComedy\t\t\t0.5 one 2\n"
    )
    found = read_items(tmp_path / "a.item")
    assert found.items == [
        Item(
            "1",
            title='"Toy" Story',
            categories=("Animation", "Comedy"),
            attributes={"release_year": "1995", "cast": ["Hanks", "Allen"], "length": 81.0},
            vectors={"poster": [0.5, -1.0, 0.2]},
        ),
        Item("2", title="Heat"),
    ]
    ((reason, count),) = found.skipped.items()
    assert (reason, count) == ("vectors must hold a number, not null", 1)
    mapping = {"title": "release_year", "categories": "cast"}
    first = read_items(tmp_path / "a.item", mapping=mapping).items[0]
    assert (first.title, first.categories) == ("1995", ("Hanks", "Allen"))
    assert first.attributes["class"] == ["Animation", "Comedy"]


def test_lines_as_they_are_on_the_wire(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"item_id": 5, "categories": ["a", "b"], "tags": "x|y", "available": false,'
        ' "attributes": {"brand": "Acme"}, "vectors": {"image": [1, 2]}, "published_at": 86400}\n'
        '{"item_id": "6", "embedding": [0.5, 1], "colours": ["red"], "nested": {"a": 1},'
        ' "cordless": true, "empty": "", "none": null}\n'
    )
    assert read_items(path).items == [
        Item(
            "5",
            categories=("a", "b"),
            tags=("x", "y"),
            attributes={"brand": "Acme"},
            vectors={"image": [1.0, 2.0]},
            published_at=86_400.0,
            available=False,
        ),
        Item(
            "6",
            vectors={"embedding": [0.5, 1.0]},
            attributes={"colours": ["red"], "cordless": True},
        ),
    ]


def test_columns_of_every_type(tmp_path: Path):
    frame = pl.DataFrame(
        {
            "item_id": [7],
            "category": pl.Series(["b"], dtype=pl.Categorical),
            "department": [["c", "a"]],
            "tags": [12],
            "title": [1984],
            "embedding": pl.Series([[1, 2]], dtype=pl.Array(pl.Int8, 2)),
            "labels": [["x", "y"]],
            "on_sale": [True],
            "size": pl.Series(["L"], dtype=pl.Enum(["L"])),
            "first_seen": [date(2026, 1, 31)],
            "published_at": [date(1970, 1, 2)],
            "available": [0],
            "huge": [float("inf")],
            "attributes": [{"brand": "Acme"}],
            "other": [{"ignored": 1}],
        }
    )
    assert only(read(frame, tmp_path)) == Item(
        "7",
        title="1984",
        categories=("b", "c", "a"),
        tags=("12",),
        attributes={
            "labels": ["x", "y"],
            "on_sale": True,
            "size": "L",
            "first_seen": "2026-01-31",
            "brand": "Acme",
        },
        vectors={"embedding": [1.0, 2.0]},
        published_at=86_400.0,
        available=False,
    )


@pytest.mark.parametrize(("text", "available"), [("true", True), ("False", False), ("0", False)])
def test_availability_as_text(tmp_path: Path, text: str, available: bool):
    items = read({"item_id": ["1"], "available": [text]}, tmp_path, "a.csv")
    assert only(items).available is available


def test_codes_of_digits_stay_text(tmp_path: Path):
    columns = {"item_id": ["1", "2"], "imdb": ["0114709", "99"], "isbn": ["1", "X"], "n": ["1", ""]}
    first, second = read(columns, tmp_path, "a.csv")
    assert first.attributes == {"imdb": "0114709", "isbn": "1", "n": 1.0}
    assert second.attributes == {"imdb": "99", "isbn": "X"}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_the_ids_of_items_and_of_interactions_are_written_alike(tmp_path: Path, name: str):
    for ids in ([5, 17850], ["5", "17850"]):
        assert [item.item_id for item in read({"item_id": ids}, tmp_path, name)] == ["5", "17850"]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_rows_that_cant_be_used_are_counted_by_reason(tmp_path: Path, name: str):
    columns = {
        "item_id": ["1", None, "3", "4", "5"],
        "price": ["1", "2", "cheap", "inf", None],
        "published_at": ["2026-01-31", None, None, None, "soon"],
    }
    items = read(columns, tmp_path, name)
    assert [item.item_id for item in items] == ["1"]
    assert items.skipped == {
        "item_id is missing": 1,
        "price is not a finite number": 2,
        "published_at is not a time, or out of range; send epoch seconds or milliseconds": 1,
    }


def test_a_file_without_a_row_to_use_says_why(tmp_path: Path):
    with pytest.raises(UnreadableFile, match="2 rows: item_id is missing"):
        read({"item_id": ["", None]}, tmp_path)


def test_a_vector_of_another_dimension_is_skipped_with_its_row(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"item_id": 1, "image": [1, 2, 3]}\n{"item_id": 2, "image": [1, 2]}\n'
        '{"item_id": 3, "image": [4, 5, 6]}\n'
    )
    found = read_items(path)
    assert [item.item_id for item in found] == ["1", "3"]
    ((reason, count),) = found.skipped.items()
    assert (count, reason.partition(",")[0]) == (1, "vectors image has 2 numbers")


def test_a_mapping_moves_columns(tmp_path: Path):
    columns = {"sku": [1], "genres": ["a"], "department": ["b|c"], "name": ["Kettle"]}
    mapping = {"item_id": "sku", "categories": "department", "title": "name"}
    assert only(read(columns, tmp_path, mapping=mapping)) == Item(
        "1", title="Kettle", categories=("b", "c"), attributes={"genres": "a"}
    )
    with pytest.raises(UnreadableFile, match="--map item_id=sku"):
        read(columns, tmp_path)
    with pytest.raises(InvalidInput, match="no field name; fields: item_id, title"):
        read(columns, tmp_path, mapping={"name": "name"})


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.parquet", b"nothing"),
        ("a.csv", b""),
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b""),
        ("a.jsonl.gz", b"not compressed"),
        ("a.xlsx", b""),
    ],
)
def test_a_file_that_cant_be_read_is_named(tmp_path: Path, name: str, body: bytes):
    (tmp_path / name).write_bytes(body)
    with pytest.raises(UnreadableFile) as caught:
        read_items(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("bad", [b'{"item_id": ', b"[1]", b'{"item_id": "\xff"}'])
def test_a_broken_line_of_json_is_skipped_alone(tmp_path: Path, bad: bytes):
    (tmp_path / "a.jsonl").write_bytes(b'{"item_id": 1}\n\n' + bad + b'\n{"item_id": 2}\n')
    items = read_items(tmp_path / "a.jsonl")
    assert [item.item_id for item in items] == ["1", "2"]
    assert items.skipped == {"line is not a JSON object": 1}


def test_a_ragged_row_is_skipped_alone(tmp_path: Path):
    (tmp_path / "a.csv").write_text("item_id,title\n1,Alien\n2,Good, Bad\n3,Up\n")
    items = read_items(tmp_path / "a.csv")
    assert [(item.item_id, item.title) for item in items] == [("1", "Alien"), ("3", "Up")]
    assert items.skipped == {"row has another number of fields than the header": 1}


def test_the_shipped_catalogue():
    items = read_items(data.path("movietweetings-100k") / "items.parquet")
    assert len(items) == 10_506
    assert items.skipped == {}
    assert all(item.title for item in items)
    assert items.items[1] == Item(
        "0004936",
        title="The Bank (1915)",
        categories=("Comedy", "Short"),
        attributes={"year": 1915.0},
    )
