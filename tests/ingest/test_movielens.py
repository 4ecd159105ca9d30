"""The MovieLens files as they come, each in its own format."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.errors import UnreadableFile
from headwater.ingest import read_interactions, read_items
from headwater.types import Item

RATINGS = {
    "ratings.dat": b"1::1193::5::978300760\n2::661::3.5::978302109\n",
    "u.data": b"1\t1193\t5\t978300760\n2\t661\t3.5\t978302109\n",
    "ratings.csv": b"userId,movieId,rating,timestamp\n1,1193,5.0,978300760\n2,661,3.5,978302109\n",
}
RAGGED = {
    "ratings.dat": b"3::4::5\n",
    "u.data": b"3\t4\t5\t6\t7\n",
    "ratings.csv": b"3,4,5,6,7\n",
}
FLAGS = b"0|0|0|1|1|1" + b"|0" * 13
MOVIES = {
    "movies.dat": b"1::Toy Story (1995)::Animation|Children's|Comedy\n"
    b"2::Mis\xe9rables, Les (1995)::\n",
    "movies.csv": "movieId,title,genres\n1,Toy Story (1995),Animation|Children's|Comedy\n"
    '2,"Misérables, Les (1995)",(no genres listed)\n'.encode(),
    "u.item": b"1|Toy Story (1995)|01-Jan-1995||http://x/|" + FLAGS + b"\n"
    b"2|Mis\xe9rables, Les (1995)|||http://y/|1" + b"|0" * 18 + b"\n",
}


@pytest.mark.parametrize("name", RATINGS)
def test_ratings(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(RATINGS[name])
    found = read_interactions(tmp_path / name)
    assert [(e.user_id, e.item_id, e.value, e.timestamp, e.type) for e in found.events()] == [
        ("1", "1193", 5.0, 978300760.0, "rating"),
        ("2", "661", 3.5, 978302109.0, "rating"),
    ]
    assert (found.skipped, found.warnings) == ({}, [])


@pytest.mark.parametrize("name", RATINGS)
def test_a_ragged_rating_is_skipped_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(RATINGS[name] + RAGGED[name])
    found = read_interactions(tmp_path / name)
    assert len(found) == 2
    assert found.skipped == {"row has another number of fields than the header": 1}


@pytest.mark.parametrize("name", MOVIES)
def test_films(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MOVIES[name])
    items = read_items(tmp_path / name)
    released = 788918400.0 if name == "u.item" else None
    genres = ("Animation", "Children's", "Comedy")
    assert items.items == [
        Item("1", title="Toy Story (1995)", categories=genres, published_at=released),
        Item("2", title="Misérables, Les (1995)"),
    ]
    assert items.skipped == {}


@pytest.mark.parametrize("name", ["movies.dat", "u.item"])
def test_a_ragged_film_is_skipped_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MOVIES[name] + b"3::x|y\n")
    items = read_items(tmp_path / name)
    assert len(items) == 2
    assert items.skipped == {"row has another number of fields than the header": 1}


def test_an_unknown_dat_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users.dat").write_bytes(b"1::F::1::10::48067::more\n")
    with pytest.raises(UnreadableFile, match=r"6 fields.*ratings\.dat has 4"):
        read_interactions(tmp_path / "users.dat")
