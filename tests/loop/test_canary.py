"""A canary: some users get a challenger's lists, and nobody notices when it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headwater.config import overridden
from headwater.deploy import in_canary
from headwater.log.sqlite import SqliteUpdatesLog
from headwater.loop import CanaryFollower, Follower, Shadow, _canary
from headwater.types import Canary, Recommendations, Request, Rollback
from tests.loop.streams import NOW, learn_all, views
from tests.loop.test_promotion import CONFIG, OTHER, Beside
from tests.roles.test_challenger import until

USERS = [f"u{n}" for n in range(12)]


class Tried(Beside):
    """A challenger that serves, and a follower that may take users to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        learn_all(self.live)
        self.number = self.add(OTHER)
        self.canary = Canary(self.number, OTHER, 0.5)
        self.own = self.shadow(self.number)
        self.learn()
        path = self.challengers.updates(self.number)
        path.parent.mkdir()
        self.published = SqliteUpdatesLog(path)
        self.own.serve(self.published)
        self.follows = CanaryFollower(
            CONFIG, self.events, self.updates, folder / "snapshots", folder / "challengers"
        )

    def shadow(self, number: int, kind: type[Shadow] = Shadow) -> Shadow:
        folder = self.challengers.snapshots(number)
        trial = self.challengers.get(number)[1]
        return kind(overridden(CONFIG, OTHER), self.events, folder, self.gains, trial, number)

    def learn(self) -> None:
        learn_all(self.live)
        while self.own.step():
            self.own.publish()

    def beside(self) -> Follower:
        """What the challenger's own log says."""
        follower = Follower(
            overridden(CONFIG, OTHER),
            self.events,
            self.published,
            self.challengers.snapshots(self.number),
        )
        follower.catch_up()
        return follower

    def begin(self) -> None:
        self.challengers.begin_canary(self.canary)
        until(self.has_begun)

    def has_begun(self) -> bool:
        self.follows.catch_up()
        return any(answer.version < 0 for answer in self.asked())

    def asked(self) -> list[Recommendations]:
        return self.follows.recommend([Request(n=10, user_id=user) for user in USERS], NOW)


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tried]:
    monkeypatch.setattr(_canary, "LOOK_SECONDS", 0.0)
    tried = Tried(tmp_path)
    with closing(tried.gains), closing(tried.published):
        yield tried
        tried.challengers.end_canary()
        tried.follows.catch_up()


def lists(answers: list[Recommendations]) -> list[Any]:
    return [[(item.item_id, item.score) for item in answer.items] for answer in answers]


def test_the_users_of_a_canary_get_the_challengers_lists_and_all_others_the_live_ones(
    tried: Tried,
) -> None:
    requests = [Request(n=10, user_id=user) for user in USERS]
    live = lists(tried.follower().recommend(requests, NOW))
    assert lists(tried.asked()) == live
    tried.begin()
    challenger = lists(tried.beside().recommend(requests, NOW))
    answers = tried.asked()
    chosen = [in_canary(tried.canary, user) for user in USERS]
    assert 0 < sum(chosen) < len(USERS)
    expected = [own if c else other for c, own, other in zip(chosen, challenger, live, strict=True)]
    assert lists(answers) == expected
    assert expected != live
    assert [a.version for a in answers] == [-tried.number if c else 1 for c in chosen]
    explained = tried.follows.explain(USERS[chosen.index(True)], 10, NOW)
    assert explained.version == -tried.number
    (nobody,) = tried.follows.recommend([Request(n=10, session_items=("i1",))], NOW)
    assert nobody.version == 1


def test_both_follow_what_is_learned_meanwhile(tried: Tried) -> None:
    tried.begin()
    tried.events.append(views(150, start=600), NOW)
    tried.learn()
    tried.follows.catch_up()
    answers = {answer.version: answer for answer in tried.asked()}
    assert {version: answer.trained_through for version, answer in answers.items()} == {
        1: 750,
        -tried.number: 750,
    }
    chosen = [user for user in USERS if in_canary(tried.canary, user)]
    requests = [Request(n=10, user_id=user) for user in chosen]
    assert lists(tried.follows.recommend(requests, NOW)) == lists(
        tried.beside().recommend(requests, NOW)
    )


def test_a_rollback_holds_for_both(tried: Tried) -> None:
    tried.begin()
    tried.events.append(views(100, start=600), NOW)
    tried.learn()
    tried.events.append([Rollback("r", 0, 601, 700, "ops", "bad")], NOW)
    tried.learn()
    tried.follows.catch_up()
    answers = tried.asked()
    assert {answer.version for answer in answers} == {1, -tried.number}
    assert all(answer.trained_through <= 701 for answer in answers)
    assert tried.beside().fold.is_set_aside(650)


def test_after_a_canary_has_ended_the_live_model_serves_everybody(tried: Tried) -> None:
    tried.begin()
    tried.challengers.end_canary()
    tried.challengers.end_canary()
    tried.follows.catch_up()
    assert {answer.version for answer in tried.asked()} == {1}
    tried.begin()


def test_a_challenger_that_fails_answers_nobody_any_more(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried.begin()
    recommend = Follower.recommend
    monkeypatch.setattr(
        Follower,
        "recommend",
        lambda self, *of: 1 / 0 if self.version < 0 else recommend(self, *of),
    )
    requests = [Request(n=10, user_id=user) for user in USERS]
    live = lists(tried.follower().recommend(requests, NOW))
    for _ in range(2):
        answers = tried.asked()
        assert lists(answers) == live
        assert {answer.version for answer in answers} == {1}
        tried.follows.catch_up()


def test_a_challenger_that_cannot_be_followed_answers_nobody(tried: Tried) -> None:
    tried.challengers.begin_canary(Canary(tried.number, {"sequence.dim": 6}, 0.5))
    tried.follows.catch_up()
    beside = tried.follows._beside
    assert beside is not None
    until(lambda: not beside._thread.is_alive())
    tried.follows.catch_up()
    assert {answer.version for answer in tried.asked()} == {1}


def test_a_canary_that_goes_on_after_a_restart_opens_an_epoch_of_its_own(tried: Tried) -> None:
    tried.begin()
    again = tried.shadow(tried.number)
    assert again.version == -tried.number
    tried.own = again
    tried.events.append(views(100, start=600), NOW)
    tried.learn()
    again.serve(tried.published)
    tried.follows.catch_up()
    assert {answer.trained_through for answer in tried.asked()} == {700}
    assert tried.beside().epoch == again.epoch


def test_who_is_in_a_canary_is_a_share_of_the_users_and_stays() -> None:
    users = [f"user-{n}" for n in range(4_000)]
    one = [in_canary(Canary(1, {}, 0.2), user) for user in users]
    assert sum(one) == pytest.approx(800, rel=0.1)
    assert one == [in_canary(Canary(1, {}, 0.2), user) for user in users]
    larger = [in_canary(Canary(1, {}, 0.4), user) for user in users]
    assert all(b for a, b in zip(one, larger, strict=True) if a), "a larger share keeps them"
    other = [in_canary(Canary(2, {}, 0.2), user) for user in users]
    assert sum(a and b for a, b in zip(one, other, strict=True)) == pytest.approx(160, rel=0.3)
    assert not any(in_canary(Canary(1, {}, 0.0), user) for user in users)
