"""What was shown, and which of it was clicked.

Not a log of its own truth: a list is written in the background after it was
served, and may be lost in a crash or under overload. Nothing is learned from it
by itself; it answers "how often is a list of this version clicked", and what a
click's list showed above the item that was clicked.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from headwater.errors import LogError
from headwater.log._database import Schema, abandon, build, connect, create, explained
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

_LISTS_OF_WINDOW = 20
"""Newest lists of a user in which an item is looked for: a client that asks for lists all day long
must not make each of its events read all of them."""

_ASKED_AT_ONCE = 100

_BY_ID, _BY_WINDOW = 1, 2
"""How a list was clicked, in the column of that name; 0 for not at all."""

_BUCKETS = 1 << 22
"""Of users by hash: an act of one in a bucket of which nobody was shown a list isn't looked at.
With lists of a million users a fifth of the others' acts are."""

_LINGER_SECONDS = 0.05
"""The writer gathers for so long before a commit, so that a busy server pays for 20 commits a
second and not for one per request."""

_logger = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(ServedList)


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


class Click(msgspec.Struct, frozen=True, array_like=True):
    """An action on an item that names the list it was shown in."""

    recommendation_id: str
    item_id: str
    offset: int


class Act(msgspec.Struct, frozen=True, array_like=True):
    """An action that names no list: on an item that may have been shown since ``since``."""

    user_id: str
    item_id: str
    since: float
    until: float


class Searched(msgspec.Struct, frozen=True, array_like=True):
    """The events through this offset were searched for clicks."""

    offset: int


_Written = ServedList | Click | Act | Searched


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
        self._keep = keep
        self._name = ":memory:" if path is None else str(path)
        if path is not None:
            create(path, _SERVED)
        with explained(self._name, "open it"):
            # NORMAL syncs at checkpoints only, off the request's path; without those a power cut
            # could leave a file that can't be opened.
            self._connection = connect(self._name, "NORMAL")
            if path is None:
                build(self._connection, _SERVED)
            users = self._connection.execute("SELECT DISTINCT user_id FROM lists")
            self._may_know = bytearray(_BUCKETS)
            for (user_id,) in users:
                self._may_know[hash(user_id) % _BUCKETS] = 1
        # One connection for the writer and for queries: an in-memory database has no second one.
        self._using = threading.Lock()
        self._new: Counter[int] = Counter()  # a commit's lists by version, not yet added up
        # Whether there may be clicks that came before their list: there nearly never are, and each
        # statement takes as long as the list's own.
        self._early = False
        self._waiting: deque[_Written] = deque()
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
        with self._using, explained(self._name, "read"):
            rows: list[Any] = self._connection.execute(
                "SELECT version, count(*), sum(clicked = ?), sum(clicked = ?) FROM lists"
                " WHERE user_id IS NOT NULL AND served_at >= ? AND served_at < ?"
                " GROUP BY version ORDER BY version",
                (_BY_ID, _BY_WINDOW, since, until),
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
                    found[recommendation_id] = _decoder.decode(payload)
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
            numbers = [
                (number,)
                for number, payload in rows
                if _decoder.decode(payload).user_id in user_ids
            ]
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

    def _enqueue(self, entries: Sequence[_Written]) -> None:
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
                    self._commit(batch)
            except Exception as error:
                # Whatever it is, the next batch may fare better, and serving must not notice.
                failed = len(batch)
                _logger.warning("%s: %d entries were not written: %s", self._name, failed, error)
            with self._changed:
                self._dropped += failed
                self._written += len(batch)
                self._changed.notify_all()

    def _commit(self, batch: Collection[_Written]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            shown = self._shown(batch)
            self._new.clear()
            self._early = connection.execute("SELECT 1 FROM early_clicks LIMIT 1").get is not None
            for entry in batch:
                if isinstance(entry, ServedList):
                    self._insert(entry)
                elif isinstance(entry, Click):
                    self._join(entry)
                elif isinstance(entry, Act):
                    if entry.user_id in shown:
                        self._join_by_window(entry)
                else:
                    connection.execute(
                        "INSERT INTO progress VALUES(1, ?)"
                        " ON CONFLICT(id) DO UPDATE SET offset = max(offset, excluded.offset)",
                        (entry.offset,),
                    )
            self._add_up()
            for table in ("lists", "early_clicks"):
                connection.execute(
                    f"DELETE FROM {table} WHERE number <= (SELECT max(number) FROM {table}) - ?",
                    (self._keep,),
                )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _shown(self, batch: Collection[_Written]) -> set[str]:
        """Of the users that acted, those with a list: most events are of nobody that was shown any.

        Asked for many at a time, since each statement costs more than a look into the index.
        """
        users = list({entry.user_id for entry in batch if isinstance(entry, Act)})
        shown = {entry.user_id for entry in batch if isinstance(entry, ServedList)}
        for start in range(0, len(users), _ASKED_AT_ONCE):
            part = users[start : start + _ASKED_AT_ONCE]
            shown.update(
                user_id
                for (user_id,) in self._connection.execute(
                    f"SELECT DISTINCT user_id FROM lists"
                    f" WHERE user_id IN ({','.join('?' * len(part))})",
                    part,
                )
            )
        return {user_id for user_id in shown if user_id is not None}

    def _insert(self, served: ServedList) -> None:
        connection = self._connection
        connection.execute(
            "INSERT OR IGNORE INTO lists"
            "(recommendation_id, clicked, payload, user_id, served_at, version)"
            " VALUES(?, 0, ?, ?, ?, ?)",
            (
                served.recommendation_id,
                _encode(served),
                served.user_id,
                served.served_at,
                served.version,
            ),
        )
        if not connection.changes():
            return
        self._new[served.version] += 1
        if not self._early:
            return
        early: list[Any] = connection.execute(
            "DELETE FROM early_clicks WHERE recommendation_id = ? RETURNING item_id",
            (served.recommendation_id,),
        ).fetchall()
        if any(item_id in served.items for (item_id,) in early):
            self._count(served)

    def _add_up(self) -> None:
        """Adds the lists of a commit, as far as it has come, to those of their versions."""
        for version, n in self._new.items():
            self._connection.execute(
                "INSERT INTO totals VALUES(?1, ?2, 0, 0)"
                " ON CONFLICT(version) DO UPDATE SET served = served + ?2",
                (version, n),
            )
        self._new.clear()

    def _join(self, click: Click) -> None:
        connection = self._connection
        found = connection.execute(
            "SELECT clicked, payload FROM lists WHERE recommendation_id = ?",
            (click.recommendation_id,),
        ).get
        if found is None:
            self._early = True
            connection.execute(
                "INSERT OR IGNORE INTO early_clicks(recommendation_id, item_id, offset)"
                " VALUES(?, ?, ?)",
                (click.recommendation_id, click.item_id, click.offset),
            )
            return
        clicked, payload = found
        if not clicked:
            served = _decoder.decode(payload)
            if click.item_id in served.items:
                self._count(served)

    def _join_by_window(self, act: Act) -> None:
        lists: list[Any] = self._connection.execute(
            "SELECT clicked, payload FROM lists"
            " WHERE user_id = ? AND served_at BETWEEN ? AND ? ORDER BY served_at DESC LIMIT ?",
            (act.user_id, act.since, act.until, _LISTS_OF_WINDOW),
        ).fetchall()
        for clicked, payload in lists:
            served = _decoder.decode(payload)
            if act.item_id in served.items:
                if not clicked:
                    self._count(served, "clicked_by_window")
                return

    def _count(
        self, served: ServedList, how: Literal["clicked", "clicked_by_window"] = "clicked"
    ) -> None:
        self._add_up()  # there may be no row of its version yet
        self._connection.execute(
            "UPDATE lists SET clicked = ? WHERE recommendation_id = ?",
            (_BY_ID if how == "clicked" else _BY_WINDOW, served.recommendation_id),
        )
        self._connection.execute(
            f"UPDATE totals SET {how} = {how} + 1 WHERE version = ?", (served.version,)
        )
