"""The oldest entries can be dropped and any be blanked, and neither counts again."""

from __future__ import annotations

import contextlib
from pathlib import Path

from headwater.errors import Dropped
from headwater.log import MAX_AHEAD
from headwater.testing._events_suite import Suite, ids_of, view
from headwater.testing._outcome import raised
from headwater.types import Appended, Blank, Entry, Item, User


class Removal(Suite):
    def test_the_oldest_entries_can_be_dropped(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.drop(10)
            assert (log.start(), log.end()) == (0, 0)
            log.append([Item("i"), *(view(f"e{n}", 100.0 + n) for n in range(600))], 9000.0)
            full = log.size()
            log.drop(0)
            assert (log.start(), len(log.read(0, 1000))) == (0, 601)
            log.drop(501)
            log.drop(3)
            assert (log.start(), log.end()) == (501, 601)
            assert ids_of(log.read(501, 1000)) == [f"e{n}" for n in range(500, 600)]
            assert ids_of(log.read(550, 1)) == ["e549"]
            assert [log.read(601, 9), log.read(999, 9)] == [[], []]
            assert raised(lambda: log.read(0, 9)) is Dropped
            assert raised(lambda: log.read(500, 9)) is Dropped
            assert 0 < log.size() < full

    def test_the_newest_entry_stays_and_time_goes_on_from_it(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append([view("a", 1000.0), view("b", 2000.0), Item("i")], 9000.0)
            log.drop(99)
            assert (log.start(), log.end()) == (2, 3)
            item, late = log.append([Item("j"), view("late", 2000.0 + MAX_AHEAD + 1)], 2100.0)
            assert (item.offset, late.offset) == (4, 0)
            (late,) = log.append([view("late", 2000.0 + MAX_AHEAD + 1)], 9000.0)
            assert late.offset == 5
            times = [record.stream_time for record in log.read(2, 9)]
            assert times == [2000.0, 2000.0, 2000.0 + MAX_AHEAD + 1]

    def test_what_may_have_been_dropped_is_refused(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            # The clock of its client is ahead: it is kept as of when it came.
            log.append([view("ahead", 1000.0 + MAX_AHEAD)], 1000.0)
            log.append([view("kept", 1001.0), view("new", 5000.0)], 9000.0)
            before = log.append([view("kept", 1001.0), view("older than all", 1.0)], 9000.0)
            assert [answer.older_than for answer in before] == [None, None]
            log.drop(1)
            horizon = 1001.0 + MAX_AHEAD
            answers = log.append(
                [
                    view("ahead", 1000.0 + MAX_AHEAD),
                    view("kept", 1001.0),
                    view("unknown", horizon),
                    view("kept", 1001.0, source="web"),
                    view("late", horizon + 1),
                    view("late", horizon + 1),
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
            assert log.append([view("new", 5000.0)], 9000.0)[0].older_than == 5000.0 + MAX_AHEAD

    def test_a_blanked_entry_keeps_its_place_and_counts_once(self, tmp_path: Path) -> None:
        entries: list[Entry] = [
            view("a", 100.0),
            view("b", 200.0, "web"),
            User("u1"),
            view("c", 300.0),
        ]
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append(entries, 900.0)
            times = [(record.offset, record.stream_time) for record in log.read(0, 9)]
            log.blank([1, 2, 3])
            log.blank([2])
            records = log.read(0, 9)
            assert [record.entry for record in records] == [Blank()] * 3 + [entries[3]]
            assert [(record.offset, record.stream_time) for record in records] == times
            again = [entries[0], entries[1], view("b", 200.0), entries[3]]
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
            events = [view(f"e{n}", 100.0 + n) for n in range(1000)]
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
