"""Entries come back in order and as they were, at once and to who waits for them."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from headwater.errors import Dropped, LogError
from headwater.log.chunks import Chunk
from headwater.testing._events_suite import Suite, dead_letter, ids_of, view
from headwater.testing._outcome import PATIENCE, raised
from headwater.types import Entry, Event, Item, ItemRemoval, Record, Rollback, User, UserRemoval


class Reading(Suite):
    def test_offsets_start_at_1_and_follow_the_order_of_appending(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.end() == 0
            assert log.append([], 1.0) == []
            first = log.append([view("a"), view("b")], 200.0)
            second = log.append([view("c")], 201.0)
            offsets = [answer.offset for answer in first + second]
            assert offsets[0] == 1
            assert offsets == sorted(set(offsets))
            assert not any(answer.duplicate for answer in first + second)
            assert log.end() == offsets[-1]
            assert [record.offset for record in log.read(0, 10)] == offsets
            assert ids_of(log.read(0, 10)) == ["a", "b", "c"]

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
        entries: list[Entry] = [full, item, ItemRemoval("i1"), Item("i2"), view("plain")]
        entries += [user, UserRemoval("u1"), User("u2")]
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append(entries, 1_700_000_001.5)
            records = log.read(0, 10)
            assert [record.entry for record in records] == entries
            assert {record.received_at for record in records} == {1_700_000_001.5}

    def test_reading_goes_on_after_an_offset_and_stops_at_the_limit(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([view(f"e{n}") for n in range(25)], 200.0)
            seen: list[str] = []
            after = 0
            for expected in (10, 10, 5, 0):
                records = log.read(after, 10)
                assert len(records) == expected
                seen += ids_of(records)
                after = records[-1].offset if records else after
            assert seen == [f"e{n}" for n in range(25)]
            assert ids_of(log.read(answers[3].offset, 2)) == ["e4", "e5"]
            assert log.read(log.end(), 10) == []

    def test_reading_by_the_column_says_the_same(self, tmp_path: Path) -> None:
        entries: list[Entry] = [
            view("a", 100.0),
            msgspec.structs.replace(
                view("b", 90.0), type="click", session_id="s", recommendation_id="r"
            ),
            Item("i1"),
            User("u1"),
            msgspec.structs.replace(view("c", 300.0), item_id=None, imported=True),
            UserRemoval("u1"),
            Rollback("r", 1, 2, 3, "ops", "why"),
            msgspec.structs.replace(view("d", 400.0), type="a type of its own"),
        ]
        with contextlib.closing(self.open(tmp_path)) as log:
            for n in range(3):
                log.append([view(f"e{n}-{k}", float(k)) for k in range(300)], 200.0 + n)
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

    def test_acknowledged_is_readable_at_once(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            for n in range(50):
                (answer,) = log.submit([view(f"e{n}")], 200.0).result(PATIENCE)
                assert log.end() == answer.offset
                assert ids_of(log.read(answer.offset - 1, 10)) == [f"e{n}"]

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
            (answer,) = log.append([view("a")], 200.0)
            assert all(waiter.result(PATIENCE) for waiter in waiters)
            assert not beyond.done()
            log.append([view("b")], 200.0)
            assert beyond.result(PATIENCE)
            assert log.wait(answer.offset - 1, 0.0)

    def test_closing_ends_a_wait_and_refuses_appends(self, tmp_path: Path) -> None:
        log = self.open(tmp_path)
        with ThreadPoolExecutor(1) as threads:
            waiter = threads.submit(log.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.close()
            assert not waiter.result(PATIENCE / 2)
        assert isinstance(log.submit([view("a")], 200.0).exception(PATIENCE), LogError)
        assert raised(lambda: log.refuse([dead_letter(1)])) is LogError
        log.close()


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
