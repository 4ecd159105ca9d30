"""The alarm: silent while all is well, however long; it rings soon after things turn bad."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.evaluate import Alarm


class Stream:
    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.alarm = Alarm()
        self.offset = 0

    def run(self, n: int, mixture: float, popularity: float, size: int = 100) -> int | None:
        """Predictions that hit with these rates; how many until it rang."""
        for start in range(0, n, size):
            gains = np.where(self.random.random((size, 2)) < (mixture, popularity), 0.6, 0.0)
            offsets = np.arange(self.offset + 1, self.offset + size + 1)
            self.offset += size
            self.alarm.observe(offsets, gains[:, 0], gains[:, 1])
            if self.alarm.rings:
                return start + size
        return None


@pytest.mark.parametrize("seed", range(3))
def test_it_is_silent_while_all_is_well(seed: int) -> None:
    stream = Stream(seed)
    assert stream.run(200_000, 0.2, 0.1) is None
    assert stream.alarm.reference == pytest.approx(0.12, abs=0.01)


@pytest.mark.parametrize(
    ("mixture", "popularity"),
    [(0.2, 0.25), (0.08, 0.02)],
    ids=["worse than popular, as ever", "a harder stream, and still the best"],
)
def test_one_reason_alone_is_no_alarm(mixture: float, popularity: float) -> None:
    stream = Stream()
    stream.run(20_000, 0.2, 0.1)
    assert stream.run(20_000, mixture, popularity) is None


@pytest.mark.parametrize("size", [100, 7, 1])
def test_it_rings_and_says_since_when(size: int) -> None:
    stream = Stream()
    stream.run(10_500, 0.2, 0.1, size)
    turned = stream.offset
    rang = stream.run(5_000, 0.02, 0.1, size)
    assert rang is not None
    assert rang < 2_000
    assert turned - 500 < stream.alarm.since < turned + rang
    stream.alarm.silence()
    assert not stream.alarm.rings


def test_where_batches_end_changes_nothing_but_the_reference() -> None:
    levels = []
    for size in (1, 5, 50):
        stream = Stream(seed=1)
        gains = stream.random.random((6_000, 2)) < (0.1, 0.12)
        stream.alarm.load({"numbers": np.array([2e3, 1.0, 0.1]), **of_tests()})
        for start in range(0, len(gains), size):
            part = np.where(gains[start : start + size], 0.5, 0.0)
            offsets = np.arange(start + 1, start + len(part) + 1)
            stream.alarm.observe(offsets, part[:, 0], part[:, 1])
        levels.append((stream.alarm.state()["logs"][0], stream.alarm.state()["since"][0]))
    assert [since for _, since in levels] == [levels[0][1]] * 3
    assert np.ptp([level for level, _ in levels]) < 1e-9


def of_tests() -> dict[str, np.ndarray]:
    return {
        "logs": np.zeros(2),
        "since": np.zeros(2, np.int64),
        "fallen": np.array(False),
    }


def test_a_state_goes_on_as_the_one_it_was_taken_from() -> None:
    one = Stream()
    one.run(5_000, 0.2, 0.1)
    one.run(300, 0.0, 0.2)
    other = Stream()
    other.alarm.load({name: array.copy() for name, array in one.alarm.state().items()})
    other.random, other.offset = np.random.default_rng(5), one.offset
    one.random = np.random.default_rng(5)
    assert one.run(3_000, 0.0, 0.2) == other.run(3_000, 0.0, 0.2)
    for name, array in one.alarm.state().items():
        assert np.array_equal(array, other.alarm.state()[name]), name


def test_a_fall_is_told_once_and_again_after_it_was_over() -> None:
    stream = Stream()
    told: list[int] = []

    def run(n: int, mixture: float) -> None:
        for _ in range(n // 100):
            stream.run(100, mixture, 0.0)
            if (change := stream.alarm.fall(stream.offset)) is not None:
                assert (change.what, change.offset) == ("gains", stream.offset)
                told.append(stream.offset)

    run(20_000, 0.3)
    assert told == []
    run(2_000, 0.06)
    assert len(told) == 1
    assert 20_000 < told[0] < 21_500
    run(20_000, 0.3)
    run(3_000, 0.06)
    assert len(told) == 2


def test_a_fall_that_was_told_is_not_told_after_a_restart() -> None:
    stream = Stream()
    stream.run(10_000, 0.3, 0.0)
    stream.run(2_000, 0.06, 0.0)
    assert stream.alarm.fall(stream.offset) is not None
    again = Alarm()
    again.load(stream.alarm.state())
    assert again.fall(stream.offset) is None
