"""Which ids an events log holds, so that what is sent twice counts once.

A hash of its id is as good as random. In an index that is kept up at every commit, each
new entry rewrites a page of 4 KiB of its own: at a million entries that was 13 of the 14
microseconds that an event's commit took. So the index lags behind: the ids of the newest
entries are held in memory, and moved into the index a range of hashes at a time.
What is in memory is read from the log again by whoever opens it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw

from headwater.log import _table as table
from headwater.log._blocks import ids_of
from headwater.log._index import Index, Keys, by_range

HELD = 65_536
"""Ids in memory, some 10 MB, before the sweep that moves them begins; it ends before there are
twice as many."""


class Ids:
    """The ids of the log that a connection writes; to be used within its transactions.

    After a transaction that failed it isn't to be used again.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._index: Index | None = None
        self._held: dict[bytes, int] = {}
        self._seen = 0
        self._moving: dict[bytes, int] = {}  # ids that a sweep moves; empty between two sweeps
        self._runs: list[Keys] = []  # those of them that are left, by range
        self._sweep_end = 0

    def catch_up(self, start: int, end: int) -> None:
        """Takes in what others have appended.

        Args:
            start: offset through which entries were dropped.
            end: of the newest entry.
        """
        if self._index is None:
            # Only now does it say what is in the index: from here on others' ids are held here.
            self._index = Index(self._connection)
            self._seen = int(self._connection.execute("SELECT through FROM indexed").get)
        while self._seen < end:
            pieces = table.pieces(self._connection, self._seen, min(HELD, end - self._seen))
            if not pieces:
                break
            found = [
                (id, offset)
                for block, start, stop in pieces
                for offset, id in enumerate(ids_of(block)[start:stop], block.first + start)
                if id is not None
            ]
            self.add(found, pieces[-1].block.first + pieces[-1].stop - 1)
            if self._seen < end:
                self.sweep(HELD, start)

    def find(self, wanted: Sequence[bytes]) -> dict[bytes, int]:
        """Those that are there, or were until they were dropped, with their offsets."""
        assert self._index is not None, "catch_up comes first"
        found = dict(self._index.find(wanted)) if wanted else {}
        for held in (self._moving, self._held):
            if not held.keys().isdisjoint(wanted):
                found.update((id, held[id]) for id in wanted if id in held)
        return found

    def add(self, entries: Iterable[tuple[bytes, int]], end: int) -> None:
        """Holds ids of entries that were appended, through the offset ``end``."""
        self._held.update(entries)
        self._seen = end

    def sweep(self, n: int, start: int) -> None:
        """Moves ``n`` ids or more into the index, where there are too many in memory.

        Args:
            n: ids.
            start: offset through which entries were dropped, and their ids with them.
        """
        assert self._index is not None, "catch_up comes first"
        if not self._moving:
            if len(self._held) < HELD:
                return
            self._moving, self._held = self._held, {}
            self._runs, self._sweep_end = by_range(self._moving), self._seen
        while n > 0 and self._runs:
            run = self._runs.pop()
            self._index.add(run, start)
            n -= len(run)
        if not self._runs:
            self._moving = {}
            self._connection.execute(
                "UPDATE indexed SET through = max(through, ?)", (self._sweep_end,)
            )
