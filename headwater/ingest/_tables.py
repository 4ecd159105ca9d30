"""Files of rows, whatever their format: which columns there are, and which holds which field."""

from __future__ import annotations

import glob
import gzip
import re
import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import polars as pl

from headwater.errors import InvalidInput, UnreadableFile
from headwater.ingest import _broken
from headwater.ingest._broken import FAULT
from headwater.ingest._movielens import is_movielens, open_movielens

_ATOMIC = (".inter", ".item", ".user")
_SEPARATORS = {".csv": ",", ".tsv": "\t", **dict.fromkeys(_ATOMIC, "\t")}
_PARQUET = (".parquet", ".pq")
_JSON_LINES = (".jsonl", ".ndjson")
_COMPRESSED = ".gz"

_BROKEN = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,  # a Parquet file with a flipped bit
    OSError,
    UnicodeDecodeError,
    EOFError,
    zlib.error,
)

# What columns of a field are often called: for the remedy when one is missing, never to guess.
_LIKELY = {
    "user_id": ("user", "customer", "visitor", "household", "member", "account", "uid"),
    "item_id": ("item", "product", "movie", "article", "track", "book", "sku", "asin", "iid"),
    "timestamp": ("time", "date", "created", "ts"),
}


@dataclass(slots=True)
class Table:
    """A file that is opened, but not read yet.

    ``columns`` maps a column's name, as people say it, to its name in
    ``frame``; ``kinds`` has the type that an atomic file's header gives it: ``token``,
    ``float``, or several of them in a value, separated by spaces (``token_seq``,
    ``float_seq``). In ``textual`` formats every value is text.
    """

    path: Path
    frame: pl.LazyFrame
    columns: dict[str, str]
    kinds: dict[str, str]
    textual: bool

    def read(self, columns: Mapping[str, str]) -> pl.DataFrame:
        """The columns ``name -> column``, and ``FAULT``: why a row can't be taken apart.

        Call it within ``readable``.
        """
        chosen = {name: pl.col(self.columns[column]) for name, column in columns.items()}
        try:
            there = self.frame.collect_schema().names()
            fault = pl.col(FAULT) if FAULT in there else pl.lit(None, pl.String)
            return self.frame.select(**chosen, **{FAULT: fault}).collect()
        except pl.exceptions.ComputeError:
            if not self.textual:
                raise
            return _slowly(self.path, list(self.columns.values())).select(
                **chosen, **{FAULT: pl.col(FAULT)}
            )


def suffix(path: Path) -> str:
    """The extension that tells the format, past a compression's own."""
    parts = [part.lower() for part in path.suffixes]
    if parts and parts[-1] == _COMPRESSED:
        parts.pop()
    return parts[-1] if parts else ""


def is_json_lines(path: Path) -> bool:
    return suffix(path) in _JSON_LINES


def is_parquet(path: Path) -> bool:
    return suffix(path) in _PARQUET


def opened_lines(path: Path) -> IO[bytes]:
    """The lines of a file that may be compressed, as bytes."""
    if path.suffix.lower() == _COMPRESSED:
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def open_table(path: Path, wanted: Sequence[str]) -> Table:
    """Opens Parquet, CSV, TSV, JSONL or a RecBole atomic file, by its extension.

    Args:
        path: CSV, TSV, JSONL and atomic files may be compressed (``.gz``).
        wanted: the columns to look for in JSONL, which names its columns nowhere.

    Raises:
        UnreadableFile: there is no such file, or its format isn't known, or its head is corrupt.
    """
    kind = suffix(path)
    with readable(path):
        if is_movielens(path):
            frame = open_movielens(path)
            names = [name for name in frame.collect_schema().names() if name != FAULT]
            return _table(path, frame, names)
        if kind in _PARQUET:
            frame = pl.scan_parquet(path, glob=False)
            return _table(path, frame, frame.collect_schema().names())
        if kind in _SEPARATORS:
            # As text: a guessed type would take the zeros off "0444778".
            frame = pl.scan_csv(
                path,
                separator=_SEPARATORS[kind],
                infer_schema=False,
                quote_char=None if kind in _ATOMIC else '"',
                glob=False,
            )
            return _table(path, frame, frame.collect_schema().names())
        if kind in _JSON_LINES:
            # With a schema, other fields may hold anything, and mixed types within one are text.
            # Unlike the others it can't be told that the name is no pattern.
            pattern = glob.escape(str(path))
            frame = pl.scan_ndjson(pattern, schema=dict.fromkeys(wanted, pl.String))
            try:
                there = frame.select(pl.all().is_not_null().any()).collect().row(0, named=True)
            except pl.exceptions.ComputeError:
                slow = _slowly(path, wanted).drop(FAULT)
                there = slow.select(pl.all().is_not_null().any()).row(0, named=True)
            first = next((row for row in json_lines(path) if row is not None), {})
            named = [*first, *(name for name, any_ in there.items() if any_)]
            return _table(path, frame, list(dict.fromkeys(named)))
    raise UnreadableFile(
        f"{path}: the format is told by the extension, which must be one of "
        f"{', '.join((*_PARQUET, *_SEPARATORS, *_JSON_LINES))}, or .dat or .data of MovieLens"
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what may go wrong while reading into ``UnreadableFile``, with the file's name."""
    if not path.is_file():
        folder = "; it is a folder" if path.is_dir() else ""
        raise UnreadableFile(f"there is no file {path}{folder}")
    try:
        yield
    except _BROKEN as error:
        first = str(error).strip().partition("\n")[0]
        raise UnreadableFile(f"{path} can't be read: {first or type(error).__name__}") from None


def _table(path: Path, frame: pl.LazyFrame, names: Sequence[str]) -> Table:
    columns = {name: name for name in names}
    kinds: dict[str, str] = {}
    if suffix(path) in _ATOMIC and not is_movielens(path):
        # Headers of atomic files say the type too: `user_id:token`.
        split = {name: name.partition(":") for name in names}
        columns = {said: name for name, (said, _, _) in split.items()}
        kinds = {said: kind for said, _, kind in split.values()}
    textual = suffix(path) not in _PARQUET
    return Table(path, frame, columns, kinds, textual)


def assign(
    path: Path,
    columns: Sequence[str],
    fields: Mapping[str, Sequence[str]],
    mapping: Mapping[str, str] | None,
) -> dict[str, list[str]]:
    """Which columns hold each field: those that ``mapping`` names, else the first by alias.

    Args:
        path: for messages.
        columns: the file's.
        fields: each field with its aliases, its own name not among them.
        mapping: field -> column, as ``--map`` gives it.

    Returns:
        field -> every column of that name or alias, its own name first; fields without a column
        are left out.

    Raises:
        InvalidInput: ``mapping`` names a field that doesn't exist.
        UnreadableFile: ``mapping`` names a column that isn't there.
    """
    given = mapping or {}
    for field, column in given.items():
        if field not in fields:
            raise InvalidInput(
                "--map", f"{field}={column}: there is no field {field}; fields: {', '.join(fields)}"
            )
        if column not in columns:
            raise UnreadableFile(
                f"{path} has no column {column}, which --map {field}={column} names; "
                f"columns: {', '.join(columns)}"
            )
    found: dict[str, list[str]] = {}
    for field, aliases in fields.items():
        names = [given[field]] if field in given else [field, *aliases]
        held = [name for name in names if name in columns]
        if held:
            found[field] = held
    return found


def require(
    path: Path,
    columns: Sequence[str],
    found: Mapping[str, object],
    *fields: str,
    otherwise: str = "",
) -> None:
    """Raises ``UnreadableFile`` with what would help when a field has no column.

    Args:
        path: for messages.
        columns: the file's.
        found: the fields that have one.
        fields: those that are needed.
        otherwise: what else the file may be, where no column looks like a missing field.
    """
    missing = [field for field in fields if field not in found]
    if not missing:
        return
    if not columns and is_json_lines(path):
        raise UnreadableFile(f"{path} has no line that is a JSON object; JSONL has one on each")
    no_column = f"{path} has no column {' and no column '.join(missing)}; "
    if len(columns) == 1 and (other := _OTHER_SEPARATORS.search(columns[0])):
        raise UnreadableFile(
            f"{no_column}its first line is {columns[0]!r}: a {suffix(path)} file has its columns "
            f"separated by {_SEPARATOR_NAMES[_SEPARATORS[suffix(path)]]}, not by {other[0]!r}"
        )
    likely = [_likely(field, columns) for field in missing]
    options = " ".join(
        f"--map {shlex.quote(f'{field}={column}')}"
        for field, column in zip(missing, likely, strict=True)
    )
    unlike = set(likely) == {_COLUMN}
    headless = unlike and suffix(path) in _SEPARATORS
    options += otherwise if unlike else ""
    raise UnreadableFile(
        f"{no_column}columns{' by its first line' if headless else ''}: "
        f"{', '.join(columns) or 'none'}; say which one it is with {options}"
    )


_COLUMN = "COLUMN"
"""Stands in a remedy for a column that nothing is known of."""

_SEPARATOR_NAMES = {",": "commas", "\t": "tabs"}
_OTHER_SEPARATORS = re.compile("[,;|\t]")


def _likely(field: str, columns: Sequence[str]) -> str:
    for word in _LIKELY.get(field, ()):
        for column in columns:
            if word in column.lower():
                return column
    return _COLUMN


def listed(skipped: Mapping[str, int]) -> str:
    """Counts by reason, for a message: "3 rows: user_id is missing"."""
    return ", ".join(f"{count} rows: {reason}" for reason, count in skipped.items())


def json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects of a JSONL file, one by one; ``None`` in place of a line that is none."""
    with readable(path), opened_lines(path) as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield None


def _slowly(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """A file of text that holds a broken line, as text."""
    if is_json_lines(path):
        return _broken.json_lines(json_lines(path), columns)
    with opened_lines(path) as lines:
        kind = suffix(path)
        return _broken.separated(lines, _SEPARATORS[kind], quoted=kind not in _ATOMIC)
