"""A long way through the log, on two cores: the bits of a short one, and its errors."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from headwater.config import Config
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, _catching_up
from headwater.loop._fold import Fold
from headwater.types import Entry, Event, Item, ItemRemoval, State
from tests.loop.streams import SMALL, assert_equal, counted, events_log, small

SWEEP = 50
CONFIG: Config = small(
    preprocess={**SMALL["preprocess"], "max_items": 20, "max_users": 15, "sweep_events": SWEEP}
)


def entries(n: int) -> list[Entry]:
    """Ever new users and items, of which some are described and some removed."""
    random = np.random.default_rng(0)
    found: list[Entry] = []
    for k in range(n):
        item = f"i{k // 8 + int(random.integers(12))}"
        if k % 11 == 3:
            found.append(Item(item, title=f"Word{k % 5}", categories=(f"c{k % 3}",)))
        elif k % 29 == 7:
            found.append(ItemRemoval(item))
        else:
            user = f"u{k // 20 + int(random.integers(8))}"
            found.append(Event(f"e{k}", "view", user, 1_000_000_000.0 + 60.0 * k, item))
    return found


def folded(events: MemoryEventsLog, *, far: bool, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setattr(_catching_up, "_FAR", 0 if far else 10**9)
    monkeypatch.setattr(_catching_up, "READ", 17)
    follower = Follower(CONFIG, events, MemoryUpdatesLog(), None)
    follower.catch_up()
    assert follower.offset == events.end()
    return counted(follower)


def test_a_long_way_leaves_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    events = events_log(entries(600))
    short = folded(events, far=False, monkeypatch=monkeypatch)
    assert short["preprocess.expired"].all()
    assert_equal(folded(events, far=True, monkeypatch=monkeypatch), short)


def test_what_is_named_before_a_sweep_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    events = events_log(entries(600))
    short = folded(events, far=False, monkeypatch=monkeypatch)
    monkeypatch.setattr(Fold, "sweeps_behind", lambda *_: False)
    with pytest.raises((AssertionError, IndexError)):
        assert_equal(folded(events, far=True, monkeypatch=monkeypatch), short)


def test_counting_is_beside_and_over_before_a_chunk_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_catching_up, "_FAR", 0)
    monkeypatch.setattr(_catching_up, "READ", 17)
    events = events_log(entries(200))
    fold = Fold(CONFIG)
    threads, learned = set(), []
    for expert in fold.model.counting:
        honest = expert.learn

        def learn(batch: Any, honest: Any = honest) -> None:
            honest(batch)
            threads.add(threading.current_thread().name[:5])
            learned.append(batch.end)

        monkeypatch.setattr(expert, "learn", learn)
    for read, _ in _catching_up.folded(fold, events, events.end()):
        has_events = len(read.places) > 0
        assert learned == ([int(read.offsets[-1])] * len(fold.model.counting) * has_events)
        learned.clear()
    assert threads == {"MainT", "count"}


def test_an_error_of_counting_is_the_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_catching_up, "_FAR", 0)
    events = events_log(entries(200))
    follower = Follower(CONFIG, events, MemoryUpdatesLog(), None)

    def broken(_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(follower.fold.model.counting[0], "learn", broken)
    with pytest.raises(ZeroDivisionError):
        follower.catch_up()
    follower.catch_up()
    assert follower.offset == events.end()
