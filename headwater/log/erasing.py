"""Files of logs from which something was deleted for good; nobody else may use them meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from headwater.errors import LogError
from headwater.log._database import explained


def claim(path: Path) -> None:
    """Refuses a file that is open elsewhere, in this process or another.

    Raises:
        LogError: it is in use, or no database.
    """
    with _alone(path):
        pass


def scrub(path: Path) -> None:
    """Rewrites a file without the remains of what was deleted or overwritten, its WAL included.

    Meanwhile it takes as much space again, in its folder and in that for temporary files.

    Raises:
        LogError: it is in use, or there is no space for it.
    """
    with _alone(path) as connection:
        connection.execute("VACUUM")
        # Closing would do it too, but silently not where it fails.
        busy, left, moved = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
        if busy or left != moved:
            raise LogError(f"{path}: its write-ahead log can't be emptied; try again")


@contextmanager
def _alone(path: Path) -> Iterator[apsw.Connection]:
    with explained(path, "have it alone; stop every process that uses it, or"):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            # Every connection to a WAL holds a shared lock, which this one doesn't get past.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
            yield connection
        finally:
            connection.close()
