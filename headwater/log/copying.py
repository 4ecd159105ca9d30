"""A copy of a log's file, taken while others write it."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from headwater.errors import LogError
from headwater.log._database import BUSY_MILLISECONDS, explained


def copy(source: Path, destination: Path) -> None:
    """Copies a log as one moment of it, durably; writers go on meanwhile.

    Raises:
        LogError: there is no such log, it can't be copied, or the copy isn't whole.
    """
    if not source.is_file():
        raise LogError(f"{source}: there is no such file")
    with explained(source, f"copy it to {destination}"):
        reading = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
        writing = apsw.Connection(str(destination))
        try:
            reading.set_busy_timeout(BUSY_MILLISECONDS)
            # All pages in one step, and so in one read transaction: in parts, a backup starts
            # over whenever another process has committed in between.
            with writing.backup("main", reading, "main") as backup:
                backup.step(-1)
        finally:
            writing.close()
            reading.close()
    check(destination)
    sync(destination)


def check(path: Path) -> None:
    """Reads a log's file, which nobody else uses, from end to end.

    Raises:
        LogError: it is damaged.
    """
    with explained(path, "check it"):
        connection = apsw.Connection(str(path))
        try:
            found = connection.pragma("quick_check")
        finally:
            connection.close()
    if found != "ok":
        raise LogError(f"{path}: is damaged: {found}; the log that it was copied from may be, too")


def sync(path: Path) -> None:
    """Makes what is at ``path``, a file or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
