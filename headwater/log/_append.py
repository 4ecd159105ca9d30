"""What one commit of the events log does: blocks in, duplicates found, offsets and times given."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from itertools import repeat
from typing import NamedTuple

import apsw
import msgspec

from headwater.log import MAX_AHEAD
from headwater.log import _table as table
from headwater.log._blocks import Block, Part, blocks, times
from headwater.log._entries import DEAD_LETTERS_KEPT
from headwater.log._ids import Ids
from headwater.log._payloads import EVENTS
from headwater.types import Appended, DeadLetter


class Submission(NamedTuple):
    """What one call put into the writer's queue."""

    parts: list[Part]
    letters: Sequence[DeadLetter]
    future: Future[list[Appended]]
    settled: Sequence[int] = ()


def commit(
    connection: apsw.Connection, ids: Ids, submissions: Sequence[Submission]
) -> tuple[list[list[Appended]], list[Block]]:
    """Writes the submissions in one transaction; returns once it is durable.

    Returns:
        The answers of each, and the blocks that were inserted.
    """
    connection.execute("BEGIN IMMEDIATE")
    answers, made = _insert(connection, ids, submissions)
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
    return answers, made


def _insert(
    connection: apsw.Connection, ids: Ids, submissions: Sequence[Submission]
) -> tuple[list[list[Appended]], list[Block]]:
    """Inserts the entries of every submission, and answers each with its offset."""
    start, end, newest = table.ends(connection)
    # What isn't in the log may be gone, up to this time.
    horizon = _time(connection, start + 1) + MAX_AHEAD if start else float("-inf")
    ids.catch_up(start, end)
    known = ids.find(
        [id for one in submissions for part in one.parts for id in part.ids if id is not None]
    )
    taking = _Taking(known, start, horizon, end)
    answers = [
        [answer for part in submission.parts for answer in taking.answers(part)]
        for submission in submissions
    ]
    made = blocks(taking.accepted, end + 1, newest)
    table.insert(connection, made)
    ids.add(taking.new, taking.end)
    ids.sweep(2 * len(taking.new), start)
    return answers, made


class _Taking:
    """What is accepted of parts, one after the other.

    Args:
        known: offsets by id, of all ids that the parts name.
        start: offset after which the log begins.
        horizon: events that aren't later may be gone.
        end: offset of the newest entry.
    """

    def __init__(self, known: dict[bytes, int], start: int, horizon: float, end: int) -> None:
        self._known = known
        self._start = start
        self._horizon = horizon
        self.end = end
        self.accepted: list[Part] = []
        self.new: list[tuple[bytes, int]] = []

    def answers(self, part: Part) -> list[Appended]:
        """What became of each entry."""
        if part.kind == EVENTS and self._are_new(part):
            return self._accept(part)
        answers: list[Appended] = []
        accepted: list[bool] = []
        offset = self.end
        for id, own_time in zip(part.ids, part.own_times.tolist(), strict=True):
            place = 0 if id is None else self._known.get(id, 0)
            is_known = place > self._start
            is_late = not is_known and part.kind == EVENTS and own_time <= self._horizon
            accepted.append(not (is_known or is_late))
            if is_known:
                answers.append(Appended(place, True))
            elif is_late:
                answers.append(Appended(0, False, self._horizon))
            else:
                offset += 1
                answers.append(Appended(offset, False))
                if id is not None:
                    self._known[id] = offset
        self._accept(part.only(accepted))
        return answers

    def _are_new(self, part: Part) -> bool:
        """Whether nothing was sent before, nor twice, nor too late: as it is mostly."""
        return (
            self._known.keys().isdisjoint(part.ids)
            and len(set(part.ids)) == len(part.ids)
            and bool((part.own_times > self._horizon).all())
        )

    def _accept(self, part: Part) -> list[Appended]:
        offsets = range(self.end + 1, self.end + 1 + len(part.ids))
        if offsets:
            self.accepted.append(part)
            self.end = offsets[-1]
            new = [(i, o) for i, o in zip(part.ids, offsets, strict=True) if i is not None]
            self.new += new
            self._known.update(new)
        return list(map(Appended, offsets, repeat(False)))


def _time(connection: apsw.Connection, offset: int) -> float:
    (piece,) = table.pieces(connection, offset - 1, 1)
    return float(times(piece)[1][0])
