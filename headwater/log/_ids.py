"""Which ids an events log holds, so that what is sent twice counts once.

A hash of its id is as good as random. In an index that is kept up at every commit, each
new entry rewrites a page of 4 KiB of its own: at a million entries that was 13 of the 14
microseconds that an event's commit took. So the index lags behind: the ids of the newest
entries are held in memory, and moved into the index a range of hashes at a time, where
many fall on one page (the idea of the log-structured merge tree; O'Neil et al., 1996).
What is in memory is read from the log again by whoever opens it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import apsw

from headwater.log import _table as table
from headwater.log._blocks import ids_of

HELD = 65_536
"""Ids in memory, some 10 MB, before the sweep that moves them begins; it ends before there are
twice as many."""

RANGES = 256
"""By the first byte of the hash."""

ROWS_AT_ONCE = 100
"""Rows of one statement. SQLite lets go of the interpreter's lock for each: for every row, a
commit would wait for its turn as often among the threads that answer requests."""


class Ids:
    """The ids of the log that a connection writes; to be used within its transactions.

    After a transaction that failed it isn't to be used again.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._held: list[dict[bytes, int]] = [{} for _ in range(RANGES)]
        self._n_held = 0
        self._seen = 0
        self._swept = RANGES
        self._sweep_end = 0

    def catch_up(self, end: int) -> None:
        """Takes in what others have appended, through the offset ``end``."""
        if self._seen == end:
            return
        indexed = self._connection.execute("SELECT through FROM indexed").get
        self._seen = max(self._seen, indexed)
        while pieces := table.pieces(self._connection, self._seen, min(HELD, end - self._seen)):
            found = [
                (id, offset)
                for block, start, stop in pieces
                for offset, id in enumerate(ids_of(block)[start:stop], block.first + start)
                if id is not None
            ]
            self.add(found, pieces[-1].block.first + pieces[-1].stop - 1)
            if self._seen < end:
                self.sweep(HELD)
        self._seen = end

    def find(self, wanted: Sequence[bytes]) -> dict[bytes, int]:
        """Those that are there, or were until they were dropped, with their offsets."""
        found: dict[bytes, int] = {}
        if not wanted:
            return found
        for number in range(0, len(wanted), ROWS_AT_ONCE):
            part = wanted[number : number + ROWS_AT_ONCE]
            found.update(
                self._connection.execute(
                    f"SELECT id, offset FROM ids WHERE id IN ({','.join('?' * len(part))})", part
                )
            )
        held = self._held
        for id in wanted:
            offset = held[id[0]].get(id)
            if offset is not None:
                found[id] = offset
        return found

    def add(self, entries: Iterable[tuple[bytes, int]], end: int) -> None:
        """Holds ids of entries that were appended, through the offset ``end``."""
        n, held = 0, self._held
        for id, offset in entries:
            held[id[0]][id] = offset
            n += 1
        self._n_held += n
        self._seen = end

    def sweep(self, n: int, oldest: int = 0) -> None:
        """Moves ``n`` ids or more into the index, where there are too many in memory.

        Args:
            n: ids.
            oldest: offset before which entries were dropped, and their ids with them.
        """
        if self._swept == RANGES:
            if self._n_held < HELD:
                return
            self._swept, self._sweep_end = 0, self._seen
        while n > 0 and self._swept < RANGES:
            moved = self._held[self._swept]
            self._held[self._swept] = {}
            self._swept += 1
            self._n_held -= len(moved)
            n -= len(moved)
            kept = sorted(id_offset for id_offset in moved.items() if id_offset[1] >= oldest)
            insert(self._connection, "INSERT OR REPLACE INTO ids", kept)
        if self._swept == RANGES:
            self._connection.execute(
                "UPDATE indexed SET through = max(through, ?)", (self._sweep_end,)
            )


def insert(
    connection: apsw.Connection, into: str, rows: Sequence[tuple[apsw.SQLiteValue, ...]]
) -> None:
    """Inserts rows of one width, many to a statement."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        one = f"({','.join('?' * len(part[0]))})"
        connection.execute(
            f"{into} VALUES{','.join([one] * len(part))}", tuple(chain.from_iterable(part))
        )
