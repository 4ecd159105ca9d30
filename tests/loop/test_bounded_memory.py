"""What is remembered stays within its settings, whatever the stream brings."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from headwater.config import Config
from headwater.log import EventsLog
from headwater.log.chunks import Chunk
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import (
    Entry,
    Event,
    Item,
    ItemRemoval,
    Record,
    State,
    User,
    UserRemoval,
)
from tests.loop.streams import NOW, small

EVENTS = 1_000_000
SWEEP = 10_000
MOST = 2_000


def tiny(**preprocess: Any) -> Config:
    own: dict[str, Any] = {
        "history_length": 10,
        "max_items": MOST,
        "max_users": MOST,
        "sweep_events": SWEEP,
    }
    own |= {"consumed_per_user": 20, "cleaning": {"remembered": 1_024}}
    return small(
        preprocess={**own, **preprocess},
        neighbours={"width": 8},
        precedents={"events": 1_000},
        content={"postings": 8, "tokens": 4},
        sequence={"dim": 4, "layers": 0, "negatives": 8, "replay_buffer": 100},
        evaluate={"window": 200},
        mixture={"candidates": 5, "replay_buffer": 10},
    )


def ever_new(after: int, n: int) -> list[Entry]:
    """Entries behind an offset: every id is new at some time, and never named again later."""
    random = np.random.default_rng(after)
    ages = random.integers(0, 2_000, (2, n))
    offsets = np.arange(after, after + n)
    users, items = (offsets // 2 - ages[0]).tolist(), (offsets // 3 - ages[1]).tolist()
    found: list[Entry] = []
    for offset, user, item in zip(offsets.tolist(), users, items, strict=True):
        match offset % 1_000:
            case 500:
                found.append(ItemRemoval(f"i{item}"))
            case 600:
                found.append(UserRemoval(f"u{user}"))
            case 0 | 100 | 200 | 300:
                found.append(Item(f"i{item}", categories=(f"c{offset}",), tags=("shared",)))
            case 400 | 700:
                found.append(User(f"u{user}", {"plan": "gold"}))
            case _:
                found.append(Event("", "rating", f"u{user}", 1e9 + offset, f"i{item}"))
    return found


class Endless:
    """The reading side of an events log that makes its records as they are read."""

    def __init__(self) -> None:
        self.newest = 0

    def start(self) -> int:
        return 0

    def end(self) -> int:
        return self.newest

    def rollbacks(self, after: int) -> list[Record]:
        return []

    def read(self, after: int, limit: int) -> list[Record]:
        entries = ever_new(after, min(limit, self.newest - after))
        return [Record(k, NOW, 1e9 + k, entry) for k, entry in enumerate(entries, after + 1)]

    def chunk(self, after: int, limit: int) -> Chunk:
        return Chunk.of(self.read(after, limit))


def size_of(state: State) -> int:
    return sum(value.nbytes for value in state.values())


def held(thing: Any, seen: set[int] | None = None) -> int:
    """Bytes of all arrays, containers, strings and records that hang on an object of ours."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return thing.nbytes if thing.base is None else held(thing.base, seen)
    if isinstance(thing, str | bytes):
        return sys.getsizeof(thing)
    if isinstance(thing, dict):
        return sys.getsizeof(thing) + sum(
            held(part, seen) for pair in thing.items() for part in pair
        )
    if isinstance(thing, list | tuple | set | frozenset | deque):
        return sys.getsizeof(thing) + sum(held(part, seen) for part in thing)
    if isinstance(thing, msgspec.Struct):
        return sys.getsizeof(thing) + sum(
            held(getattr(thing, name), seen) for name in thing.__struct_fields__
        )
    if isinstance(thing, MemoryEventsLog | MemoryUpdatesLog | Endless | Config):
        return 0
    if type(thing).__module__.startswith("headwater."):
        names = [*getattr(thing, "__dict__", ()), *getattr(thing, "__slots__", ())]
        return sum(held(getattr(thing, name), seen) for name in names)
    return 0


def sizes(follower: Follower, log: Endless, through: int, step: int) -> list[tuple[int, int]]:
    """Bytes of the state, and of all that is held, behind every ``step`` entries."""
    found = []
    while log.newest < through:
        log.newest += step
        follower.catch_up()
        found.append((size_of(follower.fold.state()), held(follower)))
    return found


def test_a_million_events_of_ever_new_ids_take_no_more_memory_than_some() -> None:
    log = Endless()
    follower = Follower(tiny(), cast(EventsLog, log), MemoryUpdatesLog(), None)
    found = sizes(follower, log, EVENTS, EVENTS // 10)
    preprocess = follower.fold.preprocess
    assert preprocess.total_events > 0.98 * EVENTS
    assert preprocess.expired["users"] > 400_000
    assert preprocess.expired["items"] > 300_000
    # A twelfth for ids that get longer, and for a row or two more in a doubled table.
    for state, everything in found[1:]:
        assert state <= found[0][0] * 13 / 12
        assert everything <= found[0][1] * 13 / 12
    assert found[-1][0] < 4_000_000
    assert preprocess.users.n_known <= MOST
    assert preprocess.items.n_known <= MOST
    # What is new between two sweeps comes on top: a sweep's entries name about that many.
    assert len(preprocess.users) < MOST + SWEEP
    assert len(preprocess.items) < MOST + SWEEP


def test_without_bounds_the_same_stream_is_seen_to_take_more_and_more() -> None:
    log = Endless()
    unbounded = tiny(max_items=1_000_000, max_users=1_000_000)
    follower = Follower(unbounded, cast(EventsLog, log), MemoryUpdatesLog(), None)
    (first, first_held), (second, second_held) = sizes(follower, log, 80_000, 40_000)
    assert second > 1.4 * first
    assert second_held > 1.4 * first_held


@pytest.mark.parametrize("admit_after", [1, 2])
def test_learning_takes_no_more_memory_either(admit_after: int) -> None:
    log, updates = MemoryEventsLog(), MemoryUpdatesLog()
    config = tiny(
        max_items=300,
        max_users=300,
        sweep_events=500,
        admit_items_after=admit_after,
        admit_users_after=admit_after,
    )
    learner = Learner(config, log, updates, None)
    found = []
    for after in range(0, 12_000, 2_000):
        entries = [
            msgspec.structs.replace(entry, event_id=f"e{after + k}")
            if isinstance(entry, Event)
            else entry
            for k, entry in enumerate(ever_new(after, 2_000))
        ]
        log.append(entries, NOW)
        while learner.step():
            learner.publish()
        updates.drop(updates.end())
        found.append((size_of(learner.state()), held(learner)))
    for state, everything in found[3:]:
        assert state <= found[2][0] * 13 / 12
        assert everything <= found[2][1] * 13 / 12
    assert learner.fold.preprocess.expired["items"] > 500
