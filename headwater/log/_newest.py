"""The newest entries that a process has appended, for its own readers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from headwater.log._entries import decode
from headwater.types import Record

BYTES = 16_000_000
"""Of payloads that are kept; the older half makes place."""

Stored = tuple[int, str | None, str | None, float, float, bytes]
"""offset, source, event_id, received_at, stream_time, payload: a row of the events table."""


class Newest:
    """Rows without a gap, through the newest that was appended here.

    Who serves what it takes in reads each event twice, soon after. From the file that costs a
    step of SQLite for every row, and with each a turn at the interpreter's lock, for which the
    threads that answer requests compete. Rows are decoded when they are first read, and as
    those of the file are.
    """

    def __init__(self) -> None:
        self._rows: list[Stored | Record] = []
        self._first = 1
        self._bytes = 0
        self._lock = threading.Lock()

    def append(self, rows: Sequence[Stored]) -> None:
        """Keeps what was committed; what another process has appended meanwhile makes a gap."""
        if not rows:
            return
        with self._lock:
            if rows[0][0] != self._first + len(self._rows):
                self._rows, self._bytes, self._first = [], 0, rows[0][0]
            self._rows += rows
            self._bytes += sum(len(row[5]) for row in rows)
            if self._bytes > BYTES:
                n = len(self._rows) // 2
                del self._rows[:n]
                self._first += n
                self._bytes //= 2

    def after(self, offset: int, limit: int) -> list[Record]:
        """Records from ``offset`` + 1 on, as many as there are and are asked for; none where the
        first of them isn't here.
        """
        with self._lock:
            start = offset + 1 - self._first
            rows = self._rows[start : start + limit] if start >= 0 else []
        records = [
            row
            if isinstance(row, Record)
            else Record(row[0], row[3], row[4], decode(row[0], row[5]))
            for row in rows
        ]
        with self._lock:
            start = offset + 1 - self._first
            if rows and 0 <= start < len(self._rows) and self._rows[start] is rows[0]:
                self._rows[start : start + len(records)] = records
        return records

    def clear(self) -> None:
        """Forgets them: what is in the file has changed."""
        with self._lock:
            self._rows, self._bytes = [], 0
            self._first = 1
