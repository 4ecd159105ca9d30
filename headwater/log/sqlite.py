"""Both logs in SQLite files on one machine, shared by any number of threads and processes.

An event is acknowledged after the WAL was synced. Commits are grouped: one
thread writes, and everything that is waiting when a commit begins goes into it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import apsw

from headwater.errors import Dropped, Fenced, LogError
from headwater.log import StoredUpdate, _index
from headwater.log import _table as table
from headwater.log._append import Submission, commit
from headwater.log._blocks import Part, Piece, chunk, parts, records
from headwater.log._database import (
    Readers,
    Schema,
    Synchronous,
    abandon,
    connect,
    create,
    explained,
)
from headwater.log._ids import Ids
from headwater.log._newest import Newest
from headwater.log._payloads import PROMOTION, RESUME, ROLLBACK
from headwater.log._removal import blank, drop
from headwater.log._wake import Wake
from headwater.log.chunks import Chunk
from headwater.types import Appended, DeadLetter, Entry, Record

_EVENTS = Schema(
    kind="an events log",
    application_id=0x48574556,
    statements=(
        *table.STATEMENTS,
        *_index.STATEMENTS,
        "CREATE TABLE indexed(through INTEGER NOT NULL)",
        "INSERT INTO indexed VALUES(0)",
        """CREATE TABLE dead_letters(
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            received_at REAL NOT NULL,
            source TEXT NOT NULL,
            body TEXT NOT NULL,
            field TEXT NOT NULL,
            reason TEXT NOT NULL)""",
    ),
    # Those before kept a row for each entry.
    first=5,
)

_UPDATES = Schema(
    kind="an updates log",
    application_id=0x48575550,
    statements=(
        """CREATE TABLE updates(
            sequence INTEGER PRIMARY KEY,
            epoch INTEGER NOT NULL,
            trained_through INTEGER NOT NULL,
            digest TEXT NOT NULL,
            payload BLOB NOT NULL,
            report BLOB NOT NULL,
            appended_at REAL NOT NULL)""",
        """CREATE TABLE state(
            token INTEGER NOT NULL,
            newest INTEGER NOT NULL,
            syncs INTEGER NOT NULL)""",
        "INSERT INTO state VALUES(0, 0, 0)",
    ),
)


class SqliteEventsLog:
    """An ``EventsLog`` in the SQLite file at ``path``, which is made if it isn't there.

    Threads and processes may append and read at once, each process through its
    own object. The writing thread starts at the first append, so a process that
    only reads has none.

    Raises:
        LogError: the file can't be opened, or is something else.
    """

    _synchronous: Synchronous = "FULL"

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        create(path, _EVENTS, vfs)
        self._path = path
        self._vfs = vfs
        self._readers = Readers(path, vfs)
        self._wake = Wake(path)
        self._newest = Newest()
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, entries: Sequence[Entry], received_at: float) -> Future[list[Appended]]:
        try:
            made = parts(entries, received_at)
        except LogError as error:
            refused: Future[list[Appended]] = Future()
            refused.set_exception(error)
            return refused
        return self._submit(made, ())

    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        return self.submit(entries, received_at).result()

    def read(self, after: int, limit: int) -> list[Record]:
        return [record for piece in self._pieces(after, limit) for record in records(piece)]

    def chunk(self, after: int, limit: int) -> Chunk:
        return chunk(self._pieces(after, limit))

    def rollbacks(self, after: int) -> list[Record]:
        return self._orders(ROLLBACK, after)

    def promotions(self, after: int) -> list[Record]:
        return self._orders(PROMOTION, after)

    def resumes(self, after: int) -> list[Record]:
        return self._orders(RESUME, after)

    def start(self) -> int:
        with self._readers.connection() as connection:
            return table.start(connection)

    def end(self) -> int:
        with self._readers.connection() as connection:
            return table.end(connection)

    def size(self) -> int:
        with self._readers.connection() as connection:
            pages = connection.pragma("page_count") - connection.pragma("freelist_count")
            return int(pages * connection.pragma("page_size"))

    def drop(self, through: int) -> None:
        # Not FULL: dropped entries that a power cut brings back can be dropped again.
        with self._removing("NORMAL", "drop entries") as connection:
            while drop(connection, through):
                pass
        self._newest.clear()

    def blank(self, offsets: Sequence[int]) -> None:
        with self._removing("FULL", "blank entries") as connection:
            blank(connection, offsets)
        self._newest.clear()

    def wait(self, after: int, timeout: float) -> bool:
        return self._wake.wait(lambda: self.end() > after, timeout)

    def refuse(self, letters: Sequence[DeadLetter]) -> None:
        self._submit([], letters).result()

    def dead_letters(self, limit: int, before: int | None = None) -> list[DeadLetter]:
        return self._letters(
            "WHERE ?1 IS NULL OR number < ?1 ORDER BY number DESC LIMIT ?2", (before, limit)
        )

    def dead_letter(self, number: int) -> DeadLetter | None:
        return next(iter(self._letters("WHERE number = ?1", (number,))), None)

    def settle(self, number: int) -> None:
        self._submit([], (), (number,)).result()

    def dead_letter_count(self) -> int:
        with self._readers.connection() as connection:
            # The sequence and not max(number): the newest may be settled.
            found = connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'"
            )
            return int(found.get or 0)

    def _pieces(self, after: int, limit: int) -> list[Piece]:
        pieces = self._newest.after(after, limit)
        missing = limit - sum(piece.stop - piece.start for piece in pieces)
        if missing > 0:
            last = pieces[-1].block.first + pieces[-1].stop - 1 if pieces else after
            with self._readers.connection() as connection:
                pieces += table.pieces(connection, last, missing)
        if pieces and pieces[0].block.first > after + 1 and (start := self.start()) > after:
            raise Dropped(start)
        return pieces

    def _orders(self, kind: int, after: int) -> list[Record]:
        with self._readers.connection() as connection:
            pieces = table.orders(connection, kind, after)
        return [record for piece in pieces for record in records(piece)]

    def _letters(self, which: str, bindings: tuple[int | None, ...]) -> list[DeadLetter]:
        with self._readers.connection() as connection:
            rows: list[Any] = connection.execute(
                "SELECT received_at, source, body, field, reason, number FROM dead_letters "
                f"{which}",
                bindings,
            ).fetchall()
        return [DeadLetter(*row) for row in rows]

    @contextlib.contextmanager
    def _removing(self, synchronous: Synchronous, doing: str) -> Iterator[apsw.Connection]:
        with explained(self._path, doing):
            connection = connect(self._path, synchronous, self._vfs)
            try:
                yield connection
            finally:
                abandon(connection)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()
        self._wake.close()
        self._readers.close()

    def _submit(
        self, parts: list[Part], letters: Sequence[DeadLetter], settled: Sequence[int] = ()
    ) -> Future[list[Appended]]:
        future: Future[list[Appended]] = Future()
        # Not cancellable: a waiter that gives up can't take back what is being committed.
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                error = LogError(f"{self._path}: the log is closed; open it again to append")
                future.set_exception(error)
                return future
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._write, name=f"append to {self._path.name}", daemon=True
                )
                self._thread.start()
            self._queue.put(Submission(parts, letters, future, settled))
        return future

    def _write(self) -> None:
        """The writing thread: commits whatever waits, until it is told to stop."""
        connection: apsw.Connection | None = None
        stopping = False
        while not stopping:
            waiting = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.append(self._queue.get_nowait())
            submissions = [submission for submission in waiting if submission is not None]
            stopping = len(submissions) < len(waiting)
            try:
                if connection is None:
                    connection = connect(self._path, self._synchronous, self._vfs)
                    ids = Ids(connection)
                answers, blocks = commit(connection, ids, submissions)
            except Exception as error:
                # Whatever it was, its callers hear of it and the next commit gets a new connection.
                abandon(connection)
                connection = None
                for submission in submissions:
                    failure = LogError(
                        f"{self._path}: nothing was appended: {error} ({type(error).__name__})"
                    )
                    failure.__cause__ = error
                    submission.future.set_exception(failure)
                continue
            self._newest.append(blocks)
            self._wake.notify()
            for submission, answer in zip(submissions, answers, strict=True):
                submission.future.set_result(answer)
        abandon(connection)


class SqliteUpdatesLog:
    """An ``UpdatesLog`` in the SQLite file at ``path``, which is made if it isn't there.

    Raises:
        LogError: the file can't be opened, or is something else.
    """

    # Not FULL: a lost update is learned again from the events log, so no commit waits for the
    # disk. Not OFF: NORMAL syncs at checkpoints, and without that a power cut could leave a file
    # that can't be opened.
    _synchronous: Synchronous = "NORMAL"

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        create(path, _UPDATES, vfs)
        self._path = path
        self._vfs = vfs
        self._readers = Readers(path, vfs)
        self._wake = Wake(path)
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._closed = False

    def acquire(self) -> int:
        with self._transaction("take the lease") as connection:
            return int(connection.execute("UPDATE state SET token = token + 1 RETURNING token").get)

    def append(self, update: StoredUpdate, token: int) -> None:
        with self._transaction("append an update") as connection:
            newest_token, newest = connection.execute("SELECT token, newest FROM state").get
            self._refuse_fenced(token, newest_token)
            if update.sequence != newest + 1:
                raise LogError(
                    f"{self._path}: sequence is {update.sequence}; the next one is {newest + 1}"
                )
            connection.execute(
                "INSERT INTO updates VALUES(?, ?, ?, ?, ?, ?, ?)",
                (
                    update.sequence,
                    update.epoch,
                    update.trained_through,
                    update.digest,
                    update.payload,
                    update.report,
                    time.time(),
                ),
            )
            connection.execute("UPDATE state SET newest = ?", (update.sequence,))
        self._wake.notify()

    def read(self, after: int, limit: int) -> list[StoredUpdate]:
        with self._readers.connection() as connection:
            rows: list[Any] = connection.execute(
                "SELECT epoch, sequence, trained_through, digest, payload, report, appended_at"
                " FROM updates WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (after, limit),
            ).fetchall()
        return [StoredUpdate(*row) for row in rows]

    def end(self) -> int:
        with self._readers.connection() as connection:
            return int(connection.execute("SELECT newest FROM state").get)

    def drop(self, through: int) -> None:
        with self._transaction("drop updates") as connection:
            connection.execute("DELETE FROM updates WHERE sequence <= ?", (through,))

    def sync(self, token: int) -> None:
        with self._lock, explained(self._path, "sync"):
            connection = self._writer()
            self._refuse_fenced(token, connection.execute("SELECT token FROM state").get)
            connection.execute("PRAGMA synchronous = FULL").fetchall()
            try:
                # One synced commit makes durable all that stand before it in the WAL. It has to
                # change something: SQLite writes no page, and syncs nothing, for equal values.
                connection.execute("UPDATE state SET syncs = syncs + 1")
            finally:
                connection.execute(f"PRAGMA synchronous = {self._synchronous}").fetchall()

    def wait(self, after: int, timeout: float) -> bool:
        return self._wake.wait(lambda: self.end() > after, timeout)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            abandon(self._connection)
            self._connection = None
        self._wake.close()
        self._readers.close()

    def _refuse_fenced(self, token: int, newest: int) -> None:
        if token != newest:
            raise Fenced(
                f"{self._path}: token {token} is not the newest, {newest}: another trainer has "
                "taken over; stop this one"
            )

    def _writer(self) -> apsw.Connection:
        if self._closed:
            raise LogError(f"{self._path}: the log is closed; open it again to append")
        if self._connection is None:
            self._connection = connect(self._path, self._synchronous, self._vfs)
        return self._connection

    @contextlib.contextmanager
    def _transaction(self, doing: str) -> Iterator[apsw.Connection]:
        with self._lock, explained(self._path, doing):
            connection = self._writer()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                abandon(connection)
                self._connection = None
                raise
