"""The tuner: which settings are tried, in which order, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.config import Config, overridden, values_of
from headwater.optimize import MOST_PROPOSED, changes, propose
from headwater.optimize._tuner import FIRST_EVENTS
from headwater.types import Challenger, Lift, Proposed, Trial

CANDIDATES = [{"sequence.learning_rate": rate} for rate in (0.1, 0.2, 0.3, 0.4)]
MOST = 5_000


class Bench:
    """Runs what is proposed, with lifts that are known."""

    def __init__(self, lifts: dict[float, float | None]) -> None:
        self.lifts = lifts
        self.tried: list[tuple[Challenger, Trial]] = []
        self.promotion, self.through = 0, 0

    def next(self) -> tuple[float, int, int, int] | None:
        """Its rate, round, rung and number of events; it has run when this returns."""
        found = propose(CANDIDATES, self.tried, self.promotion, self.through, MOST)
        if found is None:
            return None
        settings, place, events = found
        rate = settings["sequence.learning_rate"]
        value = self.lifts[rate]
        lift = None if value is None else Lift(events, 0.1, 0.1, value, None, None)
        self.through += events
        challenger = Challenger(
            len(self.tried) + 1, settings, "better", 0.0, "", "", 0.0, events, place
        )
        trial = Trial("retired", compared_through=self.through, lift=lift, ended_at=1.0)
        self.tried.append((challenger, trial))
        return rate, place.round, place.rung, events

    def round(self) -> list[tuple[float, int, int, int]]:
        found = []
        while one := self.next():
            found.append(one)
        return found


def test_each_rung_has_the_better_half_of_what_was_better_for_twice_as_long() -> None:
    bench = Bench({0.1: 0.01, 0.2: 0.03, 0.3: -0.02, 0.4: 0.02})
    ran = bench.round()
    assert [one[0] for one in ran] == [0.1, 0.2, 0.3, 0.4, 0.2, 0.4, 0.2]
    assert [one[2] for one in ran] == [0, 0, 0, 0, 1, 1, 2]
    assert [one[3] for one in ran] == [2_000] * 4 + [4_000] * 2 + [5_000]


def test_what_is_no_better_than_the_live_settings_gets_no_second_try() -> None:
    bench = Bench({0.1: -0.01, 0.2: 0.0, 0.3: None, 0.4: -0.5})
    assert len(bench.round()) == 4


def test_a_round_without_a_promotion_is_followed_by_another_later() -> None:
    bench = Bench({0.1: -0.1, 0.2: -0.1, 0.3: -0.1, 0.4: -0.1})
    bench.round()
    bench.through += MOST - 1
    assert bench.next() is None
    bench.through += 1
    assert bench.next() == (0.1, 2, 0, FIRST_EVENTS)
    assert bench.next() == (0.2, 2, 0, FIRST_EVENTS)


def test_a_promotion_begins_anew_around_what_is_live_then() -> None:
    bench = Bench({0.1: 0.1, 0.2: 0.0, 0.3: 0.0, 0.4: 0.0})
    bench.next()
    bench.promotion = 77
    assert bench.next() == (0.1, 1, 0, FIRST_EVENTS)
    assert bench.tried[-1][0].proposed == Proposed(77, 1, 0)


def test_the_defaults_are_the_first_candidate_of_others() -> None:
    default = Config()
    assert all(len(change) == 1 for change in changes(default, default, whole=True))
    assert len(changes(default, default, whole=True)) == MOST_PROPOSED - 1
    bad = overridden(default, {"sequence.learning_rate": 1e-5, "sequence.replay": 0.0})
    first, *rest = changes(bad, default, whole=True)
    assert first == {"sequence.learning_rate": 0.001, "sequence.replay": 1.0}
    assert overridden(bad, first) == default
    assert not any("sequence.replay" in change for change in rest), "nothing times 0 is another"


@pytest.mark.parametrize("whole", [True, False])
def test_every_candidate_is_allowed_and_different(whole: bool) -> None:
    extreme: dict[str, Any] = {"sequence.learning_rate": 1.0, "preprocess.history_length": 1}
    live = overridden(Config(), extreme)
    found = changes(live, Config(), whole=whole)
    for change in found:
        own = overridden(live, change)
        assert own != live
        assert values_of(own, change) == change
    lengths = [change for change in found if "preprocess.history_length" in change]
    assert len(lengths) == (2 if whole else 0), "the default, and twice as long"
    assert {"sequence.learning_rate": 3.0} not in found


def test_the_defaults_are_tried_for_as_long_as_the_gate_takes_at_once() -> None:
    defaults = {"sequence.learning_rate": 0.001, "sequence.replay": 1.0}
    found = propose([defaults, {"sequence.learning_rate": 0.1}], [], 0, 0, MOST)
    assert found == (defaults, Proposed(0, 1, 0), MOST)
