"""Files of users -> ``User``: what import reads with ``--users``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from headwater.ingest import _columns
from headwater.ingest._described import checked_rows, described_rows
from headwater.ingest._fields import convert
from headwater.ingest._tables import Table
from headwater.ingest._users import WireUser, checked_user
from headwater.types import User

_FIELDS: dict[str, tuple[str, ...]] = {"user_id": ("userId",)}


@dataclass
class Users:
    """The users of a file in its order; by reason, how many rows couldn't be used, and which was
    the first of these, from 1.
    """

    users: list[User]
    skipped: dict[str, int]
    first_skipped: dict[str, int]

    def __iter__(self) -> Iterator[User]:
        return iter(self.users)

    def __len__(self) -> int:
        return len(self.users)


def read_users(path: Path, *, mapping: Mapping[str, str] | None = None) -> Users:
    """Reads Parquet, CSV, TSV, JSONL, a RecBole ``.user`` file, or MovieLens' users.

    ``user_id`` has a column; every other one is an attribute, unless it holds lists of numbers
    or something nested, which is left out. A line of JSONL may also be a user as it is on the
    wire.

    Args:
        path: the extension tells the format.
        mapping: ``{"user_id": column}``, over name and alias.

    Raises:
        UnreadableFile: the file isn't there, is corrupt, has no column of user ids or no row to
            use; the message says what would help.
        InvalidInput: ``mapping`` names no field.
    """
    rows, found = described_rows(path, _FIELDS, mapping, _id)
    columns = found["user_id"]
    return Users(
        *checked_rows(
            path,
            rows,
            lambda row: checked_user(convert(_wire_form(row, columns), WireUser, "user"), None),
        )
    )


def _id(name: str, dtype: pl.DataType, _: str, table: Table) -> pl.Expr:
    return _columns.id_text(name, dtype, table.path)


def _wire_form(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The row as a user on the wire."""
    attributes: dict[str, Any] = {}
    for name, value in row.items():
        if name in columns or value is None or value == "" or value == []:
            continue
        if name == "attributes" and isinstance(value, dict):
            attributes.update(value)
        elif not isinstance(value, dict) and _is_attribute(value):
            attributes[name] = value
    return {"user_id": row.get(columns[0]), "attributes": attributes}


def _is_attribute(value: Any) -> bool:
    return not isinstance(value, list) or any(isinstance(one, str) for one in value)
