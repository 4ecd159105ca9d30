"""What goes from an events log: its oldest entries, and the content of those that are erased."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from headwater.log._entries import BLANK, entry_id, erased_id

DROPPED_AT_ONCE = 100
"""Rows of one transaction, during which nobody else commits. In a log of a million events, with ten
such transactions a second, 99 of 100 appends took up to 18 ms, as without any (20 ms); with 250
rows it was 26 ms, with 1,000 rows 46 ms."""


def drop(connection: apsw.Connection, through: int) -> bool:
    """Drops at most ``DROPPED_AT_ONCE`` entries, and dead letters; True if any are left to drop."""
    connection.execute("BEGIN IMMEDIATE")
    # Two questions: one that asks for both ends reads all that is between them.
    first = connection.execute("SELECT min(offset) FROM events").get
    newest = connection.execute("SELECT max(offset) FROM events").get
    through = min(through, (newest or 0) - 1)
    last = min(through, (first or 1) - 1 + DROPPED_AT_ONCE)
    if first is None or last < first:
        connection.execute("COMMIT")
        return False
    ids = [
        (entry_id(source, event_id), last)
        for source, event_id in connection.execute(
            "SELECT source, event_id FROM events WHERE offset <= ? AND event_id IS NOT NULL",
            (last,),
        )
    ]
    connection.executemany("DELETE FROM ids WHERE id = ? AND offset <= ?", ids)
    connection.execute("DELETE FROM events WHERE offset <= ?", (last,))
    oldest = connection.execute("SELECT received_at FROM events ORDER BY offset LIMIT 1").get
    connection.execute(
        # By number, which is the order of receipt but for a commit's: no index is needed.
        """DELETE FROM dead_letters
            WHERE number <= (SELECT min(number) FROM dead_letters) + :at_once
            AND number < coalesce(
                (SELECT min(number) FROM dead_letters WHERE received_at >= :oldest),
                9223372036854775807)""",
        {"at_once": DROPPED_AT_ONCE, "oldest": oldest},
    )
    connection.execute("COMMIT")
    return bool(last < through)


def blank(connection: apsw.Connection, offsets: Sequence[int]) -> None:
    """Blanks entries in one transaction; what they held is overwritten in the file."""
    connection.execute("PRAGMA secure_delete = ON").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    for offset in offsets:
        source, event_id = connection.execute(
            "SELECT source, event_id FROM events WHERE offset = ?", (offset,)
        ).get
        if source is not None:
            event_id = erased_id(source, event_id)
        # An erased event has no source: so it is told from one that came with such an id.
        connection.execute(
            "UPDATE events SET source = NULL, event_id = ?, payload = ? WHERE offset = ?",
            (event_id, BLANK, offset),
        )
    connection.execute("COMMIT")
