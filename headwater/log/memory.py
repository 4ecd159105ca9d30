"""Both logs in the memory of one process: for replay, where speed counts, and for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import islice, takewhile

import msgspec

from headwater.errors import Dropped, Fenced, LogError
from headwater.log import MAX_AHEAD, NO_TIME, StoredUpdate
from headwater.log._entries import (
    DEAD_LETTERS_KEPT,
    PROMOTIONS,
    ROLLBACKS,
    check,
    erased_id,
)
from headwater.log.chunks import Chunk
from headwater.types import (
    Appended,
    Blank,
    DeadLetter,
    Entry,
    Event,
    Promotion,
    Record,
    Resume,
    Rollback,
)


class _Waiting:
    """What both logs share: one lock, and waiters that every append wakes."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._closed = False

    def close(self) -> None:
        """Ends every wait; appending is refused from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: ready() or self._closed, timeout)
            return ready()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise LogError("the log is closed; open a new one to append")


class MemoryEventsLog(_Waiting):
    """An ``EventsLog`` that lives as long as its process.

    A submitted future is resolved when it is returned: there is nothing to wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: list[Record] = []
        self._orders: list[Record] = []
        # The id alone where there is no source: a string instead of a tuple saves 56 bytes an
        # event, and can't be equal to a tuple.
        self._offsets: dict[str | tuple[str, str], int] = {}
        self._erased: dict[str, int] = {}
        self._start = self._end = 0
        self._letters: dict[int, DeadLetter] = {}
        self._letter_count = 0

    def submit(self, entries: Sequence[Entry], received_at: float) -> Future[list[Appended]]:
        future: Future[list[Appended]] = Future()
        try:
            future.set_result(self.append(entries, received_at))
        except LogError as error:
            future.set_exception(error)
        return future

    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        check(entries, received_at)
        answers: list[Appended] = []
        with self._changed:
            self._refuse_if_closed()
            records, offsets = self._records, self._offsets
            offset = self._end + 1
            newest = records[-1].stream_time if records else float("-inf")
            horizon = records[0].stream_time + MAX_AHEAD if self._start else float("-inf")
            for entry in entries:
                own = NO_TIME
                if type(entry) is Event:
                    key = _key(entry)
                    own = min(entry.timestamp, received_at)
                    if own <= horizon and not self._known(entry):
                        answers.append(Appended(0, False, horizon))
                        continue
                    known = self._known(entry) if self._erased else 0
                    known = known or offsets.setdefault(key, offset)
                    if known != offset:
                        answers.append(Appended(known, True))
                        continue
                    own = min(entry.timestamp, received_at)
                elif (order := _order(entry)) is not None:
                    known = offsets.setdefault(order, offset)
                    if known != offset:
                        answers.append(Appended(known, True))
                        continue
                if own > newest:
                    newest = own
                records.append(Record(offset, received_at, newest, entry))
                if isinstance(entry, (Rollback, Promotion, Resume)):
                    self._orders.append(records[-1])
                answers.append(Appended(offset, False))
                offset += 1
            self._end = offset - 1
            self._changed.notify_all()
        return answers

    def _known(self, event: Event) -> int:
        """Where an event is that is there already, erased or not; 0 where it isn't."""
        erased = self._erased.get(erased_id(event.source, event.event_id), 0)
        return erased or self._offsets.get(_key(event), 0)

    def read(self, after: int, limit: int) -> list[Record]:
        with self._changed:
            place = max(after, 0) - self._start
            if place < 0:
                raise Dropped(self._start)
            return self._records[place : place + limit]

    def chunk(self, after: int, limit: int) -> Chunk:
        return Chunk.of(self.read(after, limit))

    def start(self) -> int:
        return self._start

    def end(self) -> int:
        return self._end

    def size(self) -> int:
        return sum(len(msgspec.json.encode(record.entry)) for record in self._records)

    def drop(self, through: int) -> None:
        with self._changed:
            n = min(through, self._end - 1) - self._start
            if n <= 0:
                return
            for record in self._records[:n]:
                if isinstance(record.entry, Event):
                    del self._offsets[_key(record.entry)]
            self._start += n
            self._erased = {id: place for id, place in self._erased.items() if place > self._start}
            del self._records[:n]
            oldest = self._records[0].received_at
            old = takewhile(lambda letter: letter.received_at < oldest, self._letters.values())
            for letter in list(old):
                del self._letters[letter.number]

    def blank(self, offsets: Sequence[int]) -> None:
        with self._changed:
            for offset in offsets:
                record = self._records[offset - self._start - 1]
                if isinstance(event := record.entry, Event):
                    del self._offsets[_key(event)]
                    self._erased[erased_id(event.source, event.event_id)] = offset
                blanked = msgspec.structs.replace(record, entry=Blank())
                self._records[offset - self._start - 1] = blanked

    def rollbacks(self, after: int) -> list[Record]:
        return self._orders_of(Rollback, after)

    def promotions(self, after: int) -> list[Record]:
        return self._orders_of(Promotion, after)

    def resumes(self, after: int) -> list[Record]:
        return self._orders_of(Resume, after)

    def _orders_of(self, kind: type[Entry], after: int) -> list[Record]:
        behind = max(after, self._start)
        return [r for r in self._orders if r.offset > behind and isinstance(r.entry, kind)]

    def wait(self, after: int, timeout: float) -> bool:
        return self._wait(lambda: self._end > after, timeout)

    def refuse(self, letters: Sequence[DeadLetter]) -> None:
        with self._changed:
            self._refuse_if_closed()
            for letter in letters:
                self._letter_count += 1
                number = self._letter_count
                self._letters[number] = msgspec.structs.replace(letter, number=number)
                self._letters.pop(number - DEAD_LETTERS_KEPT, None)

    def dead_letters(self, limit: int, before: int | None = None) -> list[DeadLetter]:
        with self._changed:
            newest_first = (
                letter
                for number, letter in reversed(self._letters.items())
                if before is None or number < before
            )
            return list(islice(newest_first, limit))

    def dead_letter(self, number: int) -> DeadLetter | None:
        return self._letters.get(number)

    def settle(self, number: int) -> None:
        with self._changed:
            self._refuse_if_closed()
            self._letters.pop(number, None)

    def dead_letter_count(self) -> int:
        return self._letter_count


def _key(event: Event) -> str | tuple[str, str]:
    return (event.source, event.event_id) if event.source else event.event_id


def _order(entry: Entry) -> tuple[str, str] | None:
    if type(entry) is Rollback:
        return ROLLBACKS, entry.rollback_id
    return (PROMOTIONS, entry.promotion_id) if type(entry) is Promotion else None


class MemoryUpdatesLog(_Waiting):
    """An ``UpdatesLog`` that lives as long as its process."""

    def __init__(self) -> None:
        super().__init__()
        self._updates: dict[int, StoredUpdate] = {}
        self._first = 1
        self._end = 0
        self._token = 0

    def acquire(self) -> int:
        with self._changed:
            self._token += 1
            return self._token

    def append(self, update: StoredUpdate, token: int) -> None:
        with self._changed:
            self._refuse_if_closed()
            if token != self._token:
                raise _fenced(token, self._token)
            if update.sequence != self._end + 1:
                raise LogError(f"sequence is {update.sequence}; the next one is {self._end + 1}")
            self._end = update.sequence
            self._updates[self._end] = msgspec.structs.replace(update, appended_at=time.time())
            self._changed.notify_all()

    def read(self, after: int, limit: int) -> list[StoredUpdate]:
        with self._changed:
            start = max(after + 1, self._first)
            return [self._updates[n] for n in range(start, min(start + limit, self._end + 1))]

    def end(self) -> int:
        return self._end

    def drop(self, through: int) -> None:
        with self._changed:
            last = min(through, self._end)
            for sequence in range(self._first, last + 1):
                del self._updates[sequence]
            self._first = max(self._first, last + 1)

    def sync(self, token: int) -> None:
        """Nothing outlives the process, so there is nothing to make durable."""
        if token != self._token:
            raise _fenced(token, self._token)

    def wait(self, after: int, timeout: float) -> bool:
        return self._wait(lambda: self._end > after, timeout)


def _fenced(token: int, newest: int) -> Fenced:
    return Fenced(f"token {token} is not the newest, {newest}; stop this trainer")
