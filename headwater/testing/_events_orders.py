"""Rollbacks, promotions and orders to learn on are found among the events."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from headwater.testing._events_suite import Suite, view
from headwater.types import Promotion, Resume, Rollback


class Orders(Suite):
    def test_rollbacks_are_found_among_the_rest_and_count_once(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            first, second = (Rollback(id, 1, 2, 3, "ops", "why") for id in ("r1", "r2"))
            assert log.rollbacks(0) == []
            log.append([view("a", 100.0), first, view("r1", 101.0)], 200.0)
            spoof = msgspec.structs.replace(view("b"), source="headwater/rollback")
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
            log.append([view("a"), first, view("b"), Promotion("p", 3, {}, "ops", "")], 200.0)
            log.append([second], 300.0)
            assert [(r.offset, r.received_at) for r in log.resumes(0)] == [(2, 200.0), (5, 300.0)]
            assert [record.offset for record in log.resumes(2)] == [5]
            assert log.read(1, 1)[0].entry == first

    def test_orders_are_taken_where_the_oldest_entries_were_dropped(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.append([view("a", 100.0), view("b", 200.0)], 300.0)
            log.drop(1)
            promotion = Promotion("p1", 3, {}, "ops", "why")
            rollback = Rollback("r1", 1, 2, 3, "ops", "why")
            answers = log.append([rollback, promotion], 400.0)
            assert [answer.offset for answer in answers] == [3, 4]
            assert log.rollbacks(0)[0].entry == rollback
            assert log.promotions(0)[0].entry == promotion
