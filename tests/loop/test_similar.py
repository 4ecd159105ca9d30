"""Likeness through the follower: at once for new items, never for removed ones, by state alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headwater.deploy import state_digest
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import (
    Entry,
    Event,
    Item,
    ItemRemoval,
    SimilarItems,
    User,
    UserRemoval,
)
from tests.loop.streams import NOW, events_log, learn_all, small, views

GENRES = ("noir", "farce")


def films() -> list[Entry]:
    return [
        Item(f"{genre}{k}", title=f"{genre} number {k}", categories=(genre,))
        for genre in GENRES
        for k in range(15)
    ]


def evenings() -> list[Entry]:
    """Eight users who watch films of one genre each, from u0 to u7."""
    return [
        Event(f"{user}-{k}", "view", f"u{user}", 1e9 + 60.0 * k + user, f"{GENRES[user % 2]}{k}")
        for k in range(12)
        for user in range(8)
    ]


def following(entries: list[Entry], **sections: Any) -> Follower:
    config, events, updates = small(**sections), events_log(entries), MemoryUpdatesLog()
    learn_all(Learner(config, events, updates, None))
    follower = Follower(config, events, updates, None)
    follower.catch_up()
    return follower


def items_of(found: SimilarItems | None) -> list[str]:
    assert found is not None
    return [item.item_id for item in found.items]


def add(follower: Follower, *entries: Entry) -> None:
    log = follower._events
    assert isinstance(log, MemoryEventsLog)
    log.append(entries, NOW)
    follower.catch_up()


def test_an_item_that_was_put_a_moment_ago_goes_with_its_like_at_once() -> None:
    follower = following([*films(), *evenings()])
    add(follower, Item("new", title="The newest noir", categories=("noir",)))
    found = follower.similar_items("new", 5)
    assert found is not None
    assert len(found.items) == 5
    assert all(item.item_id.startswith("noir") for item in found.items)
    assert {r.expert for item in found.items for r in item.reasons} == {"content", "sequence"}
    assert found.items[0].title == f"noir number {found.items[0].item_id[4:]}"
    assert (found.version, found.sequence, found.trained_through) == (
        follower.version,
        follower.sequence,
        follower.trained_through,
    )
    assert "new" in items_of(follower.similar_items("noir3", 60))
    seen = following([*films(), *evenings()], recommend={"catalogue": "seen"})
    add(seen, Item("new", title="The newest noir", categories=("noir",)))
    assert "new" not in items_of(seen.similar_items("noir3", 60))


def test_a_removed_item_is_never_shown_and_has_no_list() -> None:
    follower = following([*films(), *evenings()])
    gone = items_of(follower.similar_items("noir3", 60))[0]
    add(follower, ItemRemoval(gone))
    assert follower.similar_items(gone, 5) is None
    for k in range(12):
        for genre in GENRES:
            if f"{genre}{k}" != gone:
                assert gone not in items_of(follower.similar_items(f"{genre}{k}", 60))
    add(follower, Event("again", "view", "u0", 1e9 + 9e3, gone))
    assert follower.similar_items(gone, 5) is None
    assert follower.similar_items("never heard of", 5) is None


def test_an_item_out_of_stock_isnt_listed_but_has_a_list() -> None:
    follower = following([*films(), *evenings()])
    out = items_of(follower.similar_items("noir3", 60))[0]
    add(follower, Item(out, categories=("noir",), available=False))
    assert out not in items_of(follower.similar_items("noir3", 60))
    assert items_of(follower.similar_items(out, 5))
    assert out not in items_of(follower.similar_items(out, 60))


def test_what_is_excluded_is_left_out() -> None:
    follower = following([*films(), *evenings()])
    whole = items_of(follower.similar_items("noir3", 60))
    rest = items_of(follower.similar_items("noir3", 60, frozenset(whole[:2])))
    # Places move up where an excluded item stood above them, so the order may change.
    assert sorted(rest) == sorted(whole[2:])


def test_who_likes_the_same_is_alike() -> None:
    follower = following([*films(), *evenings()])
    found = follower.similar_users("u2", 3)
    assert {user.user_id for user in found.users} <= {"u0", "u4", "u6"}
    assert found.users
    similarities = [user.similarity for user in found.users]
    assert similarities == sorted(similarities, reverse=True)
    assert 0 < similarities[-1] <= similarities[0] <= 1
    assert len(follower.similar_users("u2", 1).users) == 1


def test_only_users_with_the_newest_events_are_looked_at() -> None:
    follower = following([*films(), *evenings()], recommend={"active_users": 3})
    # The last of every minute are u5, u6 and u7.
    everybody = {u.user_id for k in range(8) for u in follower.similar_users(f"u{k}", 60).users}
    assert everybody <= {"u5", "u6", "u7"}
    add(follower, Event("late", "view", "u0", 1e9 + 9e3, "noir1"))
    everybody = {u.user_id for k in range(8) for u in follower.similar_users(f"u{k}", 60).users}
    assert everybody <= {"u0", "u6", "u7"}
    assert "u0" in everybody


def test_hidden_and_unknown_users_are_like_nobody() -> None:
    follower = following([*films(), *evenings()])
    assert "u0" in {user.user_id for user in follower.similar_users("u2", 60).users}
    add(follower, UserRemoval("u0"), User("set", {"plan": "gold"}))
    assert "u0" not in {user.user_id for user in follower.similar_users("u2", 60).users}
    for nobody in ("u0", "set", "never heard of"):
        assert follower.similar_users(nobody, 60).users == []


def test_the_state_alone_decides(tmp_path: Path) -> None:
    config, events, updates = small(), events_log(views(900)), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    learn_all(learner)
    one = Follower(config, events, updates, None)
    one.catch_up()
    learner.snapshot()
    restarted = Follower(config, events, updates, tmp_path)
    restarted.catch_up()
    before = state_digest(one.fold.state())
    for item in ("i0", "i17", "i59"):
        assert one.similar_items(item, 20) == restarted.similar_items(item, 20)
        assert items_of(one.similar_items(item, 20))
    for user in ("u0", "u7"):
        assert one.similar_users(user, 20) == restarted.similar_users(user, 20)
        assert one.similar_users(user, 20).users
    assert state_digest(one.fold.state()) == before


@pytest.mark.parametrize("entries", [[], [Item("a")], [User("u")]])
def test_of_nothing_nothing_is_similar(entries: list[Entry]) -> None:
    follower = Follower(small(), events_log(entries), MemoryUpdatesLog(), None)
    follower.catch_up()
    found = follower.similar_items("a", 5)
    assert found is None or found.items == []
    assert follower.similar_users("u", 5).users == []
