"""The MovieLens files that have no header: ``u.data``, ``u.item``, ``u.user``, ``ratings.dat``,
``movies.dat`` and ``users.dat``.

The sets from 20M on are plain CSV (``ratings.csv``, ``movies.csv``).
"""

from __future__ import annotations

import datetime
from pathlib import Path

import polars as pl

from headwater.errors import UnreadableFile
from headwater.ingest._broken import FAULT, RAGGED

_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_MOVIES = ("item_id", "title", "genres")
_USERS_100K = ("user_id", "age", "gender", "occupation", "zip_code")
_USERS_1M = ("user_id", "gender", "age", "occupation", "zip_code")

# The columns of u.item from the sixth on, as its README has them.
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}


def is_movielens(path: Path) -> bool:
    """Told by the name alone: RecBole names a file after its data set, never ``u``."""
    return path.suffix in (".dat", ".data") or path.name in ("u.item", "u.user")


def open_movielens(path: Path) -> pl.LazyFrame:
    """The rows as text, under the names that other files have in their header.

    Raises:
        UnreadableFile: a ``.dat`` file that holds neither ratings, films nor users.
    """
    if path.name == "u.item":
        return _films(path)
    if path.name == "u.user":
        return _split(path, "|", _USERS_100K)
    if path.suffix == ".data":
        return _split(path, "\t", _RATINGS)
    with path.open("rb") as file:
        fields = file.readline().count(b"::") + 1
    if fields == len(_RATINGS):
        return _split(path, "::", _RATINGS)
    if fields == len(_MOVIES):
        return _titles(path)
    if fields == len(_USERS_1M):
        return _split(path, "::", _USERS_1M)
    raise UnreadableFile(
        f"{path} has {fields} fields separated by ::; ratings.dat has {len(_RATINGS)}, "
        f"movies.dat {len(_MOVIES)}, and users.dat {len(_USERS_1M)}"
    )


def _split(path: Path, separator: str, names: tuple[str, ...]) -> pl.LazyFrame:
    lines = pl.scan_csv(
        path,
        has_header=False,
        separator="\x01",  # is in no file: polars takes no separator of two characters
        quote_char=None,
        infer_schema=False,
        encoding="utf8-lossy",
        new_columns=["line"],
        glob=False,
    )
    parts = pl.col("line").str.split_exact(separator, len(names))
    fields = {name: parts.struct.field(f"field_{n}") for n, name in enumerate(names)}
    beyond = parts.struct.field(f"field_{len(names)}").is_not_null()
    missing = fields[names[-1]].is_null()
    fault = pl.when(beyond | missing).then(pl.lit(RAGGED))
    return lines.select(**fields, **{FAULT: fault})


def _titles(path: Path) -> pl.LazyFrame:
    rows = [line.split("::") for line in _text(path).splitlines() if line]
    return _frame(_MOVIES, [row if len(row) == len(_MOVIES) else None for row in rows])


def _films(path: Path) -> pl.LazyFrame:
    """``id|title|release date|video release date|URL|`` and a 0 or 1 per genre."""
    rows: list[list[str] | None] = []
    for line in _text(path).splitlines():
        parts = line.split("|")
        if not line:
            continue
        if len(parts) != 5 + len(_GENRES):
            rows.append(None)
            continue
        genres = [name for name, flag in zip(_GENRES[1:], parts[6:], strict=True) if flag == "1"]
        rows.append([parts[0], parts[1], "|".join(genres), _released(parts[2])])
    return _frame((*_MOVIES, "published_at"), rows)


def _released(text: str) -> str:
    """``01-Jan-1995`` as ISO has it; what is no such date is left as it is, and refused by name."""
    day, _, rest = text.partition("-")
    month, _, year = rest.partition("-")
    try:
        return datetime.date(int(year), _MONTHS[month], int(day)).isoformat()
    except (KeyError, ValueError):
        return text


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _frame(names: tuple[str, ...], rows: list[list[str] | None]) -> pl.LazyFrame:
    columns = {
        name: [None if row is None else row[place] or None for row in rows]
        for place, name in enumerate(names)
    }
    faults = [RAGGED if row is None else None for row in rows]
    schema = dict.fromkeys((*names, FAULT), pl.String)
    return pl.DataFrame({**columns, FAULT: faults}, schema=schema).lazy()
