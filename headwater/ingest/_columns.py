"""Columns of files -> ids, times and numbers, as polars expressions.

Each takes the column's name, its type in the file and the file's path, and
raises ``UnreadableFile`` where a column of that type can't hold such values at
all. Single values that can't be read become null: :func:`absent` tells them from
those that aren't there.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from headwater.errors import UnreadableFile
from headwater.ingest._times import ISO, LATEST, MILLISECONDS_FROM

_DAY = 86400.0


def absent(name: str, dtype: pl.DataType) -> pl.Expr:
    """Whether there is nothing in the row: null, an empty text, or a float that is none."""
    column = pl.col(name)
    if dtype == pl.String:
        text = column.str.strip_chars().str.to_lowercase()
        return column.is_null() | text.is_in(["", "nan"])
    return column.is_null() | column.is_nan() if dtype.is_float() else column.is_null()


def id_text(name: str, dtype: pl.DataType, path: Path) -> pl.Expr:
    """Ids as text; null where there is none.

    A column that holds whole numbers as floats, as other tools write it when
    some are missing, gives whole numbers: "17850.0" is the id 17850.
    """
    column = pl.col(name)
    if dtype.is_float():
        number = column.cast(pl.Float64).fill_nan(None)
        whole = number.cast(pl.Int64, strict=False)
        return (
            pl.when((number % 1 == 0).all())
            .then(whole.cast(pl.String))
            .otherwise(number.cast(pl.String))
        )
    if dtype.is_integer() or dtype.is_decimal():
        return column.cast(pl.String)
    if not _is_text(dtype) and dtype != pl.Binary:
        raise UnreadableFile(f"{path}: column {name} holds {dtype}, which can't be ids")
    text = column.cast(pl.String)
    given = pl.when(text != "").then(text)
    floats = given.str.contains(r"^-?[0-9]+\.0$").all()
    return pl.when(floats).then(given.str.strip_suffix(".0")).otherwise(given)


def number(name: str, dtype: pl.DataType, path: Path) -> pl.Expr:
    """Numbers, infinite ones too; null where there is none or it can't be read."""
    column = pl.col(name)
    if dtype.is_numeric() or dtype == pl.Boolean or dtype == pl.Null:
        return column.cast(pl.Float64).fill_nan(None)
    if not _is_text(dtype):
        raise UnreadableFile(f"{path}: column {name} holds {dtype}, which can't be numbers")
    text = column.cast(pl.String).str.strip_chars()
    return text.cast(pl.Float64, strict=False).fill_nan(None)


def seconds(name: str, dtype: pl.DataType, path: Path) -> pl.Expr:
    """Seconds since 1970, as ``_times.seconds`` reads them one by one; null where it refuses."""
    column = pl.col(name)
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    if not dtype.is_numeric() and not _is_text(dtype):
        raise UnreadableFile(f"{path}: column {name} holds {dtype}, which can't be times")
    since = number(name, dtype, path)
    since = pl.when(since.abs() >= MILLISECONDS_FROM).then(since / 1000.0).otherwise(since)
    since = pl.when(since.abs() <= LATEST).then(since)
    return pl.coalesce(since, _iso(column.cast(pl.String))) if _is_text(dtype) else since


def ordering(name: str, dtype: pl.DataType, path: Path) -> pl.Expr:
    """Numbers of any size, or times, that put rows in order; null where there is neither."""
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return seconds(name, dtype, path)
    given = number(name, dtype, path)
    return pl.coalesce(given, seconds(name, dtype, path)) if _is_text(dtype) else given


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Categorical, pl.Null) or isinstance(dtype, pl.Enum)


def _iso(text: pl.Expr) -> pl.Expr:
    parts = text.str.extract_groups(ISO)

    def whole(part: pl.Expr) -> pl.Expr:
        return part.cast(pl.Int64, strict=False).fill_null(0)

    days = parts.struct.field("1").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32)
    hours, minutes = whole(parts.struct.field("2")), whole(parts.struct.field("3"))
    rest = parts.struct.field("4").str.replace(",", ".").cast(pl.Float64).fill_null(0.0)
    zone = parts.struct.field("5")
    ahead = whole(zone.str.slice(1, 2)) * 3600 + whole(zone.str.slice(-2, 2)) * 60
    ahead = pl.when(zone.str.starts_with("-")).then(-ahead).otherwise(ahead)
    since = days * _DAY + (hours * 3600 + minutes * 60 - ahead) + rest
    return pl.when((hours <= 23) & (minutes <= 59) & (rest < 60)).then(since)
