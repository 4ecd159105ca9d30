"""The newest blocks that a process has appended, for its own readers."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice

from headwater.log._blocks import Block, Piece
from headwater.log._table import among

BYTES = 16_000_000
"""Of payloads that are kept; the older half makes place."""


class Newest:
    """Blocks without a gap, through the newest that was appended here.

    Who serves what it takes in reads each event twice, soon after. From the file that costs a
    step of SQLite for every block, and with each a turn at the interpreter's lock, for which the
    threads that answer requests compete.
    """

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._firsts: list[int] = []
        self._bytes = 0
        self._lock = threading.Lock()

    def append(self, blocks: Sequence[Block]) -> None:
        """Keeps what was committed; what another process has appended meanwhile makes a gap."""
        if not blocks:
            return
        with self._lock:
            if self._blocks and self._blocks[-1].first + self._blocks[-1].n != blocks[0].first:
                self._clear()
            self._blocks += blocks
            self._firsts += [block.first for block in blocks]
            self._bytes += sum(len(block.payload) for block in blocks)
            if self._bytes > BYTES:
                n = len(self._blocks) // 2
                self._bytes -= sum(len(block.payload) for block in self._blocks[:n])
                del self._blocks[:n], self._firsts[:n]

    def after(self, offset: int, limit: int) -> list[Piece]:
        """Where entries from ``offset`` + 1 on are, as many as there are and are asked for; none
        where the first of them isn't here.
        """
        with self._lock:
            place = bisect_right(self._firsts, offset + 1) - 1
            if place < 0:
                return []
            return among(islice(self._blocks, place, None), offset, limit)

    def clear(self) -> None:
        """Forgets them: what is in the file has changed."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._blocks, self._firsts, self._bytes = [], [], 0
