"""The trainer's main loop around a learner that is a counter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from headwater.errors import Fenced
from headwater.log import EventsLog
from headwater.roles.trainer import Trainer


class Events:
    """An events log of which only the end matters."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._grown = threading.Condition()
        self.waits = 0

    def end(self) -> int:
        return self._end

    def grow(self, count: int) -> None:
        with self._grown:
            self._end += count
            self._grown.notify_all()

    def wait(self, after: int, timeout: float) -> bool:
        self.waits += 1
        with self._grown:
            return self._grown.wait_for(lambda: self._end > after, timeout)


class Learner:
    """Learns up to ten offsets a step and remembers what was asked of it."""

    def __init__(self, events: Events, seconds_per_step: float = 0.0) -> None:
        self.trained_through = 0
        self.published_through = 0
        self.snapshots: list[int] = []
        self.fenced = False
        self.due = 0
        self.retained = 0
        self._events = events
        self._seconds = seconds_per_step

    def step(self) -> int:
        time.sleep(self._seconds)
        read = min(10, self._events.end() - self.trained_through)
        self.trained_through += read
        return read

    def publish_due(self) -> None:
        self.due += 1

    def publish(self) -> None:
        if self.fenced:
            raise Fenced("a newer trainer holds the lease")
        self.published_through = self.trained_through

    def snapshot(self) -> Path:
        self.snapshots.append(self.trained_through)
        return Path(f"{self.trained_through}.safetensors")

    def retain(self) -> None:
        self.retained += 1


def made(end: int, seconds_per_step: float = 0.0) -> tuple[Trainer, Learner, Events]:
    events = Events(end)
    learner = Learner(events, seconds_per_step)
    return Trainer(learner, cast(EventsLog, events)), learner, events


def running(trainer: Trainer, **arguments: float) -> threading.Thread:
    thread = threading.Thread(target=trainer.run, kwargs=arguments)
    thread.start()
    return thread


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_learns_what_is_there_then_what_comes_and_publishes_when_idle() -> None:
    trainer, learner, events = made(end=25)
    thread = running(trainer)
    until(lambda: learner.published_through == 25)
    assert learner.due == 3, "asked after each step whether it's time to publish"
    assert learner.retained > 3, "the log is kept to its size as it grows"
    events.grow(7)
    until(lambda: learner.published_through == 32)
    trainer.stop()
    thread.join(5)
    assert learner.snapshots == [32]


def test_waits_instead_of_polling() -> None:
    trainer, _, events = made(end=5)
    thread = running(trainer)
    time.sleep(0.6)
    trainer.stop()
    thread.join(5)
    assert events.waits <= 4


def test_stopping_learns_what_is_in_the_log_first() -> None:
    trainer, learner, _ = made(end=95)
    trainer.stop()
    trainer.run()
    assert learner.trained_through == 95
    assert learner.published_through == 95
    assert learner.snapshots == [95]


def test_stopping_learns_for_a_bounded_time_only() -> None:
    trainer, learner, _ = made(end=1_000_000, seconds_per_step=0.02)
    trainer.stop()
    started = time.monotonic()
    trainer.run(catch_up_seconds=0.2)
    assert time.monotonic() - started < 2.0
    assert 0 < learner.trained_through < 1_000_000
    assert learner.snapshots == [learner.trained_through] == [learner.published_through]


def test_what_arrives_after_the_stop_is_left_to_the_next_trainer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, learner, events = made(end=20)
    trainer.stop()
    step = learner.step

    def growing() -> int:
        events.grow(10)
        return step()

    monkeypatch.setattr(learner, "step", growing)
    trainer.run()
    assert learner.trained_through == 20


def test_a_fenced_trainer_snapshots_nothing() -> None:
    trainer, learner, _ = made(end=20)
    learner.fenced = True
    with pytest.raises(Fenced):
        trainer.run()
    assert learner.snapshots == []
