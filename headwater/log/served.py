"""What was shown, and which of it was clicked.

Not a log of its own truth: a list is written in the background after it was
served, and may be lost in a crash or under overload. Nothing is learned from it
by itself; it answers "how often is a list of this version clicked", and what a
click's list showed above the item that was clicked.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from headwater.errors import LogError
from headwater.log._database import Readers, Schema, abandon, build, connect, create, explained
from headwater.log._joining import BY_ID, BY_WINDOW, Act, Click, Joining, Searched, Written, decode
from headwater.types import ServedList

_SERVED = Schema(
    kind="a log of served lists",
    application_id=0x48575352,
    statements=(
        """CREATE TABLE lists(
            number INTEGER PRIMARY KEY,
            recommendation_id TEXT NOT NULL UNIQUE,
            clicked INTEGER NOT NULL,
            payload BLOB NOT NULL)""",
        # Clicks whose list has not arrived, or never will.
        """CREATE TABLE early_clicks(
            number INTEGER PRIMARY KEY,
            recommendation_id TEXT NOT NULL,
            item_id TEXT NOT NULL,
            offset INTEGER NOT NULL,
            UNIQUE(recommendation_id, item_id))""",
        """CREATE TABLE totals(
            version INTEGER PRIMARY KEY,
            served INTEGER NOT NULL,
            clicked INTEGER NOT NULL)""",
        # How far the events log was searched for clicks.
        "CREATE TABLE progress(id INTEGER PRIMARY KEY CHECK(id = 1), offset INTEGER NOT NULL)",
    ),
    upgrades=(
        (
            "ALTER TABLE lists ADD COLUMN user_id TEXT",
            "ALTER TABLE lists ADD COLUMN served_at REAL NOT NULL DEFAULT 0",
            "CREATE INDEX lists_of_user ON lists(user_id, served_at) WHERE user_id IS NOT NULL",
            "ALTER TABLE totals ADD COLUMN clicked_by_window INTEGER NOT NULL DEFAULT 0",
        ),
        ("ALTER TABLE lists ADD COLUMN version INTEGER NOT NULL DEFAULT 0",),
    ),
)

_QUEUE_LIMIT = 100_000
"""Lists and clicks waiting for the writer before the oldest are dropped: some 100 MB."""

_BUCKETS = 1 << 22
"""Of users by hash: an act of one in a bucket of which nobody was shown a list isn't looked at.
With lists of a million users a fifth of the others' acts are."""

_LINGER_SECONDS = 0.05
"""The writer gathers for so long before a commit, so that a busy server pays for 20 commits a
second and not for one per request."""

_logger = logging.getLogger(__name__)


class VersionClicks(msgspec.Struct, frozen=True):
    """Of a version's served lists, how many were clicked at least once.

    A list counts once, by what was joined to it first: an event that names it
    (``by_id``), or one of its user on its item soon after (``by_window``).
    Counted since the file was made: lists that retention dropped stay counted.
    """

    version: int
    served: int
    by_id: int
    by_window: int = 0


class ServedLog:
    """Served lists in the SQLite file at ``path`` (in memory where that is ``None``).

    Every write is asynchronous: it neither blocks nor fails, and when the
    writer can't keep up the oldest waiting entries are dropped and counted.

    Args:
        path: the file; made if it isn't there.
        keep: newest lists, and newest clicks without a list, that are kept.

    Raises:
        LogError: the file can't be opened, or is something else.
    """

    def __init__(self, path: Path | None, keep: int = 1_000_000) -> None:
        self._name = ":memory:" if path is None else str(path)
        if path is not None:
            create(path, _SERVED)
        with explained(self._name, "open it"):
            # NORMAL syncs at checkpoints only, off the request's path; without those a power cut
            # could leave a file that can't be opened.
            self._connection = connect(self._name, "NORMAL")
            if path is None:
                build(self._connection, _SERVED)
            # Nobody's lists aren't in the index, and without it the whole table is read.
            users = self._connection.execute(
                "SELECT DISTINCT user_id FROM lists WHERE user_id IS NOT NULL"
            )
            self._may_know = bytearray(_BUCKETS)
            for (user_id,) in users:
                self._may_know[hash(user_id) % _BUCKETS] = 1
        self._joining = Joining(self._connection, keep)
        # One connection for the writer and for short queries.
        self._using = threading.Lock()
        # For what takes long; an in-memory database has no second connection.
        self._readers = None if path is None else Readers(path)
        self._waiting: deque[Written] = deque()
        self._changed = threading.Condition()
        self._taken = 0
        self._written = 0
        self._dropped = 0
        self._flushing = 0
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="served log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lists and clicks that were not written: the queue was full, or writing failed."""
        return self._dropped

    def served(self, lists: Sequence[ServedList]) -> None:
        """Records lists; the first one of a recommendation_id counts."""
        for one in lists:
            self._may_know[hash(one.user_id) % _BUCKETS] = 1
        self._enqueue(lists)

    def attribute(
        self,
        pairs: Sequence[tuple[str, str, int]],
        through: int,
        acts: Sequence[tuple[str, str, float, float]] = (),
    ) -> None:
        """Records that events at these offsets acted on an item of a list.

        A click counts when its list holds the item, once per list, whichever of the
        two arrives first. An act counts for the newest list of its user that was served
        in its window and holds the item, if there is one already. Recording either
        again changes nothing, so refolding the events log is harmless.

        Args:
            pairs: (recommendation_id, item_id, offset) each.
            through: offset through which the events log was searched for them.
            acts: (user_id, item_id, since, until) of events that name no list; seconds.
        """
        clicks = (Click(*pair) for pair in pairs)
        known = (Act(*act) for act in acts if self._may_know[hash(act[0]) % _BUCKETS])
        self._enqueue([*clicks, *known, Searched(through)])

    def searched(self) -> int | None:
        """Offset through which events were searched for clicks; None before the first time."""
        with self._using, explained(self._name, "read"):
            offset: int | None = self._connection.execute("SELECT offset FROM progress").get
        return offset

    def clicks(self) -> list[VersionClicks]:
        """Served and clicked lists of every version, oldest version first."""
        with self._using, explained(self._name, "read"):
            rows: list[Any] = self._connection.execute(
                "SELECT version, served, clicked, clicked_by_window FROM totals ORDER BY version"
            ).fetchall()
        return [VersionClicks(*row) for row in rows]

    def clicks_of_users(self, since: float, until: float) -> list[VersionClicks]:
        """Likewise, of the lists that are kept, for known users, and were served in that time.

        Args:
            since: seconds since 1970.
            until: likewise; a list of that very moment isn't counted.
        """
        with self._reading() as connection:
            rows: list[Any] = connection.execute(
                "SELECT version, count(*), sum(clicked = ?), sum(clicked = ?) FROM lists"
                " WHERE user_id IS NOT NULL AND served_at >= ? AND served_at < ?"
                " GROUP BY version ORDER BY version",
                (BY_ID, BY_WINDOW, since, until),
            ).fetchall()
        return [VersionClicks(*row) for row in rows]

    def get(self, recommendation_id: str) -> ServedList | None:
        """The list as it was served; None where it was never written or dropped since."""
        return self.find([recommendation_id]).get(recommendation_id)

    def find(self, recommendation_ids: Iterable[str]) -> dict[str, ServedList]:
        """Those of the lists that are there, by their ids."""
        found = {}
        with self._using, explained(self._name, "read"):
            for recommendation_id in recommendation_ids:
                payload = self._connection.execute(
                    "SELECT payload FROM lists WHERE recommendation_id = ?", (recommendation_id,)
                ).get
                if payload is not None:
                    found[recommendation_id] = decode(payload)
        return found

    def erase(self, user_ids: Collection[str]) -> int:
        """Deletes the lists that were shown to these users, and all clicks without a list.

        For a system at rest: a click that has no list by then has lost it. What was counted
        stays counted.

        Returns:
            How many lists there were.
        """
        self.flush()
        with self._using, explained(self._name, "erase from it"):
            rows = self._connection.execute("SELECT number, payload FROM lists")
            numbers = [(number,) for number, payload in rows if decode(payload).user_id in user_ids]
            self._connection.executemany("DELETE FROM lists WHERE number = ?", numbers)
            self._connection.execute("DELETE FROM early_clicks")
        return len(numbers)

    def flush(self) -> None:
        """Waits until everything recorded so far is written or dropped."""
        with self._changed:
            target = self._taken
            self._flushing += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._written >= target)
            self._flushing -= 1

    def close(self) -> None:
        """Writes what is waiting and closes the file; may be repeated."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        with self._using:
            abandon(self._connection)
        if self._readers is not None:
            self._readers.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """A connection for a long query; in a file it holds up neither the writer nor ``find``."""
        if self._readers is not None:
            with self._readers.connection() as connection:
                yield connection
            return
        with self._using, explained(self._name, "read"):
            yield self._connection

    def _enqueue(self, entries: Sequence[Written]) -> None:
        with self._changed:
            if self._closed:
                raise LogError(f"{self._name}: the log is closed; open it again to record")
            was_empty = not self._waiting
            self._waiting.extend(entries)
            self._taken += len(entries)
            while len(self._waiting) > _QUEUE_LIMIT:
                self._waiting.popleft()
                self._dropped += 1
                self._written += 1
            # A lingering writer is left alone: waking it for every request would cost each.
            if was_empty:
                self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(lambda: self._flushing or self._closed, _LINGER_SECONDS)
                batch = list(self._waiting)
                self._waiting.clear()
                if not batch and self._closed:
                    return
            failed = 0
            try:
                with self._using:
                    self._joining.commit(batch)
            except Exception as error:
                # Whatever it is, the next batch may fare better, and serving must not notice.
                failed = len(batch)
                _logger.warning("%s: %d entries were not written: %s", self._name, failed, error)
            with self._changed:
                self._dropped += failed
                self._written += len(batch)
                self._changed.notify_all()
