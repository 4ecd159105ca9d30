"""An events log that outlives its process and may be open several times at once."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headwater.log import MAX_AHEAD, EventsLog
from headwater.testing._events_suite import Suite, dead_letter, ids_of, numbered, view
from headwater.testing._outcome import PATIENCE
from headwater.types import Appended


class Shared(Suite):
    def test_everything_is_there_after_opening_again(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            answers = log.append([view("a", 100.0), view("b", 150.0)], 200.0)
            log.refuse([dead_letter(1)])
            records = log.read(0, 10)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.read(0, 10) == records
            assert log.end() == answers[-1].offset
            assert log.dead_letters(10) == [numbered(1)]
            again, new = log.append([view("a"), view("c", 120.0)], 300.0)
            assert again == Appended(answers[0].offset, True)
            assert new.offset > answers[-1].offset
            assert log.read(answers[-1].offset, 10)[0].stream_time == 150.0

    def test_what_was_submitted_is_committed_before_closing(self, tmp_path: Path) -> None:
        log = self.open(tmp_path)
        futures = [log.submit([view(f"e{n}")], 200.0) for n in range(50)]
        log.close()
        assert all(len(future.result(0)) == 1 for future in futures)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert ids_of(log.read(0, 100)) == [f"e{n}" for n in range(50)]

    def test_two_open_logs_are_one(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as one,
            contextlib.closing(self.open(tmp_path)) as two,
        ):
            (a,) = one.append([view("a", 100.0)], 200.0)
            again, b = two.append([view("a"), view("b", 90.0)], 200.0)
            (c,) = one.append([view("c", 95.0)], 200.0)
            assert again == Appended(a.offset, True)
            assert a.offset < b.offset < c.offset
            assert one.read(0, 10) == two.read(0, 10)
            assert [record.stream_time for record in one.read(0, 10)] == [100.0] * 3

    def test_appends_of_two_logs_interleave(self, tmp_path: Path) -> None:
        def client(name: str) -> None:
            with contextlib.closing(self.open(tmp_path)) as log:
                for n in range(20):
                    log.append([view(f"{name}{n}"), view(f"shared {n}")], 200.0)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(client, "abc"))
        with contextlib.closing(self.open(tmp_path)) as log:
            records = log.read(0, 1000)
        assert len(records) == 20 * 4
        assert len(set(ids_of(records))) == len(records)
        assert sorted({record.offset for record in records}) == [r.offset for r in records]

    def test_dropping_and_appending_at_once(self, tmp_path: Path) -> None:
        def client(log: EventsLog) -> list[int]:
            times = (10_000.0 + 1_000.0 * n for n in range(200))
            answers = [log.append([view(f"new {at}", at)], at)[0] for at in times]
            return [answer.offset for answer in answers]

        with (
            contextlib.closing(self.open(tmp_path)) as one,
            contextlib.closing(self.open(tmp_path)) as two,
            ThreadPoolExecutor(1) as threads,
        ):
            one.append([view(f"e{n}", 100.0) for n in range(2000)], 200.0)
            appending = threads.submit(client, one)
            for through in range(0, 2001, 50):
                two.drop(through)
            assert appending.result(PATIENCE) == list(range(2001, 2201))
            two.drop(2000)
            assert (one.start(), two.start(), len(one.read(2000, 999))) == (2000, 2000, 200)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.start() == 2000
            assert log.append([view("e7")], 1e6)[0].older_than == 10_000.0 + MAX_AHEAD

    def test_a_wait_ends_by_the_append_of_another(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as follower,
            contextlib.closing(self.open(tmp_path)) as log,
            ThreadPoolExecutor(1) as threads,
        ):
            waiter = threads.submit(follower.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.append([view("a")], 200.0)
            assert waiter.result(PATIENCE)
