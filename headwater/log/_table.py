"""The blocks of an events log in its file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import unpack

import apsw

from headwater.log._blocks import Block, Piece
from headwater.log._payloads import ROLLBACK

STATEMENTS = (
    """CREATE TABLE blocks(
        first INTEGER PRIMARY KEY,
        n INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        received BLOB NOT NULL,
        times BLOB NOT NULL,
        payload BLOB NOT NULL)""",
    f"CREATE INDEX orders ON blocks(kind, first) WHERE kind >= {ROLLBACK}",
)

_COLUMNS = "first, n, kind, received, times, payload"


def insert(connection: apsw.Connection, blocks: Iterable[Block]) -> None:
    connection.executemany(f"INSERT INTO blocks({_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?)", blocks)


def delete(connection: apsw.Connection, block: Block) -> None:
    connection.execute("DELETE FROM blocks WHERE first = ?", (block.first,))


def start(connection: apsw.Connection) -> int:
    """The offset after which the log begins."""
    return int(connection.execute("SELECT min(first) FROM blocks").get or 1) - 1


def end(connection: apsw.Connection) -> int:
    """The newest offset, 0 when there is none."""
    newest = "SELECT first + n - 1 FROM blocks ORDER BY first DESC LIMIT 1"
    return int(connection.execute(newest).get or 0)


def ends(connection: apsw.Connection) -> tuple[int, int, float]:
    """The offset after which the log begins, the newest one and its stream time; 0, 0 and -inf
    when there is none. In one statement: each is a time at which another thread may come first.
    """
    # A time is there for each entry, or once for all of them: the last one is the newest entry's.
    found = connection.execute(
        "SELECT (SELECT min(first) FROM blocks) - 1, first + n - 1, substr(times, -8)"
        " FROM blocks ORDER BY first DESC LIMIT 1"
    ).get
    if found is None:
        return 0, 0, float("-inf")
    start, end, time = found
    return start, end, unpack("<d", time)[0]


def pieces(connection: apsw.Connection, after: int, limit: int) -> list[Piece]:
    """Where the first ``limit`` entries behind ``after`` are, in order."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM blocks"
        " WHERE first >= coalesce((SELECT max(first) FROM blocks WHERE first <= ?1), 0)"
        " ORDER BY first LIMIT ?2",
        # One more: the first one may end before.
        (after + 1, limit + 1),
    )
    try:
        return among((Block(*row) for row in found), after, limit)
    finally:
        found.close()


def among(blocks: Iterable[Block], after: int, limit: int) -> list[Piece]:
    """The same, of blocks that follow each other; reads no more of them than it needs."""
    found: list[Piece] = []
    for block in blocks:
        start = max(after + 1 - block.first, 0)
        piece = Piece(block, start, min(block.n, start + limit))
        if piece.stop > start:
            found.append(piece)
            limit -= piece.stop - start
        if limit <= 0:
            break
    return found


def orders(connection: apsw.Connection, kind: int, after: int) -> Sequence[Piece]:
    """All of a kind of order behind ``after``."""
    # Of a partial index SQLite wants to be told its own condition; else it reads the whole log.
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM blocks INDEXED BY orders"
        f" WHERE kind >= {ROLLBACK} AND kind = {kind} AND first > ? ORDER BY first",
        (after,),
    )
    return [Piece(block, 0, block.n) for block in (Block(*row) for row in found)]
