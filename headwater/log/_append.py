"""What one commit of the events log does: rows in, duplicates found, offsets and times given."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

import apsw
import msgspec

from headwater.log import MAX_AHEAD
from headwater.log._entries import DEAD_LETTERS_KEPT, ORDERS, Row
from headwater.log._ids import Ids, insert
from headwater.log._newest import Stored
from headwater.types import Appended, DeadLetter


class Submission(NamedTuple):
    """What one call put into the writer's queue."""

    rows: list[Row]
    letters: Sequence[DeadLetter]
    future: Future[list[Appended]]
    settled: Sequence[int] = ()


def commit(
    connection: apsw.Connection, ids: Ids, submissions: Sequence[Submission]
) -> tuple[list[list[Appended]], list[Stored]]:
    """Writes the submissions in one transaction; returns once it is durable.

    Returns:
        The answers of each, and the rows that were inserted.
    """
    connection.execute("BEGIN IMMEDIATE")
    answers, rows = _insert(connection, ids, submissions)
    letters = [letter for submission in submissions for letter in submission.letters]
    if letters:
        connection.executemany(
            "INSERT INTO dead_letters(received_at, source, body, field, reason)"
            " VALUES(:received_at, :source, :body, :field, :reason)",
            map(msgspec.structs.asdict, letters),
        )
        connection.execute(
            "DELETE FROM dead_letters WHERE number <= (SELECT max(number) FROM dead_letters) - ?",
            (DEAD_LETTERS_KEPT,),
        )
    settled = [(number,) for submission in submissions for number in submission.settled]
    if settled:
        connection.executemany("DELETE FROM dead_letters WHERE number = ?", settled)
    connection.execute("COMMIT")
    return answers, rows


def _insert(
    connection: apsw.Connection, ids: Ids, submissions: Sequence[Submission]
) -> tuple[list[list[Appended]], list[Stored]]:
    """Inserts the rows of every submission, and answers each with its offset."""
    # The sequence and not max(offset): an offset isn't given out twice, even when the newest
    # rows are gone.
    end = int(connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").get or 0)
    newest = connection.execute("SELECT stream_time FROM events ORDER BY offset DESC LIMIT 1").get
    newest = float("-inf") if newest is None else newest
    oldest, horizon = _start(connection)
    ids.catch_up(end)
    known = ids.find([row[0] for one in submissions for row in one.rows if row[0] is not None])
    offset = end
    rows: list[Stored] = []
    new: list[tuple[bytes, int]] = []
    answers: list[list[Appended]] = []
    for submission in submissions:
        answer: list[Appended] = []
        answers.append(answer)
        for id, source, event_id, received_at, own_time, payload in submission.rows:
            if id is not None:
                place = known.get(id, 0)
                if place >= oldest:
                    answer.append(Appended(place, True))
                    continue
                if own_time <= horizon and source not in ORDERS:
                    answer.append(Appended(0, False, horizon))
                    continue
                known[id] = offset + 1
                new.append((id, offset + 1))
            offset += 1
            newest = max(newest, own_time)
            rows.append((offset, source, event_id, received_at, newest, payload))
            answer.append(Appended(offset, False))
    insert(connection, "INSERT INTO events", rows)
    ids.add(new, offset)
    ids.sweep(2 * len(new), oldest)
    return answers, rows


def _start(connection: apsw.Connection) -> tuple[int, float]:
    """The oldest offset kept, and the time up to which what isn't in the log may be gone."""
    found = connection.execute("SELECT offset, stream_time FROM events ORDER BY offset LIMIT 1").get
    if found is None:
        return 1, float("-inf")
    oldest, stream_time = found
    return oldest, stream_time + MAX_AHEAD if oldest > 1 else float("-inf")
