"""The explanation of a list: the same list, taken apart, by the same state."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.log.memory import MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Entry, Event, Item, Request
from tests.loop.streams import NOW, events_log, learn_all, small, views

ENTRIES: list[Entry] = [Item("i1", title="One"), *views(400)]


@pytest.fixture(scope="module")
def follower(tmp_path_factory: pytest.TempPathFactory) -> Follower:
    folder: Path = tmp_path_factory.mktemp("explained")
    config, events, updates = small(), events_log(ENTRIES), MemoryUpdatesLog()
    learn_all(Learner(config, events, updates, folder))
    made = Follower(config, events, updates, folder)
    made.catch_up()
    return made


def test_the_list_is_the_one_that_is_served(follower: Follower) -> None:
    found = follower.explain("u3", 8, NOW)
    served = follower.recommend([Request(n=8, user_id="u3")], NOW)[0]
    assert len(served.items) == 8
    assert [(item.item_id, item.score, item.title) for item in served.items] == [
        (item.item_id, item.score, item.title) for item in found.items
    ]
    assert [item.reasons for item in served.items] == [item.reasons for item in found.items]
    assert (found.version, found.sequence, found.trained_through, found.offset) == (
        served.version,
        served.sequence,
        served.trained_through,
        401,
    )


def test_the_history_is_the_users_newest_first(follower: Follower) -> None:
    found = follower.explain("u3", 3, NOW)
    own = [e for e in ENTRIES if isinstance(e, Event) and e.user_id == "u3"]
    assert found.events == len(own) > 10
    newest = [(event.item_id, event.type, event.timestamp) for event in reversed(own)][:10]
    assert [(one.item_id, one.type, one.time) for one in found.history] == newest
    assert sum(one.weight for one in found.history) == pytest.approx(1.0, abs=1e-4)
    assert all(one.weight > 0 for one in found.history)
    titles = {one.item_id: one.title for one in found.history}
    assert {title for item_id, title in titles.items() if item_id != "i1"} <= {None}


def test_titles_are_shown_where_they_are_known(follower: Follower) -> None:
    users = [f"u{k}" for k in range(12)]
    events = [one for user in users for one in follower.explain(user, 1, NOW).history]
    assert {one.title for one in events if one.item_id == "i1"} == {"One"}


def test_effects_are_of_the_features_and_largest_first(follower: Follower) -> None:
    found = follower.explain("u3", 8, NOW)
    names = set(follower.fold.recommender.features.names)
    for item in found.items:
        effects = [abs(one.effect) for one in item.features]
        assert 1 <= len(effects) <= 5
        assert effects == sorted(effects, reverse=True)
        assert {one.feature for one in item.features} <= names
        # What is the same for every item of the list can't tell one of them from the others.
        assert not any(one.feature.startswith("request.") for one in item.features)


def test_an_unknown_user_has_no_history_and_stays_unknown(follower: Follower) -> None:
    users = len(follower.fold.preprocess.users)
    found = follower.explain("nobody", 4, NOW)
    assert (found.user_id, found.events, found.history) == ("nobody", 0, [])
    assert len(found.items) == 4
    assert len(follower.fold.preprocess.users) == users


def test_nothing_is_explained_of_nothing() -> None:
    found = Follower(small(), events_log([]), MemoryUpdatesLog(), None).explain("u", 5, NOW)
    assert (found.events, found.history, found.items) == (0, [], [])
