"""The guards before a step: what trips them, what doesn't, and when learning goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from headwater.config import Config, Deploy
from headwater.deploy import PAUSED, Watch, state_digest
from headwater.preprocess import Preprocessor
from headwater.types import Batch, Event, Held, Record

LOSSES = {"one": (2.0, 100)}


class Stream:
    """Batches of events of which a share is positive, and of which a share names one item."""

    def __init__(self, watch: Watch, seed: int = 0) -> None:
        self.watch = watch
        self.random = np.random.default_rng(seed)
        self.preprocess = Preprocessor(Config())
        self.offset = 0

    def batch(self, n: int, positive: float, one_item: float, users: int) -> Batch:
        records = []
        for _ in range(n):
            self.offset += 1
            kind = "view" if self.random.random() < positive else "dislike"
            item = "hit" if self.random.random() < one_item else f"i{self.random.integers(200)}"
            event = Event(f"e{self.offset}", kind, f"u{self.offset % users}", 1.0, item)
            records.append(Record(self.offset, 2e9, 1.0, event))
        return self.preprocess.batch(records)[0]

    def run(
        self,
        n: int,
        *,
        positive: float = 0.9,
        one_item: float = 0.1,
        size: int = 100,
        users: int = 7,
    ) -> list[str]:
        """The guard that held back each batch of n events, "" where none did."""
        found = []
        for _ in range(0, n, size):
            held = self.watch.judge(self.batch(size, positive, one_item, users))
            self.watch.settle(held, LOSSES)
            found.append(held.guard if held else "")
        return found


def watched(pause: int = 3) -> Stream:
    return Stream(Watch(Deploy(resume_batches=pause), ("one",)))


@pytest.mark.parametrize("size", [100, 1, 7])
def test_a_stream_as_usual_is_let_through(size: int) -> None:
    for positive in (1.0, 0.9, 0.5, 0.05):
        assert set(watched().run(3_000, positive=positive, size=size)) == {""}


@pytest.mark.parametrize(
    ("broken", "guard"), [({"positive": 0.0}, "positive_share"), ({"one_item": 1.0}, "one_item")]
)
@pytest.mark.parametrize("size", [100, 10, 1])
def test_a_broken_stream_trips_and_learning_goes_on_once_it_is_sane(
    broken: dict[str, Any], guard: str, size: int
) -> None:
    stream = watched(pause=3)
    stream.run(2_000, size=size)
    found = stream.run(200, size=size, **broken)
    assert found[-1] == guard
    assert found.index(guard) * size <= 100, "at the latest once the newest events are all broken"
    after = stream.run(300 * max(size, 10) // 10, size=size)
    assert after[-1] == ""
    sane = after[after.index(PAUSED) :]
    assert sane[:4] == [PAUSED] * 3 + [""]
    assert stream.watch.trips[guard] == found.count(guard) + after.count(guard)


@pytest.mark.parametrize(("users", "trips"), [(1, False), (2, False), (3, True), (50, True)])
def test_one_who_takes_back_much_is_no_broken_stream(users: int, trips: bool) -> None:
    stream = watched()
    stream.run(2_000)
    found = stream.run(300, positive=0.0, users=users)
    assert ("positive_share" in found) == trips


def test_what_stays_becomes_usual() -> None:
    stream = watched()
    stream.run(2_000)
    assert stream.run(100, positive=0.0) == ["positive_share"]
    assert stream.run(20_000, positive=0.0)[-1] == ""


def test_nothing_is_unusual_at_the_start_or_where_it_always_was_so() -> None:
    assert set(watched().run(900, positive=0.0)) == {""}
    assert set(watched().run(3_000, positive=1.0, one_item=1.0)) == {""}


@pytest.mark.parametrize("wild", [float("nan"), float("inf"), 5.0])
def test_a_wild_loss_does_not_fit(wild: float) -> None:
    stream = watched()
    stream.run(10_000)
    assert stream.watch.fits("one", 2.1, 100) is None
    assert stream.watch.fits("one", float("nan"), 0) is None, "nothing was to be learned"
    reason = stream.watch.fits("one", wild, 100)
    assert reason is not None
    assert "the one loss" in reason


def test_a_finite_loss_fits_until_there_is_a_band() -> None:
    stream = watched()
    stream.run(1_000)
    assert stream.watch.fits("one", 1e6, 100) is None
    assert stream.watch.fits("one", float("nan"), 100) is not None


def test_resuming_makes_what_comes_now_usual() -> None:
    stream = watched()
    stream.run(2_000)
    assert stream.run(200, positive=0.0)[-1] == "positive_share"
    stream.watch.resume()
    assert set(stream.run(3_000, positive=0.0)) == {""}


@pytest.mark.parametrize("broken", [{"positive": 0.0}, {}])
def test_a_state_goes_on_as_the_one_it_was_taken_from(broken: dict[str, Any]) -> None:
    def states(runs: Sequence[dict[str, Any]]) -> tuple[str, str]:
        one, other = watched(), watched()
        for run in runs:
            one.run(1_500, **run)
            other.run(1_500, **run)
        loaded = Watch(Deploy(resume_batches=3), ("one",))
        loaded.load({name: array.copy() for name, array in other.watch.state().items()})
        other.watch = loaded
        assert one.run(500) == other.run(500)
        return state_digest(one.watch.state()), state_digest(other.watch.state())

    one, other = states([{}, broken])
    assert one == other


def strode(watch: Watch, stride: float, n: int = 1) -> list[str | None]:
    """What was wrong with n steps, each settled as the learner does."""
    found = []
    for _ in range(n):
        before = {name: array.copy() for name, array in watch.state().items()}
        wrong = watch.stepped({"one": stride})
        if wrong:
            watch.load(before)  # the step is taken back
        watch.settle(Held(1, "stride", wrong) if wrong else None, LOSSES)
        found.append(wrong)
    return found


def test_a_step_that_is_far_longer_than_usual_trips() -> None:
    watch = watched().watch
    assert strode(watch, 1e-3, 100) == [None] * 100
    assert strode(watch, 5e-3) == [None], "the optimizer may raise a rate by four"
    assert strode(watch, 1e-1) == ["the one step changed weights by 0.1, usually 0.00106"]
    assert watch.trips["stride"] == 1
    assert watch.paused == 3
    again = watched().watch
    again.load({name: array.copy() for name, array in watch.state().items()})
    assert state_digest(again.state()) == state_digest(watch.state())
    assert strode(again, 1e-1)[0] is not None


def test_the_first_steps_are_of_any_length() -> None:
    watch = watched().watch
    assert strode(watch, 1e-3, 40) + strode(watch, 1.0) == [None] * 41


def test_a_stride_that_stays_becomes_usual_and_resume_makes_it_so_at_once() -> None:
    watch = watched().watch
    strode(watch, 1e-3, 100)
    found = strode(watch, 2e-2, 20)
    assert 5 < sum(one is not None for one in found) < 15
    assert found[-1] is None
    watch = watched().watch
    strode(watch, 1e-3, 100)
    watch.resume()
    assert strode(watch, 1.0) == [None]
