"""What counts once, when it happened, and which calls are taken as a whole or not at all."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headwater.errors import LogError
from headwater.testing._events_suite import Suite, ids_of, view
from headwater.testing._outcome import PATIENCE, raised
from headwater.types import Appended, Entry, Event, Item, ItemRemoval, User, UserRemoval


class Appending(Suite):
    def test_an_event_counts_once(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            a, again, b = log.append([view("a"), view("a", 150.0), view("b")], 200.0)
            assert (again.offset, again.duplicate) == (a.offset, True)
            answers = log.append([view("b", 160.0), view("c"), view("a")], 201.0)
            assert [answer.duplicate for answer in answers] == [True, False, True]
            assert (answers[0].offset, answers[2].offset) == (b.offset, a.offset)
            assert answers[1].offset > b.offset
            assert log.end() == answers[1].offset
            assert [record.entry for record in log.read(0, 10)] == [
                view("a"),
                view("b"),
                view("c"),
            ]
            assert log.append([view("c")], 202.0) == [Appended(answers[1].offset, True)]

    def test_ids_are_scoped_by_source(self, tmp_path: Path) -> None:
        entries = [
            view("a"),
            view("a", source="web"),
            view("b", source="we"),
            view("bb", source="w"),
            view("a", source="web"),
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

    def test_a_user_set_twice_is_two_entries(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([User("u"), User("u"), UserRemoval("u"), UserRemoval("u")], 1.0)
            assert len({answer.offset for answer in answers}) == 4
            assert not any(answer.duplicate for answer in answers)

    def test_stream_time_is_the_earlier_time_made_monotone(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append([view("a", 100.0), view("late", 50.0), view("b", 120.0)], 1000.0)
            log.append([view("fast clock", 5000.0)], 1001.0)
            log.append([view("a", 1500.0)], 2000.0)
            log.append([view("after a duplicate", 1002.0), Item("i"), view("c", 1800.0)], 1900.0)
            log.append([view("server clock went back", 1950.0)], 1850.0)
            times = [record.stream_time for record in log.read(0, 20)]
            assert times == [100.0, 100.0, 120.0, 1001.0, 1002.0, 1002.0, 1800.0, 1850.0]

    def test_items_and_users_do_not_move_the_stream_time(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append([Item("i"), ItemRemoval("i"), User("u")], 2000.0)
            log.append([view("a", 100.0), Item("i"), UserRemoval("u")], 2000.0)
            times = [record.stream_time for record in log.read(0, 10)]
            assert times == [0.0, 0.0, 0.0, 100.0, 100.0, 100.0]

    def test_a_call_of_many_threads_stays_together_and_in_order(self, tmp_path: Path) -> None:
        def client(name: str) -> list[list[Appended]]:
            answers = []
            for n in range(20):
                call = [view(f"{name}-{n}-{k}") for k in range(5)]
                answers.append(log.submit([view("shared"), *call], 200.0).result(PATIENCE))
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
            view("bad", float("nan")),
            view("bad", float("inf")),
            Event("bad", "rating", "u", 1.0, value=float("nan")),
            Item("bad", vectors={"text": [1.0, float("nan")]}),
            Item("bad", price=float("inf")),
            Item("bad", attributes={"size": float("nan")}),
            User("bad", {"age": float("inf")}),
        ]
        with contextlib.closing(self.open(tmp_path)) as log:
            for n, entry in enumerate(bad):
                refused = log.submit([view(f"beside {n}"), entry], 200.0)
                kept = log.submit([view(f"kept {n}")], 200.0)
                assert isinstance(refused.exception(PATIENCE), LogError)
                kept.result(PATIENCE)
            assert raised(lambda: log.append([view("a")], float("nan"))) is LogError
            assert ids_of(log.read(0, 100)) == [f"kept {n}" for n in range(len(bad))]
