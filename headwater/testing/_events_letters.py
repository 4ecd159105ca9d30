"""Dead letters: what was refused is kept until it is settled, or too old."""

from __future__ import annotations

import contextlib
from pathlib import Path

from headwater.testing._events_suite import Suite, dead_letter, numbered, view


class Letters(Suite):
    def test_dead_letters_come_newest_first(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            assert (log.dead_letter_count(), log.dead_letters(10)) == (0, [])
            log.refuse([dead_letter(1), dead_letter(2)])
            log.refuse([])
            log.refuse([dead_letter(3)])
            assert log.dead_letter_count() == 3
            assert log.dead_letters(10) == [numbered(3), numbered(2), numbered(1)]
            assert log.dead_letters(1) == [numbered(3)]
            assert log.dead_letters(1, before=3) == [numbered(2)]
            assert log.dead_letters(10, before=3) == [numbered(2), numbered(1)]
            assert log.dead_letters(10, before=1) == []
            assert log.end() == 0

    def test_a_settled_letter_is_gone_and_its_number_is_not_given_again(
        self, tmp_path: Path
    ) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.refuse([dead_letter(1), dead_letter(2), dead_letter(3)])
            assert log.dead_letter(2) == numbered(2)
            assert [log.dead_letter(number) for number in (0, 4)] == [None, None]
            log.settle(2)
            log.settle(3)
            log.settle(2)
            log.settle(9)
            assert log.dead_letter(2) is None
            assert log.dead_letters(10) == [numbered(1)]
            assert log.dead_letter_count() == 3
            log.refuse([dead_letter(4)])
            assert log.dead_letters(10) == [numbered(4), numbered(1)]
            assert log.dead_letter_count() == 4

    def test_letters_from_before_the_oldest_entry_are_dropped_with_the_rest(
        self, tmp_path: Path
    ) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            log.refuse([dead_letter(n) for n in (1, 2, 3, 4)])
            for n in (1, 2, 3, 4):
                log.append([view(f"e{n}", float(n))], float(n))
            log.settle(1)
            log.drop(0)
            assert [letter.number for letter in log.dead_letters(9)] == [4, 3, 2]
            log.drop(2)
            assert [letter.number for letter in log.dead_letters(9)] == [4, 3]
            log.drop(9)
            assert [letter.number for letter in log.dead_letters(9)] == [4]
            assert log.dead_letter_count() == 4
