"""A follower that keeps user vectors answers as one that doesn't, bit for bit, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.recommend import UserVectors
from headwater.types import ItemRemoval, Request, UserRemoval
from tests.loop.streams import NOW, learn_all, small, views

ASKED: tuple[Sequence[Request], ...] = (
    [Request(10, "u1")],
    [Request(10, "u1")],
    [Request(10, "u2"), Request(10, "u1"), Request(5, "nobody")],
    [Request(10, session_items=("i1", "i2"))],
    [Request(10, "u1", exclude=frozenset({"i3"}))],
    [Request(10, "u1"), Request(10, "u2")],
)


class World:
    """A learner, and two followers of what it learns: one that keeps vectors, one that doesn't."""

    def __init__(self, folder: Path) -> None:
        self.events, self.updates = MemoryEventsLog(), MemoryUpdatesLog()
        self.learner = Learner(small(), self.events, self.updates, folder)
        self.keeping, self.plain = (
            Follower(small(serve={"user_vectors_cached": most}), self.events, self.updates, folder)
            for most in (50, 0)
        )

    def happenings(self) -> Iterator[float]:
        """Changes everything that there is to change, and says when to ask after each."""
        self.events.append(views(200), NOW)
        yield NOW
        learn_all(self.learner)
        yield NOW
        yield NOW + 3.0
        yield NOW + 3e4
        self.events.append(views(1, start=200), NOW)
        yield NOW
        self.events.append([ItemRemoval("i1"), ItemRemoval("i3"), UserRemoval("u2")], NOW)
        yield NOW
        self.events.append(views(100, start=300), NOW)
        learn_all(self.learner)
        yield NOW
        self.learner.snapshot()
        self.keeping._start(self.keeping._newest())
        self.plain._start(self.plain._newest())
        yield NOW

    def differences(self) -> int:
        """Asks both the same after every happening; how often they said anything else."""
        differences = 0
        for now in self.happenings():
            for follower in (self.keeping, self.plain):
                follower.catch_up()
            for asked in ASKED * 2:
                one, other = (ranked(follower, asked, now) for follower in self.both)
                differences += one != other
            for user in ("u1", "u5"):
                one_of, other_of = (follower.similar_users(user, 5) for follower in self.both)
                differences += one_of != other_of
        return differences

    @property
    def both(self) -> tuple[Follower, Follower]:
        return self.keeping, self.plain


def ranked(follower: Follower, asked: Sequence[Request], now: float) -> tuple[bytes, ...]:
    fold = follower.fold
    contexts = fold.preprocess.contexts(asked, follower._stream_now(now))
    ranking = fold.recommender.rank(contexts, fold.withheld(), 10)
    arrays: list[np.ndarray] = [ranking.rows, ranking.scores, ranking.features]
    return tuple(array.tobytes() for array in arrays)


def test_nothing_tells_them_apart_but_the_work(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.differences() == 0
    kept, plain = world.keeping.caches["user_vectors"], world.plain.caches["user_vectors"]
    assert plain.hits == 0
    assert kept.hits + kept.misses == plain.misses
    assert kept.hits > kept.misses


def test_a_model_that_changes_under_kept_vectors_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UserVectors, "clear", lambda self: None)
    assert World(tmp_path).differences() > 0
