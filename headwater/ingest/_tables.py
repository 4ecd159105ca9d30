"""Files of rows, whatever their format: which columns there are, and which holds which field."""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl

from headwater.errors import InvalidInput, UnreadableFile

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t"}
_ATOMIC = (".inter", ".item")
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
    ``frame``; ``sequences`` are those that hold several words, separated by spaces
    (RecBole's ``token_seq``). In ``textual`` formats every value is text.
    """

    path: Path
    frame: pl.LazyFrame
    columns: dict[str, str]
    sequences: frozenset[str]
    textual: bool


def suffix(path: Path) -> str:
    """The extension that tells the format, past a compression's own."""
    parts = [part.lower() for part in path.suffixes]
    if parts and parts[-1] == _COMPRESSED:
        parts.pop()
    return parts[-1] if parts else ""


def is_json_lines(path: Path) -> bool:
    return suffix(path) in _JSON_LINES


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
            there = frame.select(pl.all().is_not_null().any()).collect().row(0, named=True)
            named = [*next(json_lines(path), {}), *(name for name, any_ in there.items() if any_)]
            return _table(path, frame, list(dict.fromkeys(named)))
    raise UnreadableFile(
        f"{path}: the format is told by the extension, which must be one of "
        f"{', '.join((*_PARQUET, *_SEPARATORS, *_JSON_LINES))}"
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what may go wrong while reading into ``UnreadableFile``, with the file's name."""
    if not path.is_file():
        raise UnreadableFile(f"there is no file {path}")
    try:
        yield
    except _BROKEN as error:
        first = str(error).strip().partition("\n")[0]
        raise UnreadableFile(f"{path} can't be read: {first or type(error).__name__}") from None


def _table(path: Path, frame: pl.LazyFrame, names: Sequence[str]) -> Table:
    columns = {name: name for name in names}
    sequences: frozenset[str] = frozenset()
    if suffix(path) in _ATOMIC:
        # Headers of atomic files say the type too: `user_id:token`.
        columns = {name.partition(":")[0]: name for name in names}
        sequences = frozenset(
            name.partition(":")[0] for name in names if name.endswith(":token_seq")
        )
    textual = suffix(path) not in _PARQUET
    return Table(path, frame, columns, sequences, textual)


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


def require(path: Path, columns: Sequence[str], found: Mapping[str, object], *fields: str) -> None:
    """Raises ``UnreadableFile`` with the ``--map`` that would help when a field has no column."""
    missing = [field for field in fields if field not in found]
    if missing:
        options = " ".join(f"--map {field}={_likely(field, columns)}" for field in missing)
        raise UnreadableFile(
            f"{path} has no column {' and no column '.join(missing)}; "
            f"columns: {', '.join(columns) or 'none'}; say which one it is with {options}"
        )


def _likely(field: str, columns: Sequence[str]) -> str:
    for word in _LIKELY.get(field, ()):
        for column in columns:
            if word in column.lower():
                return column
    return "COLUMN"


def listed(skipped: Mapping[str, int]) -> str:
    """Counts by reason, for a message: "3 rows: user_id is missing"."""
    return ", ".join(f"{count} rows: {reason}" for reason, count in skipped.items())


def json_lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a JSONL file, one by one; ``UnreadableFile`` names a line that is none."""
    opened = gzip.open if path.suffix.lower() == _COMPRESSED else open
    with readable(path), opened(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield msgspec.json.decode(line, type=dict[str, object])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise UnreadableFile(f"{path}, line {number}, is no JSON object: {error}") from None
