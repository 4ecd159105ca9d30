"""Contract suites: what every backend of the two logs must do.

A backend inherits a suite in its own tests and says how it is opened; pytest
collects the inherited ``test_*`` methods and gives each a folder of its own:

    class TestKafkaEventsLog(SharedEventsLogContract):
        def open(self, folder: Path) -> EventsLog:
            return KafkaEventsLog(...)

``EventsLogContract`` and ``UpdatesLogContract`` need one open log. The
``Shared...`` suites add what a log does that outlives its process and is open
in several: there, ``open`` twice on the same folder gives the same log.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from headwater.errors import Fenced, HeadwaterError, LogError
from headwater.log import EventsLog, StoredUpdate, UpdatesLog
from headwater.types import Appended, DeadLetter, Entry, Event, Item, ItemRemoval, Record

PATIENCE = 20.0
"""Seconds after which something that must happen counts as not happening."""


def event(event_id: str, timestamp: float = 100.0, source: str = "") -> Event:
    """A view with this id."""
    return Event(
        event_id=event_id,
        type="view",
        user_id="u1",
        item_id="i1",
        timestamp=timestamp,
        source=source,
    )


def update(sequence: int, epoch: int = 1) -> StoredUpdate:
    """An update with this sequence, its content derived from it."""
    return StoredUpdate(
        epoch=epoch,
        sequence=sequence,
        trained_through=sequence * 100,
        digest=f"digest of {sequence}",
        payload=bytes([sequence % 256, 0, 255]) * 10,
        report=b'{"sequence": %d}' % sequence,
    )


class EventsLogContract:
    """One open events log: order, uniqueness, stream time, waiting, dead letters."""

    def open(self, folder: Path) -> EventsLog:
        """An empty log, or, where the backend keeps it, the one that is in ``folder``."""
        raise NotImplementedError

    def test_offsets_start_at_1_and_follow_the_order_of_appending(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.end() == 0
            assert log.append([], 1.0) == []
            first = log.append([event("a"), event("b")], 200.0)
            second = log.append([event("c")], 201.0)
            offsets = [answer.offset for answer in first + second]
            assert offsets[0] == 1
            assert offsets == sorted(set(offsets))
            assert not any(answer.duplicate for answer in first + second)
            assert log.end() == offsets[-1]
            assert [record.offset for record in log.read(0, 10)] == offsets
            assert _ids(log.read(0, 10)) == ["a", "b", "c"]

    def test_every_entry_comes_back_as_it_was(self, tmp_path: Path) -> None:
        full = Event(
            event_id="é\0\N{SNOWMAN}",
            type="rating",
            user_id="u\t1",
            timestamp=1_700_000_000.123456,
            item_id="i,1",
            value=-0.1,
            session_id="s",
            recommendation_id="r",
            position=3,
            scenario="home",
            surface="app",
            context={"deep": [{"list": [1, "two", None, 3.5, True]}]},
            anonymous=True,
            source="web",
        )
        item = Item(
            item_id="i1",
            title="Ünï",
            categories=("a", "b"),
            tags=("t",),
            price=9.99,
            text="long " * 5000,
            attributes={"color": "red", "size": 4.0, "new": True, "in": ["x", "y"]},
            vectors={"image": [0.1, -2.0]},
            published_at=5.0,
            available=False,
        )
        entries: list[Entry] = [full, item, ItemRemoval("i1"), Item("i2"), event("plain")]
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append(entries, 1_700_000_001.5)
            records = log.read(0, 10)
            assert [record.entry for record in records] == entries
            assert {record.received_at for record in records} == {1_700_000_001.5}

    def test_reading_goes_on_after_an_offset_and_stops_at_the_limit(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([event(f"e{n}") for n in range(25)], 200.0)
            seen: list[str] = []
            after = 0
            while records := log.read(after, 10):
                assert len(records) <= 10
                seen += _ids(records)
                after = records[-1].offset
            assert seen == [f"e{n}" for n in range(25)]
            assert _ids(log.read(answers[3].offset, 2)) == ["e4", "e5"]
            assert log.read(log.end(), 10) == []

    def test_an_event_counts_once(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            a, again, b = log.append([event("a"), event("a", 150.0), event("b")], 200.0)
            assert (again.offset, again.duplicate) == (a.offset, True)
            answers = log.append([event("b", 160.0), event("c"), event("a")], 201.0)
            assert [answer.duplicate for answer in answers] == [True, False, True]
            assert (answers[0].offset, answers[2].offset) == (b.offset, a.offset)
            assert answers[1].offset > b.offset
            assert log.end() == answers[1].offset
            assert [record.entry for record in log.read(0, 10)] == [
                event("a"),
                event("b"),
                event("c"),
            ]
            assert log.append([event("c")], 202.0) == [Appended(answers[1].offset, True)]

    def test_ids_are_scoped_by_source(self, tmp_path: Path) -> None:
        entries = [
            event("a"),
            event("a", source="web"),
            event("b", source="we"),
            event("bb", source="w"),
            event("a", source="web"),
        ]
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append(entries, 200.0)
            assert [answer.duplicate for answer in answers] == [False] * 4 + [True]
            assert answers[4].offset == answers[1].offset

    def test_an_item_set_twice_is_two_entries(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([Item("i"), Item("i"), ItemRemoval("i"), ItemRemoval("i")], 1.0)
            assert len({answer.offset for answer in answers}) == 4
            assert not any(answer.duplicate for answer in answers)

    def test_stream_time_is_the_earlier_time_made_monotone(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append([event("a", 100.0), event("late", 50.0), event("b", 120.0)], 1000.0)
            log.append([event("fast clock", 5000.0)], 1001.0)
            log.append([event("a", 1500.0)], 2000.0)
            log.append([event("after a duplicate", 1002.0), Item("i"), event("c", 1800.0)], 1900.0)
            log.append([event("server clock went back", 1950.0)], 1850.0)
            times = [record.stream_time for record in log.read(0, 20)]
            assert times == [100.0, 100.0, 120.0, 1001.0, 1002.0, 1900.0, 1900.0, 1900.0]

    def test_acknowledged_is_readable_at_once(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            for n in range(50):
                (answer,) = log.submit([event(f"e{n}")], 200.0).result(PATIENCE)
                assert log.end() == answer.offset
                assert _ids(log.read(answer.offset - 1, 10)) == [f"e{n}"]

    def test_a_call_of_many_threads_stays_together_and_in_order(self, tmp_path: Path) -> None:
        def client(name: str) -> list[list[Appended]]:
            answers = []
            for n in range(20):
                call = [event(f"{name}-{n}-{k}") for k in range(5)]
                answers.append(log.submit([event("shared"), *call], 200.0).result(PATIENCE))
            return answers

        with (
            contextlib.closing(self.open(tmp_path)) as log,
            ThreadPoolExecutor(4) as threads,
        ):
            calls = [call for calls in threads.map(client, "abcd") for call in calls]
            shared = {call[0].offset for call in calls}
            assert len(shared) == 1
            assert sum(not call[0].duplicate for call in calls) == 1
            records = {record.offset: record.entry for record in log.read(0, 1000)}
            assert len(records) == 4 * 20 * 5 + 1
            order = sorted(records)
            for call in calls:
                places = [order.index(answer.offset) for answer in call[1:]]
                assert places == list(range(places[0], places[0] + 5))

    def test_what_cannot_be_stored_is_refused_alone(self, tmp_path: Path) -> None:
        bad: list[Entry] = [
            event("bad", float("nan")),
            event("bad", float("inf")),
            Event("bad", "rating", "u", 1.0, value=float("nan")),
            Item("bad", vectors={"text": [1.0, float("nan")]}),
            Item("bad", price=float("inf")),
            Item("bad", attributes={"size": float("nan")}),
        ]
        with contextlib.closing(self.open(tmp_path)) as log:
            for n, entry in enumerate(bad):
                refused = log.submit([event(f"beside {n}"), entry], 200.0)
                kept = log.submit([event(f"kept {n}")], 200.0)
                assert isinstance(refused.exception(PATIENCE), LogError)
                kept.result(PATIENCE)
            assert _raised(lambda: log.append([event("a")], float("nan"))) is LogError
            assert _ids(log.read(0, 100)) == [f"kept {n}" for n in range(len(bad))]

    def test_waiting_ends_when_an_offset_is_there(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as log,
            ThreadPoolExecutor(3) as threads,
        ):
            assert not log.wait(0, 0.0)
            started = time.monotonic()
            assert not log.wait(0, 0.05)
            assert 0.04 < time.monotonic() - started < PATIENCE
            waiters = [threads.submit(log.wait, 0, PATIENCE) for _ in range(2)]
            beyond = threads.submit(log.wait, 1, PATIENCE)
            time.sleep(0.05)
            (answer,) = log.append([event("a")], 200.0)
            assert all(waiter.result(PATIENCE) for waiter in waiters)
            assert not beyond.done()
            log.append([event("b")], 200.0)
            assert beyond.result(PATIENCE)
            assert log.wait(answer.offset - 1, 0.0)

    def test_closing_ends_a_wait_and_refuses_appends(self, tmp_path: Path) -> None:
        log = self.open(tmp_path)
        with ThreadPoolExecutor(1) as threads:
            waiter = threads.submit(log.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.close()
            assert not waiter.result(PATIENCE / 2)
        assert isinstance(log.submit([event("a")], 200.0).exception(PATIENCE), LogError)
        assert _raised(lambda: log.refuse([_letter(1)])) is LogError
        log.close()

    def test_dead_letters_come_newest_first(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            assert (log.dead_letter_count(), log.dead_letters(10)) == (0, [])
            log.refuse([_letter(1), _letter(2)])
            log.refuse([])
            log.refuse([_letter(3)])
            assert log.dead_letter_count() == 3
            assert log.dead_letters(10) == [_letter(3), _letter(2), _letter(1)]
            assert log.dead_letters(1) == [_letter(3)]
            assert log.end() == 0


class SharedEventsLogContract(EventsLogContract):
    """An events log that outlives its process and may be open several times at once."""

    def test_everything_is_there_after_opening_again(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([event("a", 100.0), event("b", 150.0)], 200.0)
            log.refuse([_letter(1)])
            records = log.read(0, 10)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.read(0, 10) == records
            assert log.end() == answers[-1].offset
            assert log.dead_letters(10) == [_letter(1)]
            again, new = log.append([event("a"), event("c", 120.0)], 300.0)
            assert again == Appended(answers[0].offset, True)
            assert new.offset > answers[-1].offset
            assert log.read(answers[-1].offset, 10)[0].stream_time == 150.0

    def test_what_was_submitted_is_committed_before_closing(self, tmp_path: Path) -> None:
        log = self.open(tmp_path)
        futures = [log.submit([event(f"e{n}")], 200.0) for n in range(50)]
        log.close()
        assert all(len(future.result(0)) == 1 for future in futures)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert _ids(log.read(0, 100)) == [f"e{n}" for n in range(50)]

    def test_two_open_logs_are_one(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as one,
            contextlib.closing(self.open(tmp_path)) as two,
        ):
            (a,) = one.append([event("a", 100.0)], 200.0)
            again, b = two.append([event("a"), event("b", 90.0)], 200.0)
            (c,) = one.append([event("c", 95.0)], 200.0)
            assert again == Appended(a.offset, True)
            assert a.offset < b.offset < c.offset
            assert one.read(0, 10) == two.read(0, 10)
            assert [record.stream_time for record in one.read(0, 10)] == [100.0] * 3

    def test_appends_of_two_logs_interleave(self, tmp_path: Path) -> None:
        def client(name: str) -> None:
            with contextlib.closing(self.open(tmp_path)) as log:
                for n in range(20):
                    log.append([event(f"{name}{n}"), event(f"shared {n}")], 200.0)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(client, "abc"))
        with contextlib.closing(self.open(tmp_path)) as log:
            records = log.read(0, 1000)
        assert len(records) == 20 * 4
        assert len(set(_ids(records))) == len(records)
        assert sorted({record.offset for record in records}) == [r.offset for r in records]

    def test_a_wait_ends_by_the_append_of_another(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as follower,
            contextlib.closing(self.open(tmp_path)) as log,
            ThreadPoolExecutor(1) as threads,
        ):
            waiter = threads.submit(follower.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.append([event("a")], 200.0)
            assert waiter.result(PATIENCE)


class UpdatesLogContract:
    """One open updates log: sequence, fencing, dropping, waiting."""

    def open(self, folder: Path) -> UpdatesLog:
        """An empty log, or, where the backend keeps it, the one that is in ``folder``."""
        raise NotImplementedError

    def test_updates_come_back_as_they_were(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            assert (log.end(), log.read(0, 10)) == (0, [])
            token = log.acquire()
            before = time.time()
            for sequence in range(1, 6):
                log.append(update(sequence, epoch=1 + sequence // 3), token)
            log.sync()
            found = log.read(0, 10)
            assert all(before <= entry.appended_at <= time.time() for entry in found)
            assert [_without_time(entry) for entry in found] == [
                update(sequence, epoch=1 + sequence // 3) for sequence in range(1, 6)
            ]
            assert log.end() == 5
            assert [entry.sequence for entry in log.read(2, 2)] == [3, 4]
            assert log.read(5, 10) == []

    def test_a_sequence_follows_the_one_before(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            token = log.acquire()
            for wrong in (0, 2):
                assert _raised(partial(log.append, update(wrong), token)) is LogError
            log.append(update(1), token)
            for wrong in (1, 3):
                assert _raised(partial(log.append, update(wrong), token)) is LogError
            log.append(update(2), token)
            assert [entry.sequence for entry in log.read(0, 10)] == [1, 2]

    def test_a_newer_token_fences_off_the_older_ones(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            old = log.acquire()
            log.append(update(1), old)
            new = log.acquire()
            assert new > old
            assert _raised(lambda: log.append(update(2), old)) is Fenced
            assert log.end() == 1
            log.append(update(2), new)
            assert _raised(lambda: log.append(update(3), old)) is Fenced
            assert log.end() == 2

    def test_the_end_survives_dropping(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            token = log.acquire()
            for sequence in range(1, 5):
                log.append(update(sequence), token)
            log.drop(2)
            assert [entry.sequence for entry in log.read(0, 10)] == [3, 4]
            log.drop(1)
            log.drop(100)
            assert (log.end(), log.read(0, 10)) == (4, [])
            assert _raised(lambda: log.append(update(1), token)) is LogError
            log.append(update(5), token)
            assert [entry.sequence for entry in log.read(0, 10)] == [5]

    def test_waiting_ends_when_a_sequence_is_there(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as log,
            ThreadPoolExecutor(1) as threads,
        ):
            token = log.acquire()
            assert not log.wait(0, 0.02)
            waiter = threads.submit(log.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.append(update(1), token)
            assert waiter.result(PATIENCE)
            log.drop(1)
            assert log.wait(0, 0.0)

    def test_closing_ends_a_wait_and_refuses_appends(self, tmp_path: Path) -> None:
        log = self.open(tmp_path)
        token = log.acquire()
        with ThreadPoolExecutor(1) as threads:
            waiter = threads.submit(log.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.close()
            assert not waiter.result(PATIENCE / 2)
        assert _raised(lambda: log.append(update(1), token)) is LogError
        log.close()


class SharedUpdatesLogContract(UpdatesLogContract):
    """An updates log that outlives its process and may be open several times at once."""

    def test_everything_is_there_after_opening_again(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            token = log.acquire()
            for sequence in (1, 2, 3):
                log.append(update(sequence), token)
            log.drop(2)
            kept = log.read(0, 10)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert (log.end(), log.read(0, 10)) == (3, kept)
            assert log.acquire() > token
            log.drop(3)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.end() == 3

    def test_two_open_logs_are_one(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as one,
            contextlib.closing(self.open(tmp_path)) as two,
            ThreadPoolExecutor(1) as threads,
        ):
            old = one.acquire()
            waiter = threads.submit(two.wait, 0, PATIENCE)
            time.sleep(0.05)
            one.append(update(1), old)
            assert waiter.result(PATIENCE)
            assert two.read(0, 10) == one.read(0, 10)
            new = two.acquire()
            assert _raised(lambda: one.append(update(2), old)) is Fenced
            two.append(update(2), new)
            assert one.end() == 2

    def test_tokens_are_given_once(self, tmp_path: Path) -> None:
        start = threading.Barrier(3)

        def trainer(_: int) -> list[int]:
            with contextlib.closing(self.open(tmp_path)) as log:
                start.wait(PATIENCE)
                return [log.acquire() for _ in range(10)]

        with ThreadPoolExecutor(3) as threads:
            tokens = [token for tokens in threads.map(trainer, range(3)) for token in tokens]
        assert len(set(tokens)) == 30


def _ids(records: Sequence[Record]) -> list[str]:
    return [record.entry.event_id for record in records if isinstance(record.entry, Event)]


def _letter(number: int) -> DeadLetter:
    return DeadLetter(
        received_at=float(number),
        source="web",
        body=f'{{"number": {number}, "é": "\\u0000"}}',
        field="timestamp",
        reason="is not a time",
    )


def _without_time(entry: StoredUpdate) -> StoredUpdate:
    return StoredUpdate(
        entry.epoch,
        entry.sequence,
        entry.trained_through,
        entry.digest,
        entry.payload,
        entry.report,
    )


def _raised(call: Callable[[], object]) -> type[HeadwaterError] | None:
    """What kind of error of ours the call ends in."""
    try:
        call()
    except HeadwaterError as error:
        return type(error)
    return None
