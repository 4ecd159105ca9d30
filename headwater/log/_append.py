"""What one commit of the events log does: rows in, duplicates found, offsets and times given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import apsw
import msgspec

from headwater.log import MAX_AHEAD
from headwater.log._entries import DEAD_LETTERS_KEPT, Row, erased_id
from headwater.types import Appended, DeadLetter


class Submission(NamedTuple):
    """What one call put into the writer's queue."""

    rows: list[Row]
    letters: Sequence[DeadLetter]
    future: Future[list[Appended]]
    settled: Sequence[int] = ()


def commit(connection: apsw.Connection, submissions: Sequence[Submission]) -> list[list[Appended]]:
    """Writes the submissions in one transaction; returns once it is durable."""
    connection.execute("BEGIN IMMEDIATE")
    answers = _insert(connection, submissions)
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
    return answers


def _insert(connection: apsw.Connection, submissions: Sequence[Submission]) -> list[list[Appended]]:
    """Inserts the rows of every submission, and answers each with its offset.

    Nothing is looked up beforehand, as long as nothing was erased: the unique
    index finds the duplicates, and only those cost a query more.
    """
    # The sequence and not max(offset): an offset isn't given out twice, even when the newest
    # rows are gone.
    offset = int(
        connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").get or 0
    )
    newest = connection.execute("SELECT stream_time FROM events ORDER BY offset DESC LIMIT 1").get
    newest = float("-inf") if newest is None else newest
    past = _Past(connection)
    answers: list[list[Appended]] = []
    key: tuple[str | None, str | None] = (None, None)
    duplicate_of = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal offset, newest, key, duplicate_of
        for submission in submissions:
            answer: list[Appended] = []
            answers.append(answer)
            for source, event_id, received_at, own_time, payload in submission.rows:
                key = (source, event_id)
                if event_id is not None and source is not None:
                    known = past.answer(source, event_id, own_time)
                    if known is not None:
                        answer.append(known)
                        continue
                stream_time = own_time if own_time > newest else newest
                yield offset + 1, source, event_id, received_at, stream_time, payload
                # SQLite asks for the next row after it took this one, or after it refused it and
                # the offset of the row that was there was looked up.
                if duplicate_of:
                    answer.append(Appended(duplicate_of, True))
                    duplicate_of = 0
                else:
                    offset += 1
                    newest = stream_time
                    answer.append(Appended(offset, False))

    remaining = rows()
    while True:
        try:
            connection.executemany("INSERT INTO events VALUES(?, ?, ?, ?, ?, ?)", remaining)
            return answers
        except apsw.ConstraintError:
            duplicate_of = connection.execute(
                "SELECT offset FROM events WHERE source = ? AND event_id = ?", key
            ).get
            if not duplicate_of:
                raise


class _Past:
    """Answers for events that the index of ids can't know: erased, or maybe dropped."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        oldest = connection.execute(
            "SELECT offset, stream_time FROM events ORDER BY offset LIMIT 1"
        ).get
        self._horizon = oldest[1] + MAX_AHEAD if oldest and oldest[0] > 1 else float("-inf")
        self._erased = connection.execute(
            "SELECT 1 FROM events WHERE source IS NULL AND event_id IS NOT NULL LIMIT 1"
        ).get

    def answer(self, source: str, event_id: str, own_time: float) -> Appended | None:
        """``None`` where the event is new, or the index of ids will tell."""
        if self._erased:
            offset = self._connection.execute(
                "SELECT offset FROM events WHERE source IS NULL AND event_id = ?",
                (erased_id(source, event_id),),
            ).get
            if offset:
                return Appended(offset, True)
        if own_time > self._horizon:
            return None
        offset = self._connection.execute(
            "SELECT offset FROM events WHERE source = ? AND event_id = ?", (source, event_id)
        ).get
        return Appended(offset, True) if offset else Appended(0, False, self._horizon)
