"""Small settings, small streams, and logs that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from headwater.config import Config
from headwater.log import StoredUpdate
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Entry, Event, State

NOW = 2_000_000_000.0
"""When everything was received: later than every event."""

SMALL: dict[str, dict[str, Any]] = {
    "preprocess": {"history_length": 10},
    "popularity": {"half_lives_hours": (1.0, 24.0)},
    "transitions": {"width": 8},
    "sequence": {
        "dim": 8,
        "layers": 1,
        "heads": 1,
        "negatives": 24,
        "earlier_positions": 2,
        "replay_buffer": 300,
    },
    "mixture": {"candidates": 20, "hidden": 8, "replay_buffer": 200},
    "train": {"batch_milliseconds": 0.0, "pace": "full"},
}
"""A model so small that a micro-batch takes milliseconds; nothing of it is left out."""


def small(seed: int = 0, **sections: dict[str, Any]) -> Config:
    """``SMALL`` with other values in some sections."""
    names = SMALL.keys() | sections.keys()
    merged = {name: {**SMALL.get(name, {}), **sections.get(name, {})} for name in names}
    return Config.model_validate({"seed": seed, **merged})


def views(
    n: int, seed: int = 0, *, users: int = 12, items: int = 60, start: int = 0, type: str = "view"
) -> list[Entry]:
    """n events, a minute apart; users favour some items, and follow one with the next."""
    random = np.random.default_rng([seed, start])
    found: list[Entry] = []
    last = random.integers(0, items, users)
    for k in range(start, start + n):
        user = int(random.integers(users))
        if random.random() < 0.5:
            item = (int(last[user]) + 1) % items
        else:
            item = int(items * random.random() ** 2)
        last[user] = item
        found.append(
            Event(
                event_id=f"e{k}",
                type=type,
                user_id=f"u{user}",
                item_id=f"i{item}",
                timestamp=1_000_000_000.0 + 60.0 * k,
            )
        )
    return found


def events_log(entries: Sequence[Entry]) -> MemoryEventsLog:
    log = MemoryEventsLog()
    log.append(entries, NOW)
    return log


def learn_all(learner: Learner) -> None:
    """Everything that is in the log, an update per micro-batch."""
    while learner.step():
        learner.publish()


def learn_cut(learner: Learner, events: MemoryEventsLog, ends: Sequence[int]) -> None:
    """The records through each of ``ends`` as one micro-batch each, where not yet learned."""
    for end in ends:
        if end > learner.trained_through:
            learner.learn(events.read(learner.trained_through, end - learner.trained_through))


def counted(part: Learner | Follower) -> State:
    """What both roles fold from the events, in whatever sizes of batches."""
    learned = ("model.sequence.", "model.mixture.")
    return {name: v for name, v in part.fold.state().items() if not name.startswith(learned)}


def assert_equal(one: State, other: State) -> None:
    """Bit for bit; names what differs."""
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def all_updates(log: MemoryUpdatesLog) -> list[StoredUpdate]:
    return log.read(0, log.end())


def digests(log: MemoryUpdatesLog) -> list[str]:
    return [stored.digest for stored in all_updates(log)]


def copied(
    log: MemoryUpdatesLog, change: Callable[[StoredUpdate], StoredUpdate] = lambda same: same
) -> MemoryUpdatesLog:
    """The same updates in a new log, each as ``change`` returns it."""
    copy = MemoryUpdatesLog()
    token = copy.acquire()
    for stored in all_updates(log):
        copy.append(change(stored), token)
    return copy


def tampered(log: MemoryUpdatesLog, sequence: int, **fields: Any) -> MemoryUpdatesLog:
    """A copy in which the update ``sequence`` has other fields."""
    return copied(
        log,
        lambda stored: (
            msgspec.structs.replace(stored, **fields) if stored.sequence == sequence else stored
        ),
    )
