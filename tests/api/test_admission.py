"""How many requests are let in: what makes it fewer, and what more."""

from __future__ import annotations

from itertools import pairwise

from headwater.api._admission import (
    BURST,
    LATE,
    LEAST,
    LESS,
    MOST,
    MUCH_LESS,
    OF_EACH,
    WINDOW_SECONDS,
    Admission,
)

MAX_WAIT = 0.06


class Served:
    """Requests that come and are answered on a clock of our own."""

    def __init__(self) -> None:
        self.admission = Admission(MAX_WAIT)
        self.now = 100.0

    def come(self, n: int) -> int:
        """How many of n that come together are let in."""
        let_in = 0
        for _ in range(n):
            if not self.admission.is_full(True):
                self.admission.enter(True)
                let_in += 1
        return let_in

    def window(self, n: int, late: int = 0) -> int:
        """Those of n that are let in, answered within one window; so many of them late."""
        let_in = self.come(n)
        for k in range(let_in):
            if k == let_in - 1:
                self.now += 1.5 * WINDOW_SECONDS
            seconds = (1.1 if k < late else 0.9) * LATE * MAX_WAIT
            self.admission.leave(True, seconds, self.now)
        return let_in


def test_a_burst_is_let_in_up_to_a_limit() -> None:
    served = Served()
    assert served.come(60) == 60
    assert served.come(1_000) == MOST - 60


def test_an_answer_and_a_client_that_went_away_make_room() -> None:
    served = Served()
    served.come(MOST)
    assert served.admission.is_full(True)
    served.admission.leave(True, 0.0, served.now)
    assert not served.admission.is_full(True)
    served.come(1)
    assert served.admission.is_full(True)
    served.admission.lose(True)
    assert not served.admission.is_full(True)


def test_some_of_each_kind_are_let_in_however_many_there_are_of_the_other() -> None:
    served = Served()
    served.come(MOST)
    for _ in range(OF_EACH):
        assert not served.admission.is_full(False)
        served.admission.enter(False)
    assert served.admission.is_full(False)
    assert served.admission.in_work == MOST + OF_EACH


def test_under_pressure_lists_keep_some_places_and_events_none() -> None:
    served = pressed()
    for _ in range(LEAST):
        served.admission.enter(False)
    assert served.admission.is_full(False)
    assert served.come(1_000) == OF_EACH
    served = pressed()
    assert served.come(1_000) == LEAST
    assert served.admission.is_full(False)


def test_where_answers_are_late_fewer_are_let_in_but_always_some() -> None:
    served = Served()
    served.window(1)
    taken = [served.window(1_000, late=40) for _ in range(40)]
    assert taken[0] == MOST
    assert taken[1] == int(LESS * MOST) + 1
    assert taken == sorted(taken, reverse=True)
    assert taken[-1] == LEAST


def test_where_most_are_late_it_is_far_fewer() -> None:
    served = Served()
    served.window(1)
    served.window(1_000, late=MOST // 2 + 1)
    assert served.come(1_000) == int(MUCH_LESS * MOST)


def test_however_late_few_requests_are_answered_a_burst_is_let_in() -> None:
    served = Served()
    for _ in range(20):
        served.window(BURST - 1, late=BURST)
    assert served.come(1_000) == BURST


def pressed() -> Served:
    """One that lets in no more than it must."""
    served = Served()
    for _ in range(20):
        served.window(1_000, late=1_000)
    return served


def test_few_late_answers_leave_a_low_limit_where_it_is() -> None:
    served = pressed()
    for _ in range(3):
        served.window(LEAST - 1, late=LEAST)
    assert served.come(1_000) == LEAST


def test_under_pressure_more_are_let_in_bit_by_bit() -> None:
    served = pressed()
    taken = [served.window(1_000) for _ in range(50)]
    assert taken[0] == LEAST
    assert taken[-1] > 4 * LEAST
    assert all(0 <= later - earlier <= 2 for earlier, later in pairwise(taken))


def test_when_the_pressure_is_gone_a_burst_is_soon_let_in() -> None:
    served = pressed()
    for _ in range(20):
        served.window(3)
    assert served.come(1_000) == MOST


def test_events_may_take_as_long_as_they_are_many() -> None:
    served = Served()
    for _ in range(20):
        for _ in range(MOST):
            assert not served.admission.is_full(False)
            served.admission.enter(False)
        assert served.admission.is_full(False)
        for _ in range(MOST):
            served.now += WINDOW_SECONDS
            served.admission.leave(False, 1_000.0, served.now)


def test_nobody_asking_for_a_while_counts_as_in_time() -> None:
    served = pressed()
    served.now += 1_000 * WINDOW_SECONDS
    served.window(1)
    assert served.come(1_000) == MOST
