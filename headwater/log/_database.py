"""Opening SQLite files for the logs: settings verified, schema checked, readers pooled."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import apsw

from headwater.errors import LogError

BUSY_MILLISECONDS = 10_000
"""How long a writer waits for another process' transaction before it gives up."""

CACHE_KIB = 32_768
"""Page cache of a writer. Event ids are random, so the unique index is written all over: with
SQLite's 2 MB most of its pages are read again for every commit once it holds a million keys."""

CHECKPOINT_PAGES = 4_000
"""WAL pages (4 KiB each) before they are moved into the database. SQLite's 1,000 moves the same
hot pages more often (8 % slower appends, measured at 100,000 rows); more would lengthen the
commit that has to do it."""

Synchronous = Literal["NORMAL", "FULL"]


@dataclass(frozen=True)
class Schema:
    """What a file must be: ``application_id`` tells the kinds of log apart.

    ``statements`` make the format ``first``, and each of ``upgrades`` makes the next format of the
    one before; an older one is refused.
    """

    kind: str
    application_id: int
    statements: tuple[str, ...]
    upgrades: tuple[tuple[str, ...], ...] = ()
    first: int = 1

    @property
    def version(self) -> int:
        """The format that this version of Headwater reads and writes."""
        return self.first + len(self.upgrades)


@contextlib.contextmanager
def explained(path: Path | str, doing: str) -> Iterator[None]:
    """Turns SQLite's errors into a ``LogError`` that names the file and what was attempted."""
    try:
        yield
    except apsw.Error as error:
        raise LogError(f"{path}: can't {doing}: {error} ({type(error).__name__})") from error


def create(path: Path, schema: Schema, vfs: str | None = None) -> None:
    """Makes the file if it isn't there, upgrades an older one, and checks what it is.

    Raises:
        LogError: the folder can't be made, the file is something else, comes from a newer
            version, or lies where SQLite can't keep a write-ahead log.
    """
    try:
        _make_folder(path.parent)
    except OSError as error:
        raise LogError(f"{path.parent}: can't make the data folder: {error}") from error
    with explained(path, f"open it as {schema.kind}"):
        connection = apsw.Connection(str(path), vfs=vfs)
        try:
            _wait_for_others(connection)
            if _is_empty(connection):
                _switch_to_wal(connection)
                connection.execute("BEGIN IMMEDIATE")
                # Asked again: another process may have been first.
                if _is_empty(connection):
                    build(connection, schema)
                connection.execute("COMMIT")
            _check(connection, path, schema)
            if connection.pragma("user_version") < schema.version:
                connection.execute("BEGIN IMMEDIATE")
                # Asked again: another process may have been first.
                _upgrade(connection, schema, connection.pragma("user_version"))
                connection.execute("COMMIT")
        finally:
            connection.close()


def build(connection: apsw.Connection, schema: Schema) -> None:
    """Makes the tables of ``schema`` in an empty database."""
    for statement in schema.statements:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.application_id}").fetchall()
    _upgrade(connection, schema, schema.first)


def _upgrade(connection: apsw.Connection, schema: Schema, version: int) -> None:
    """From a format to the newest one, in the caller's transaction."""
    for statements in schema.upgrades[version - schema.first :]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {schema.version}").fetchall()


def connect(path: Path | str, synchronous: Synchronous, vfs: str | None = None) -> apsw.Connection:
    """A connection that may write, in WAL mode, every setting read back."""
    connection = apsw.Connection(str(path), vfs=vfs)
    try:
        _wait_for_others(connection)
        _set(connection, "journal_mode", "WAL", "memory" if path == ":memory:" else "wal")
        _set(connection, "synchronous", synchronous, {"NORMAL": 1, "FULL": 2}[synchronous])
        _set(connection, "cache_size", -CACHE_KIB, -CACHE_KIB)
        _set(connection, "wal_autocheckpoint", CHECKPOINT_PAGES, CHECKPOINT_PAGES)
    except BaseException:
        connection.close()
        raise
    return connection


def abandon(connection: apsw.Connection | None) -> None:
    """Closes, which rolls back; what is broken already may fail to."""
    if connection is not None:
        with contextlib.suppress(apsw.Error):
            connection.close()


class Readers:
    """Read-only connections to one file, one per thread that reads at the moment."""

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self._path = path
        self._vfs = vfs
        self._idle: list[apsw.Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def connection(self) -> Iterator[apsw.Connection]:
        """A connection for the calling thread alone.

        Raises:
            LogError: the log is closed, or reading failed.
        """
        with self._lock:
            if self._closed:
                raise LogError(f"{self._path}: the log is closed; open it again to read")
            connection = self._idle.pop() if self._idle else None
        with explained(self._path, "read"):
            if connection is None:
                connection = self._open()
            try:
                yield connection
            except BaseException:
                # After an error it may stand in the middle of a read, and hold back checkpoints.
                connection.close(True)
                raise
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _open(self) -> apsw.Connection:
        # Not SQLITE_OPEN_READONLY: a reader of a WAL takes its locks in shared memory, which it
        # has to be able to write.
        connection = apsw.Connection(
            str(self._path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self._vfs
        )
        _wait_for_others(connection)
        _set(connection, "query_only", 1, 1)
        return connection


def _wait_for_others(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    # The last connection to close moves the WAL into the database under an exclusive lock; who
    # opens at that moment would get "database is locked" at once.
    connection.setlk_timeout(BUSY_MILLISECONDS, apsw.SQLITE_SETLK_BLOCK_ON_CONNECT)


def _set(connection: apsw.Connection, name: str, value: str | int, expected: str | int) -> None:
    """Sets a pragma and reads it back: SQLite ignores what it can't do, without an error."""
    connection.execute(f"PRAGMA {name} = {value}").fetchall()
    actual = connection.pragma(name)
    if actual != expected:
        raise LogError(
            f"{connection.filename or 'in-memory log'}: SQLite keeps {name} = {actual!r} instead "
            f"of {value!r}; put the data folder on a local disk"
        )


def _switch_to_wal(connection: apsw.Connection) -> None:
    """Waits by itself: SQLite's busy timeout doesn't hold for the change of journal mode."""
    deadline = time.monotonic() + BUSY_MILLISECONDS / 1000
    while True:
        try:
            _set(connection, "journal_mode", "WAL", "wal")
            return
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def _is_empty(connection: apsw.Connection) -> bool:
    return bool(
        connection.pragma("application_id") == 0 and connection.pragma("schema_version") == 0
    )


def _check(connection: apsw.Connection, path: Path, schema: Schema) -> None:
    if connection.pragma("application_id") != schema.application_id:
        raise LogError(f"{path}: is not {schema.kind}; name another file or move this one away")
    if (found := connection.pragma("user_version")) > schema.version:
        raise LogError(
            f"{path}: has format {found}, newer than {schema.version}, the newest that this "
            "version of Headwater reads; upgrade Headwater"
        )
    if found < schema.first:
        raise LogError(
            f"{path}: has format {found}, older than {schema.first}, the oldest that this version "
            "of Headwater reads; `headwater export` items, users and events by the version that "
            "wrote it, and `headwater import` them into a new data folder"
        )


def _make_folder(folder: Path) -> None:
    """``mkdir -p`` that survives a power cut: a synced file in a lost folder is lost."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
