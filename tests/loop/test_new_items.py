"""Items that no event has named yet: only what they are about can bring them into a list."""

from __future__ import annotations

import numpy as np

from headwater.deploy import state_digest
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Event, Floats, Item, ItemRemoval, Request
from tests.loop.streams import small


def stream() -> list[Event | Item]:
    """Two genres of 30 films; users 0, 2, 4, 6 rate the one, the others the other."""
    films: list[Event | Item] = [
        Item(f"{genre}{k}", title=f"{genre} number {k}", categories=(genre,))
        for genre in ("noir", "farce")
        for k in range(30)
    ]
    events = [
        Event(f"{user}-{k}", "rating", f"u{user}", 1e9 + 60.0 * k + user, f"{genre}{k}")
        for k in range(8)
        for user, genre in enumerate(("noir", "farce") * 4)
    ]
    return [*films, *events]


def scores_by_sequence(follower: Follower, user: str, items: list[str]) -> Floats:
    """What the sequence expert alone says of items to a user."""
    preprocess, sequence = follower.fold.preprocess, follower.fold.model.sequence
    users = sequence.encode(preprocess.contexts([Request(n=1, user_id=user)], 2e9))
    rows = np.array([[preprocess.items.find(item) for item in items]], np.int32)
    scores: Floats = sequence.scores(users, rows)[0]
    return scores


def test_an_item_that_was_put_a_moment_ago_is_in_the_next_list() -> None:
    events, updates = MemoryEventsLog(), MemoryUpdatesLog()
    config = small()
    learner = Learner(config, events, updates, None)
    follower = Follower(config, events, updates, None)
    events.append(stream(), 2e9)
    while learner.step():
        learner.publish()
    events.append([Item("new", title="The newest noir", categories=("noir",))], 2e9)
    follower.catch_up()
    (likes_noir,) = follower.recommend([Request(60, "u0")], 2e9)
    found = {item.item_id: item for item in likes_noir.items}
    assert "new" in found
    said = {reason.expert: reason.because_of for reason in found["new"].reasons}
    assert (said["content"] or "").startswith("noir")

    events.append([ItemRemoval("new")], 2e9)
    follower.catch_up()
    (after,) = follower.recommend([Request(60, "u0")], 2e9)
    assert "new" not in {item.item_id for item in after.items}


def test_the_sequence_expert_expects_a_new_item_of_those_who_like_its_like() -> None:
    events, updates = MemoryEventsLog(), MemoryUpdatesLog()
    config = small()
    learner = Learner(config, events, updates, None)
    follower = Follower(config, events, updates, None)
    films = [entry for entry in stream() if isinstance(entry, Item)]
    random = np.random.default_rng(0)
    views = [
        Event(
            f"{n}", "view", f"u{n % 8}", 1e9 + n, f"{('noir', 'farce')[n % 2]}{random.integers(30)}"
        )
        for n in range(1_500)
    ]
    events.append([*films, *views], 2e9)
    while learner.step():
        learner.publish()
    new = [Item(f"new {genre}", categories=(genre,)) for genre in ("noir", "farce")]
    events.append(new, 2e9)
    follower.catch_up()
    learner.step()
    for k in range(8):
        noir, farce = scores_by_sequence(follower, f"u{k}", [item.item_id for item in new])
        assert (noir - farce) * (-1) ** k > 0.5
    trained, served = (role.fold.model.sequence.tower.vectors() for role in (learner, follower))
    assert np.array_equal(trained, served)


def test_where_batches_end_makes_no_difference_to_what_items_are_about() -> None:
    entries = [*stream(), Item("noir3", categories=("farce",)), Item("noir3", tags=("old",))]

    def folded(size: int) -> str:
        events = MemoryEventsLog()
        events.append(entries, 2e9)
        config = small(train={"batch_events": size, "batch_milliseconds": 0})
        learner = Learner(config, events, MemoryUpdatesLog(), None)
        while learner.step():
            pass
        return state_digest(learner.fold.model.content.state())

    assert folded(7) == folded(100) == folded(1)
