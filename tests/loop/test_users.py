"""A hidden user is one that was never seen: in the learner, in the follower, after a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headwater.log.memory import MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Entry, Request, User, UserRemoval
from tests.loop.streams import NOW, events_log, learn_all, small, views


def entries() -> list[Entry]:
    return [
        User("u1", {"plan": "gold"}),
        *views(130, type="rating"),
        UserRemoval("u1"),
        UserRemoval("nobody"),
    ]


def listed(follower: Follower, user_id: str) -> list[tuple[str, float]]:
    (found,) = follower.recommend([Request(10, user_id)], NOW)
    return [(item.item_id, item.score) for item in found.items]


def test_a_hidden_user_gets_what_an_unknown_one_gets(tmp_path: Path) -> None:
    config, events, updates = small(), events_log(entries()), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    learn_all(learner)
    follower = Follower(config, events, updates, None)
    follower.catch_up()
    unknown = listed(follower, "nobody")
    assert unknown
    assert listed(follower, "u1") == unknown
    assert listed(follower, "u2") != unknown
    assert follower.directory.user("u1") is None
    state = follower.fold.preprocess.state()
    for name, value in learner.fold.preprocess.state().items():
        assert np.array_equal(value, state[name]), name

    learner.snapshot()
    again = Follower(config, events, updates, tmp_path)
    again.catch_up()
    assert listed(again, "u1") == unknown
    events.append([*views(5, start=500, users=2), User("u1", {"plan": "none"})], NOW)
    follower.catch_up()
    assert listed(follower, "u1") != listed(follower, "nobody")
    assert follower.directory.user("u1") == User("u1", {"plan": "none"})


def test_a_learner_that_comes_back_agrees(tmp_path: Path) -> None:
    config, events, updates = small(), events_log(entries()), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    learn_all(learner)
    again = Learner(config, events, updates, tmp_path)
    assert again.epoch == learner.epoch
    assert again.digest() == learner.digest()
