"""Which items may be recommended, told from what batches touched and from all that is known."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Entry, Event, Item, ItemRemoval
from tests.model.arrays import small


def entries(seed):
    """Events, items put, held back and removed, in any order."""
    rng = np.random.default_rng(seed)
    made: list[Entry] = []
    for n in range(300):
        item = f"i{rng.integers(30)}"
        kind = rng.random()
        if kind < 0.1:
            made.append(Item(item, title=f"word{n % 7}", available=bool(rng.random() < 0.6)))
        elif kind < 0.13:
            made.append(ItemRemoval(item))
        else:
            type = ("view", "dislike", "unheard of")[rng.choice(3, p=(0.8, 0.1, 0.1))]
            made.append(Event(f"e{n}", type, f"u{rng.integers(9)}", 1e9 + 3_600.0 * n, item))
    return made


@pytest.mark.parametrize("catalogue", ["seen", "all"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_withheld_is_what_is_not_eligible_at_any_time(catalogue, seed):
    config = small(
        recommend={"catalogue": catalogue},
        preprocess={"item_idle_days": 2.0, "sweep_events": 50},
        train={"batch_milliseconds": 0.0},
    )
    events, updates = MemoryEventsLog(), MemoryUpdatesLog()
    learner, follower = (
        Learner(config, events, updates, None),
        Follower(config, events, updates, None),
    )
    changed = set()
    for entry in entries(seed):
        events.append([entry], 2e9)
        while learner.step():
            learner.publish()
        follower.catch_up()
        for fold in (learner.fold, follower.fold):
            withheld = fold.withheld()
            np.testing.assert_array_equal(withheld, ~fold.eligible())
        changed.add(withheld.tobytes())
    assert len(changed) > 40


def test_what_is_given_may_be_written_to():
    config = small()
    events, updates = MemoryEventsLog(), MemoryUpdatesLog()
    follower = Follower(config, events, updates, None)
    events.append([Event("e", "view", "u", 1e9, "i")], 2e9)
    follower.catch_up()
    follower.fold.withheld()[:] = True
    assert not follower.fold.withheld().any()
