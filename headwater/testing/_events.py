"""The contract of an events log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from headwater.errors import Dropped, LogError
from headwater.log import MAX_AHEAD, EventsLog
from headwater.log.chunks import Chunk
from headwater.testing._outcome import PATIENCE, raised
from headwater.types import (
    Appended,
    Blank,
    DeadLetter,
    Entry,
    Event,
    Item,
    ItemRemoval,
    Promotion,
    Record,
    Resume,
    Rollback,
    User,
    UserRemoval,
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
            first = log.append([_event("a"), _event("b")], 200.0)
            second = log.append([_event("c")], 201.0)
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
            passed_over=("i,2", "é"),
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
        user = User("u1", {"plan": "gold", "age": 41.0, "staff": False, "likes": ["a", "ü"]})
        entries: list[Entry] = [full, item, ItemRemoval("i1"), Item("i2"), _event("plain")]
        entries += [user, UserRemoval("u1"), User("u2")]
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append(entries, 1_700_000_001.5)
            records = log.read(0, 10)
            assert [record.entry for record in records] == entries
            assert {record.received_at for record in records} == {1_700_000_001.5}

    def test_reading_goes_on_after_an_offset_and_stops_at_the_limit(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([_event(f"e{n}") for n in range(25)], 200.0)
            seen: list[str] = []
            after = 0
            for expected in (10, 10, 5, 0):
                records = log.read(after, 10)
                assert len(records) == expected
                seen += _ids(records)
                after = records[-1].offset if records else after
            assert seen == [f"e{n}" for n in range(25)]
            assert _ids(log.read(answers[3].offset, 2)) == ["e4", "e5"]
            assert log.read(log.end(), 10) == []

    def test_reading_by_the_column_says_the_same(self, tmp_path: Path) -> None:
        entries: list[Entry] = [
            _event("a", 100.0),
            msgspec.structs.replace(
                _event("b", 90.0), type="click", session_id="s", recommendation_id="r"
            ),
            Item("i1"),
            User("u1"),
            msgspec.structs.replace(_event("c", 300.0), item_id=None, imported=True),
            UserRemoval("u1"),
            Rollback("r", 1, 2, 3, "ops", "why"),
            msgspec.structs.replace(_event("d", 400.0), type="a type of its own"),
        ]
        with contextlib.closing(self.open(tmp_path)) as log:
            for n in range(3):
                log.append([_event(f"e{n}-{k}", float(k)) for k in range(300)], 200.0 + n)
                log.append(entries[3 * n : 3 * n + 3], 300.0 + n)
            for after, limit in ((0, 2000), (0, 1), (299, 3), (298, 8), (305, 299), (900, 9)):
                read = log.chunk(after, limit)
                records = log.read(after, limit)
                assert _by_record(read) == [_said(record) for record in records]
                no_events = [r for r in records if not isinstance(r.entry, Event)]
                assert list(read.others) == no_events
            assert len(log.chunk(log.end(), 10)) == 0
            log.drop(5)
            assert raised(lambda: log.chunk(4, 10)) is Dropped

    def test_an_event_counts_once(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            a, again, b = log.append([_event("a"), _event("a", 150.0), _event("b")], 200.0)
            assert (again.offset, again.duplicate) == (a.offset, True)
            answers = log.append([_event("b", 160.0), _event("c"), _event("a")], 201.0)
            assert [answer.duplicate for answer in answers] == [True, False, True]
            assert (answers[0].offset, answers[2].offset) == (b.offset, a.offset)
            assert answers[1].offset > b.offset
            assert log.end() == answers[1].offset
            assert [record.entry for record in log.read(0, 10)] == [
                _event("a"),
                _event("b"),
                _event("c"),
            ]
            assert log.append([_event("c")], 202.0) == [Appended(answers[1].offset, True)]

    def test_ids_are_scoped_by_source(self, tmp_path: Path) -> None:
        entries = [
            _event("a"),
            _event("a", source="web"),
            _event("b", source="we"),
            _event("bb", source="w"),
            _event("a", source="web"),
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
            log.append([_event("a", 100.0), _event("late", 50.0), _event("b", 120.0)], 1000.0)
            log.append([_event("fast clock", 5000.0)], 1001.0)
            log.append([_event("a", 1500.0)], 2000.0)
            log.append(
                [_event("after a duplicate", 1002.0), Item("i"), _event("c", 1800.0)], 1900.0
            )
            log.append([_event("server clock went back", 1950.0)], 1850.0)
            times = [record.stream_time for record in log.read(0, 20)]
            assert times == [100.0, 100.0, 120.0, 1001.0, 1002.0, 1002.0, 1800.0, 1850.0]

    def test_a_user_set_twice_is_two_entries(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([User("u"), User("u"), UserRemoval("u"), UserRemoval("u")], 1.0)
            assert len({answer.offset for answer in answers}) == 4
            assert not any(answer.duplicate for answer in answers)

    def test_items_and_users_do_not_move_the_stream_time(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append([Item("i"), ItemRemoval("i"), User("u")], 2000.0)
            log.append([_event("a", 100.0), Item("i"), UserRemoval("u")], 2000.0)
            times = [record.stream_time for record in log.read(0, 10)]
            assert times == [0.0, 0.0, 0.0, 100.0, 100.0, 100.0]

    def test_rollbacks_are_found_among_the_rest_and_count_once(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            first, second = (Rollback(id, 1, 2, 3, "ops", "why") for id in ("r1", "r2"))
            assert log.rollbacks(0) == []
            log.append([_event("a", 100.0), first, _event("r1", 101.0)], 200.0)
            spoof = msgspec.structs.replace(_event("b"), source="headwater/rollback")
            (again, *_) = log.append([first, spoof, second], 200.0)
            assert (again.offset, again.duplicate) == (2, True)
            found = log.rollbacks(0)
            assert [record.entry for record in found] == [first, second]
            assert log.rollbacks(2) == found[1:]
            assert log.read(1, 1) == found[:1]
            assert found[0].stream_time == 100.0, "it doesn't move the stream time"

    def test_promotions_are_found_likewise_and_apart(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            promotion = Promotion("p1", 3, {"sequence.layers": 2}, "ops", "why")
            rollback = Rollback("p1", 1, 2, 3, "ops", "why")
            log.append([rollback, promotion], 200.0)
            (again,) = log.append([promotion], 200.0)
            assert (again.offset, again.duplicate) == (2, True)
            assert [record.entry for record in log.promotions(0)] == [promotion]
            assert [record.entry for record in log.rollbacks(0)] == [rollback]
            assert log.promotions(2) == []

    def test_orders_to_learn_on_are_found_likewise_and_each_counts(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            first, second = Resume("ops", "a sale"), Resume("ops", "a sale")
            log.append([_event("a"), first, _event("b"), Promotion("p", 3, {}, "ops", "")], 200.0)
            log.append([second], 300.0)
            assert [(r.offset, r.received_at) for r in log.resumes(0)] == [(2, 200.0), (5, 300.0)]
            assert [record.offset for record in log.resumes(2)] == [5]
            assert log.read(1, 1)[0].entry == first

    def test_orders_are_taken_where_the_oldest_entries_were_dropped(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append([_event("a", 100.0), _event("b", 200.0)], 300.0)
            log.drop(1)
            promotion = Promotion("p1", 3, {}, "ops", "why")
            rollback = Rollback("r1", 1, 2, 3, "ops", "why")
            answers = log.append([rollback, promotion], 400.0)
            assert [answer.offset for answer in answers] == [3, 4]
            assert log.rollbacks(0)[0].entry == rollback
            assert log.promotions(0)[0].entry == promotion

    def test_acknowledged_is_readable_at_once(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            for n in range(50):
                (answer,) = log.submit([_event(f"e{n}")], 200.0).result(PATIENCE)
                assert log.end() == answer.offset
                assert _ids(log.read(answer.offset - 1, 10)) == [f"e{n}"]

    def test_a_call_of_many_threads_stays_together_and_in_order(self, tmp_path: Path) -> None:
        def client(name: str) -> list[list[Appended]]:
            answers = []
            for n in range(20):
                call = [_event(f"{name}-{n}-{k}") for k in range(5)]
                answers.append(log.submit([_event("shared"), *call], 200.0).result(PATIENCE))
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
            _event("bad", float("nan")),
            _event("bad", float("inf")),
            Event("bad", "rating", "u", 1.0, value=float("nan")),
            Item("bad", vectors={"text": [1.0, float("nan")]}),
            Item("bad", price=float("inf")),
            Item("bad", attributes={"size": float("nan")}),
            User("bad", {"age": float("inf")}),
        ]
        with contextlib.closing(self.open(tmp_path)) as log:
            for n, entry in enumerate(bad):
                refused = log.submit([_event(f"beside {n}"), entry], 200.0)
                kept = log.submit([_event(f"kept {n}")], 200.0)
                assert isinstance(refused.exception(PATIENCE), LogError)
                kept.result(PATIENCE)
            assert raised(lambda: log.append([_event("a")], float("nan"))) is LogError
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
            (answer,) = log.append([_event("a")], 200.0)
            assert all(waiter.result(PATIENCE) for waiter in waiters)
            assert not beyond.done()
            log.append([_event("b")], 200.0)
            assert beyond.result(PATIENCE)
            assert log.wait(answer.offset - 1, 0.0)

    def test_closing_ends_a_wait_and_refuses_appends(self, tmp_path: Path) -> None:
        log = self.open(tmp_path)
        with ThreadPoolExecutor(1) as threads:
            waiter = threads.submit(log.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.close()
            assert not waiter.result(PATIENCE / 2)
        assert isinstance(log.submit([_event("a")], 200.0).exception(PATIENCE), LogError)
        assert raised(lambda: log.refuse([_letter(1)])) is LogError
        log.close()

    def test_dead_letters_come_newest_first(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            assert (log.dead_letter_count(), log.dead_letters(10)) == (0, [])
            log.refuse([_letter(1), _letter(2)])
            log.refuse([])
            log.refuse([_letter(3)])
            assert log.dead_letter_count() == 3
            assert log.dead_letters(10) == [_numbered(3), _numbered(2), _numbered(1)]
            assert log.dead_letters(1) == [_numbered(3)]
            assert log.dead_letters(1, before=3) == [_numbered(2)]
            assert log.dead_letters(10, before=3) == [_numbered(2), _numbered(1)]
            assert log.dead_letters(10, before=1) == []
            assert log.end() == 0

    def test_a_settled_letter_is_gone_and_its_number_is_not_given_again(
        self, tmp_path: Path
    ) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.refuse([_letter(1), _letter(2), _letter(3)])
            assert log.dead_letter(2) == _numbered(2)
            assert [log.dead_letter(number) for number in (0, 4)] == [None, None]
            log.settle(2)
            log.settle(3)
            log.settle(2)
            log.settle(9)
            assert log.dead_letter(2) is None
            assert log.dead_letters(10) == [_numbered(1)]
            assert log.dead_letter_count() == 3
            log.refuse([_letter(4)])
            assert log.dead_letters(10) == [_numbered(4), _numbered(1)]
            assert log.dead_letter_count() == 4

    def test_the_oldest_entries_can_be_dropped(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.drop(10)
            assert (log.start(), log.end()) == (0, 0)
            log.append([Item("i"), *(_event(f"e{n}", 100.0 + n) for n in range(600))], 9000.0)
            full = log.size()
            log.drop(0)
            assert (log.start(), len(log.read(0, 1000))) == (0, 601)
            log.drop(501)
            log.drop(3)
            assert (log.start(), log.end()) == (501, 601)
            assert _ids(log.read(501, 1000)) == [f"e{n}" for n in range(500, 600)]
            assert _ids(log.read(550, 1)) == ["e549"]
            assert [log.read(601, 9), log.read(999, 9)] == [[], []]
            assert raised(lambda: log.read(0, 9)) is Dropped
            assert raised(lambda: log.read(500, 9)) is Dropped
            assert 0 < log.size() < full

    def test_the_newest_entry_stays_and_time_goes_on_from_it(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append([_event("a", 1000.0), _event("b", 2000.0), Item("i")], 9000.0)
            log.drop(99)
            assert (log.start(), log.end()) == (2, 3)
            item, late = log.append([Item("j"), _event("late", 2000.0 + MAX_AHEAD + 1)], 2100.0)
            assert (item.offset, late.offset) == (4, 0)
            (late,) = log.append([_event("late", 2000.0 + MAX_AHEAD + 1)], 9000.0)
            assert late.offset == 5
            times = [record.stream_time for record in log.read(2, 9)]
            assert times == [2000.0, 2000.0, 2000.0 + MAX_AHEAD + 1]

    def test_what_may_have_been_dropped_is_refused(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            # The clock of its client is ahead: it is kept as of when it came.
            log.append([_event("ahead", 1000.0 + MAX_AHEAD)], 1000.0)
            log.append([_event("kept", 1001.0), _event("new", 5000.0)], 9000.0)
            before = log.append([_event("kept", 1001.0), _event("older than all", 1.0)], 9000.0)
            assert [answer.older_than for answer in before] == [None, None]
            log.drop(1)
            horizon = 1001.0 + MAX_AHEAD
            answers = log.append(
                [
                    _event("ahead", 1000.0 + MAX_AHEAD),
                    _event("kept", 1001.0),
                    _event("unknown", horizon),
                    _event("kept", 1001.0, source="web"),
                    _event("late", horizon + 1),
                    _event("late", horizon + 1),
                ],
                9000.0,
            )
            refused = Appended(0, False, horizon)
            assert answers == [
                refused,
                Appended(2, True),
                refused,
                refused,
                Appended(5, False),
                Appended(5, True),
            ]
            assert log.end() == 5
            log.drop(4)
            assert log.append([_event("new", 5000.0)], 9000.0)[0].older_than == 5000.0 + MAX_AHEAD

    def test_letters_from_before_the_oldest_entry_are_dropped_with_the_rest(
        self, tmp_path: Path
    ) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.refuse([_letter(n) for n in (1, 2, 3, 4)])
            for n in (1, 2, 3, 4):
                log.append([_event(f"e{n}", float(n))], float(n))
            log.settle(1)
            log.drop(0)
            assert [letter.number for letter in log.dead_letters(9)] == [4, 3, 2]
            log.drop(2)
            assert [letter.number for letter in log.dead_letters(9)] == [4, 3]
            log.drop(9)
            assert [letter.number for letter in log.dead_letters(9)] == [4]
            assert log.dead_letter_count() == 4

    def test_a_blanked_entry_keeps_its_place_and_counts_once(self, tmp_path: Path) -> None:
        entries: list[Entry] = [
            _event("a", 100.0),
            _event("b", 200.0, "web"),
            User("u1"),
            _event("c", 300.0),
        ]
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append(entries, 900.0)
            times = [(record.offset, record.stream_time) for record in log.read(0, 9)]
            log.blank([1, 2, 3])
            log.blank([2])
            records = log.read(0, 9)
            assert [record.entry for record in records] == [Blank()] * 3 + [entries[3]]
            assert [(record.offset, record.stream_time) for record in records] == times
            again = [entries[0], entries[1], _event("b", 200.0), entries[3]]
            answers = log.append(again, 901.0)
            assert [answer.offset for answer in answers] == [1, 2, 5, 4]
            assert [answer.duplicate for answer in answers] == [True, True, False, True]
            log.drop(1)
            answers = log.append(entries[:2], 902.0)
            assert answers[0].older_than is not None
            assert answers[1] == Appended(2, True)

    def test_entries_are_blanked_and_dropped_wherever_they_stand(self, tmp_path: Path) -> None:
        """However a backend keeps them together."""
        with contextlib.closing(self.open(tmp_path)) as log:
            events = [_event(f"e{n}", 100.0 + n) for n in range(1000)]
            log.append(events, 90_000.0)
            erased = {2, 3, 10, 257, 258, 999, 1000}
            log.blank([2, 10, 257])
            log.blank(sorted(erased - {2, 10, 257}))
            for start in (0, 1, 2, 120, 256, 257, 901):
                log.drop(start)
                records = log.read(start, 2000)
                assert [record.offset for record in records] == list(range(start + 1, 1001))
                assert [record.stream_time for record in records] == [
                    99.0 + offset for offset in range(start + 1, 1001)
                ]
                assert {r.offset for r in records if r.entry == Blank()} == {
                    offset for offset in erased if offset > start
                }
            again = log.append(events, 90_001.0)
            assert [answer.offset for answer in again] == [0] * 901 + list(range(902, 1001))
            assert log.end() == 1000


class SharedEventsLogContract(EventsLogContract):
    """An events log that outlives its process and may be open several times at once."""

    def test_everything_is_there_after_opening_again(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([_event("a", 100.0), _event("b", 150.0)], 200.0)
            log.refuse([_letter(1)])
            records = log.read(0, 10)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.read(0, 10) == records
            assert log.end() == answers[-1].offset
            assert log.dead_letters(10) == [_numbered(1)]
            again, new = log.append([_event("a"), _event("c", 120.0)], 300.0)
            assert again == Appended(answers[0].offset, True)
            assert new.offset > answers[-1].offset
            assert log.read(answers[-1].offset, 10)[0].stream_time == 150.0

    def test_what_was_submitted_is_committed_before_closing(self, tmp_path: Path) -> None:
        log = self.open(tmp_path)
        futures = [log.submit([_event(f"e{n}")], 200.0) for n in range(50)]
        log.close()
        assert all(len(future.result(0)) == 1 for future in futures)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert _ids(log.read(0, 100)) == [f"e{n}" for n in range(50)]

    def test_two_open_logs_are_one(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as one,
            contextlib.closing(self.open(tmp_path)) as two,
        ):
            (a,) = one.append([_event("a", 100.0)], 200.0)
            again, b = two.append([_event("a"), _event("b", 90.0)], 200.0)
            (c,) = one.append([_event("c", 95.0)], 200.0)
            assert again == Appended(a.offset, True)
            assert a.offset < b.offset < c.offset
            assert one.read(0, 10) == two.read(0, 10)
            assert [record.stream_time for record in one.read(0, 10)] == [100.0] * 3

    def test_appends_of_two_logs_interleave(self, tmp_path: Path) -> None:
        def client(name: str) -> None:
            with contextlib.closing(self.open(tmp_path)) as log:
                for n in range(20):
                    log.append([_event(f"{name}{n}"), _event(f"shared {n}")], 200.0)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(client, "abc"))
        with contextlib.closing(self.open(tmp_path)) as log:
            records = log.read(0, 1000)
        assert len(records) == 20 * 4
        assert len(set(_ids(records))) == len(records)
        assert sorted({record.offset for record in records}) == [r.offset for r in records]

    def test_dropping_and_appending_at_once(self, tmp_path: Path) -> None:
        def client(log: EventsLog) -> list[int]:
            times = (10_000.0 + 1_000.0 * n for n in range(200))
            answers = [log.append([_event(f"new {at}", at)], at)[0] for at in times]
            return [answer.offset for answer in answers]

        with (
            contextlib.closing(self.open(tmp_path)) as one,
            contextlib.closing(self.open(tmp_path)) as two,
            ThreadPoolExecutor(1) as threads,
        ):
            one.append([_event(f"e{n}", 100.0) for n in range(2000)], 200.0)
            appending = threads.submit(client, one)
            for through in range(0, 2001, 50):
                two.drop(through)
            assert appending.result(PATIENCE) == list(range(2001, 2201))
            two.drop(2000)
            assert (one.start(), two.start(), len(one.read(2000, 999))) == (2000, 2000, 200)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.start() == 2000
            assert log.append([_event("e7")], 1e6)[0].older_than == 10_000.0 + MAX_AHEAD

    def test_a_wait_ends_by_the_append_of_another(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as follower,
            contextlib.closing(self.open(tmp_path)) as log,
            ThreadPoolExecutor(1) as threads,
        ):
            waiter = threads.submit(follower.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.append([_event("a")], 200.0)
            assert waiter.result(PATIENCE)


def _event(event_id: str, timestamp: float = 100.0, source: str = "") -> Event:
    """A view with this id."""
    return Event(
        event_id=event_id,
        type="view",
        user_id="u1",
        item_id="i1",
        timestamp=timestamp,
        source=source,
    )


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


def _numbered(number: int) -> DeadLetter:
    """The same, as a log keeps it that has kept ``number`` of them."""
    return msgspec.structs.replace(_letter(number), number=number)


def _said(record: Record) -> tuple[object, ...]:
    """What a chunk has to say of it."""
    place = (record.offset, record.received_at, record.stream_time)
    if not isinstance(event := record.entry, Event):
        return place
    who = (event.user_id, event.item_id, event.type)
    said = (event.timestamp, event.session_id, event.recommendation_id, event.imported)
    return (*place, *who, *said)


def _by_record(read: Chunk) -> list[tuple[object, ...]]:
    """The same as a chunk says it, by its columns."""
    found: list[tuple[object, ...]] = list(
        zip(read.offsets.tolist(), read.received.tolist(), read.times.tolist(), strict=True)
    )
    types = [read.type_names[place] for place in read.types.tolist()]
    of_events = zip(
        read.users,
        read.items,
        types,
        read.own_times.tolist(),
        read.sessions,
        read.recommendations,
        read.imported.tolist(),
        strict=True,
    )
    for place, event in zip(read.places.tolist(), of_events, strict=True):
        found[place] += event
    return found
