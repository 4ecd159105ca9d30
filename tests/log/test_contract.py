"""Every backend passes the contract, and the contract catches backends that are broken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from headwater.log import EventsLog, StoredUpdate, UpdatesLog, _ids, _index
from headwater.log.chunks import Chunk
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.testing import (
    EventsLogContract,
    SharedEventsLogContract,
    SharedUpdatesLogContract,
    UpdatesLogContract,
)
from headwater.types import Appended, DeadLetter, Entry, Event, Record


class TestMemoryEventsLog(EventsLogContract):
    def open(self, folder: Path) -> EventsLog:
        return MemoryEventsLog()


class TestSqliteEventsLog(SharedEventsLogContract):
    def open(self, folder: Path) -> EventsLog:
        return SqliteEventsLog(folder / "events.db")


class TestSqliteEventsLogWithoutIdsInMemory(TestSqliteEventsLog):
    """Each commit moves the ids of those before it into the index."""

    @pytest.fixture(autouse=True)
    def _holding_few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_ids, "HELD", 2)
        monkeypatch.setattr(_index, "PAGE", 2)


class TestMemoryUpdatesLog(UpdatesLogContract):
    def open(self, folder: Path) -> UpdatesLog:
        return MemoryUpdatesLog()


class TestSqliteUpdatesLog(SharedUpdatesLogContract):
    def open(self, folder: Path) -> UpdatesLog:
        return SqliteUpdatesLog(folder / "updates.db")


# --- broken on purpose: each must fail the test that stands beside it ----------------------------


class CountsDuplicatesTwice(MemoryEventsLog):
    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        self._offsets.clear()
        return super().append(entries, received_at)


class ForgetsDuplicatesWithinACall(MemoryEventsLog):
    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        known = dict(self._offsets)
        answers = []
        for entry in entries:
            self._offsets = dict(known)
            answers += super().append([entry], received_at)
        return answers


class IgnoresTheSource(MemoryEventsLog):
    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        def anonymous(entry: Entry) -> Entry:
            if not isinstance(entry, Event):
                return entry
            return Event(entry.event_id, entry.type, entry.user_id, entry.timestamp, entry.item_id)

        return super().append([anonymous(entry) for entry in entries], received_at)


class AcknowledgesBeforeCommit(MemoryEventsLog):
    """Answers with the right offsets, and appends with the next call."""

    def __init__(self) -> None:
        super().__init__()
        self._later: tuple[Sequence[Entry], float] = ((), 0.0)

    def submit(self, entries: Sequence[Entry], received_at: float) -> Future[list[Appended]]:
        future: Future[list[Appended]] = Future()
        future.set_result(
            [Appended(self.end() + 1 + n, False) for n in range(len(entries))],
        )
        self.append(*self._later)
        self._later = (entries, received_at)
        return future


class GoesBackInTime(MemoryEventsLog):
    def read(self, after: int, limit: int) -> list[Record]:
        def own_time(record: Record) -> float:
            if isinstance(record.entry, Event):
                return min(record.entry.timestamp, record.received_at)
            return record.received_at

        return [
            Record(record.offset, record.received_at, own_time(record), record.entry)
            for record in super().read(after, limit)
        ]


class TrustsTheClient(MemoryEventsLog):
    """Takes a timestamp ahead of the server's clock for the stream time."""

    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        times = [entry.timestamp for entry in entries if isinstance(entry, Event)]
        return super().append(entries, max([received_at, *times]))


class StoresNaN(MemoryEventsLog):
    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        answers = []
        for entry in entries:
            if isinstance(entry, Event) and entry.timestamp != entry.timestamp:
                entry = Event(entry.event_id, entry.type, entry.user_id, received_at)
            answers += super().append([entry], received_at)
        return answers


class SplitsACall(MemoryEventsLog):
    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        answers = []
        for entry in entries:
            answers += super().append([entry], received_at)
            time.sleep(0.0002)
        return answers


class ReadsInclusively(MemoryEventsLog):
    def read(self, after: int, limit: int) -> list[Record]:
        return super().read(max(after - 1, 0), limit)


class ForgetsWhatIsNoEvent(MemoryEventsLog):
    def chunk(self, after: int, limit: int) -> Chunk:
        return super().chunk(after, limit).events_only()


class BlanksTheNext(MemoryEventsLog):
    def blank(self, offsets: Sequence[int]) -> None:
        super().blank([min(offset + 1, self.end()) for offset in offsets])


class NeverWakes(MemoryEventsLog):
    def wait(self, after: int, timeout: float) -> bool:
        ready = self.end() > after
        if not ready:
            time.sleep(min(timeout, 0.3))
        return ready


class OldestLetterFirst(MemoryEventsLog):
    def dead_letters(self, limit: int, before: int | None = None) -> list[DeadLetter]:
        return list(self._letters.values())[:limit]


class NumbersAgain(MemoryEventsLog):
    """Gives the number of a settled letter to the next one."""

    def settle(self, number: int) -> None:
        super().settle(number)
        self._letter_count = max(self._letters, default=0)


class AppendsWhenClosed(MemoryEventsLog):
    def _refuse_if_closed(self) -> None:
        pass


class ReadsOverTheGap(MemoryEventsLog):
    def read(self, after: int, limit: int) -> list[Record]:
        return super().read(max(after, self.start()), limit)


class DropsAll(MemoryEventsLog):
    """Drops the newest entry too, and the stream time with it."""

    def drop(self, through: int) -> None:
        super().drop(through)
        if through >= self.end():
            self._records.clear()
            self._start = self._end


class ForgetsWhatItDropped(MemoryEventsLog):
    """Takes an event that was dropped for one that was never there."""

    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        start, self._start = self._start, 0
        try:
            return super().append(entries, received_at)
        finally:
            self._start = start


class KeepsOldLetters(MemoryEventsLog):
    def drop(self, through: int) -> None:
        letters = dict(self._letters)
        super().drop(through)
        self._letters = letters


class CountsTheErasedAgain(MemoryEventsLog):
    def blank(self, offsets: Sequence[int]) -> None:
        super().blank(offsets)
        self._erased.clear()


class Unfenced(MemoryUpdatesLog):
    def append(self, update: StoredUpdate, token: int) -> None:
        super().append(update, self._token)


class AnySequence(MemoryUpdatesLog):
    def append(self, update: StoredUpdate, token: int) -> None:
        self._end = update.sequence - 1
        super().append(update, token)


class ForgetsItsEnd(MemoryUpdatesLog):
    def drop(self, through: int) -> None:
        super().drop(through)
        self._end = max(self._updates, default=0)


class OneTokenForAll(MemoryUpdatesLog):
    def acquire(self) -> int:
        self._token = 1
        return 1


EVENTS = EventsLogContract
UPDATES = UpdatesLogContract


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (CountsDuplicatesTwice, EVENTS.test_an_event_counts_once),
        (ForgetsDuplicatesWithinACall, EVENTS.test_an_event_counts_once),
        (IgnoresTheSource, EVENTS.test_ids_are_scoped_by_source),
        (IgnoresTheSource, EVENTS.test_every_entry_comes_back_as_it_was),
        (AcknowledgesBeforeCommit, EVENTS.test_acknowledged_is_readable_at_once),
        (GoesBackInTime, EVENTS.test_stream_time_is_the_earlier_time_made_monotone),
        (TrustsTheClient, EVENTS.test_stream_time_is_the_earlier_time_made_monotone),
        (StoresNaN, EVENTS.test_what_cannot_be_stored_is_refused_alone),
        (SplitsACall, EVENTS.test_what_cannot_be_stored_is_refused_alone),
        (SplitsACall, EVENTS.test_a_call_of_many_threads_stays_together_and_in_order),
        (ReadsInclusively, EVENTS.test_reading_goes_on_after_an_offset_and_stops_at_the_limit),
        (ForgetsWhatIsNoEvent, EVENTS.test_reading_by_the_column_says_the_same),
        (BlanksTheNext, EVENTS.test_entries_are_blanked_and_dropped_wherever_they_stand),
        (NeverWakes, EVENTS.test_waiting_ends_when_an_offset_is_there),
        (OldestLetterFirst, EVENTS.test_dead_letters_come_newest_first),
        (NumbersAgain, EVENTS.test_a_settled_letter_is_gone_and_its_number_is_not_given_again),
        (AppendsWhenClosed, EVENTS.test_closing_ends_a_wait_and_refuses_appends),
        (ReadsOverTheGap, EVENTS.test_the_oldest_entries_can_be_dropped),
        (DropsAll, EVENTS.test_the_newest_entry_stays_and_time_goes_on_from_it),
        (ForgetsWhatItDropped, EVENTS.test_what_may_have_been_dropped_is_refused),
        (
            KeepsOldLetters,
            EVENTS.test_letters_from_before_the_oldest_entry_are_dropped_with_the_rest,
        ),
        (CountsTheErasedAgain, EVENTS.test_a_blanked_entry_keeps_its_place_and_counts_once),
        (Unfenced, UPDATES.test_a_newer_token_fences_off_the_older_ones),
        (OneTokenForAll, UPDATES.test_a_newer_token_fences_off_the_older_ones),
        (AnySequence, UPDATES.test_a_sequence_follows_the_one_before),
        (ForgetsItsEnd, UPDATES.test_the_end_survives_dropping),
    ],
)
def test_the_contract_catches(
    broken: type[EventsLog] | type[UpdatesLog], check: Callable[..., None], tmp_path: Path
) -> None:
    suite = EventsLogContract if issubclass(broken, MemoryEventsLog) else UpdatesLogContract
    contract = type("Contract", (suite,), {"open": lambda self, folder: broken()})()
    with pytest.raises(AssertionError):
        check(contract, tmp_path)
