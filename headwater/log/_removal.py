"""What goes from an events log: its oldest entries, and the content of those that are erased."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from headwater.log import _index
from headwater.log import _table as table
from headwater.log._blocks import Piece, blanked, cut, times

DROPPED_AT_ONCE = 100
"""Rows of one transaction, during which nobody else commits. In a log of a million events, with ten
such transactions a second, 99 of 100 appends took up to 18 ms, as without any (20 ms); with 250
rows it was 26 ms, with 1,000 rows 46 ms."""


def drop(connection: apsw.Connection, through: int) -> bool:
    """Drops at most ``DROPPED_AT_ONCE`` entries, and dead letters; True if any are left to drop."""
    connection.execute("BEGIN IMMEDIATE")
    start, end = table.start(connection), table.end(connection)
    through = min(through, end - 1)
    last = min(through, start + DROPPED_AT_ONCE)
    if last <= start:
        connection.execute("COMMIT")
        return False
    for piece in table.pieces(connection, start, last - start):
        block, _, stop = piece
        table.delete(connection, block)
        if stop < block.n:
            table.insert(connection, [cut(Piece(block, stop, block.n))])
    _index.drop(connection, last)
    (oldest,) = table.pieces(connection, last, 1)
    connection.execute(
        # By number, which is the order of receipt but for a commit's: no index is needed.
        """DELETE FROM dead_letters
            WHERE number <= (SELECT min(number) FROM dead_letters) + :at_once
            AND number < coalesce(
                (SELECT min(number) FROM dead_letters WHERE received_at >= :oldest),
                9223372036854775807)""",
        {"at_once": DROPPED_AT_ONCE, "oldest": float(times(oldest)[0][0])},
    )
    connection.execute("COMMIT")
    return bool(last < through)


def blank(connection: apsw.Connection, offsets: Sequence[int]) -> None:
    """Blanks entries in one transaction; what they held is overwritten in the file."""
    connection.execute("PRAGMA secure_delete = ON").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    left = sorted(offsets)
    while left:
        (piece,) = table.pieces(connection, left[0] - 1, 1)
        block = piece.block
        here = [offset for offset in left if offset < block.first + block.n]
        table.delete(connection, block)
        table.insert(connection, blanked(block, here))
        left = left[len(here) :]
    connection.execute("COMMIT")
