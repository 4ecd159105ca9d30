"""How good the live model's lists were for each of the newest events, for whoever compares.

Not a log of its own truth: the trainer writes down what it measured of a micro-batch, and
writes the same again where it learns the batch again. A file that is lost costs a comparison
its newest events.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec
import numpy as np
import structlog

from headwater.errors import LogError
from headwater.log._database import Readers, Schema, abandon, connect, create, explained
from headwater.types import Doubles, Longs, Pace

_GAINS = Schema(
    kind="a log of gains",
    application_id=0x48574741,
    statements=(
        """CREATE TABLE gains(
            through INTEGER PRIMARY KEY,
            first INTEGER NOT NULL,
            epoch INTEGER NOT NULL,
            pace BLOB NOT NULL,
            offsets BLOB NOT NULL,
            gains BLOB NOT NULL)""",
    ),
)

KEPT = 200_000
"""Newest offsets that are told of, 16 bytes for each prediction."""


class Gains(NamedTuple):
    """A micro-batch that the live model was tested on: its first and its last offset, what each of
    its n predictions gained, and what it got.
    """

    first: int
    through: int
    epoch: int
    offsets: Longs  # (n,)
    values: Doubles  # (n,)
    pace: Pace | None = None


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except LogError as error:
        structlog.get_logger().warning("gains were not written", reason=str(error))


class GainsLog:
    """Gains by micro-batch in the SQLite file at ``path``, which is made if it isn't there.

    One process writes, any may read.

    Raises:
        LogError: the file can't be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        create(path, _GAINS)
        self._path = path
        self._readers = Readers(path)
        self._connection: apsw.Connection | None = None

    def add(self, gains: Gains) -> None:
        """Appends a micro-batch, in place of what there is from its first offset on.

        Nothing waits for it to be there: where it can't be written, that is only logged.
        """
        with _logged(), explained(self._path, "append gains"):
            if self._connection is None:
                self._connection = connect(self._path, "NORMAL")
            with self._connection:
                self._connection.execute(
                    "DELETE FROM gains WHERE through >= ? OR through < ?",
                    (gains.first, gains.through - KEPT),
                )
                self._connection.execute(
                    "INSERT INTO gains VALUES(?, ?, ?, ?, ?, ?)",
                    (
                        gains.through,
                        gains.first,
                        gains.epoch,
                        msgspec.json.encode(gains.pace),
                        gains.offsets.astype("<i8").tobytes(),
                        gains.values.astype("<f8").tobytes(),
                    ),
                )

    def after(self, offset: int) -> Gains | None:
        """The first micro-batch that ends behind ``offset``; ``None`` where there is none yet."""
        with self._readers.connection() as connection:
            row = connection.execute(
                "SELECT first, through, epoch, pace, offsets, gains FROM gains WHERE through > ?"
                " ORDER BY through LIMIT 1",
                (offset,),
            ).fetchone()
        if row is None:
            return None
        first, through, epoch, pace, offsets, values = row
        return Gains(
            first,
            through,
            epoch,
            np.frombuffer(offsets, "<i8"),
            np.frombuffer(values, "<f8"),
            msgspec.json.decode(pace, type=Pace | None),
        )

    def newest(self) -> int:
        """The last offset that the live model was tested through; 0 for none."""
        with self._readers.connection() as connection:
            return int(connection.execute("SELECT max(through) FROM gains").get or 0)

    def close(self) -> None:
        abandon(self._connection)
        self._connection = None
        self._readers.close()
