"""A rollback that was wrong: what it set aside comes again, once, and never more than that."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headwater.deploy import set_aside
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Event, Rollback, UserRemoval
from tests.loop.streams import NOW, assert_equal, counted, events_log, learn_all, small, views

CONFIG = small(deploy={"snapshot_events": 100})


def undo(events: MemoryEventsLog, order: Rollback) -> int:
    return sum(
        not one.duplicate for found in set_aside(events, order) for one in events.append(found, NOW)
    )


def test_what_was_set_aside_is_learned_again_by_both_roles(tmp_path: Path) -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    live = Learner(CONFIG, events, updates, tmp_path)
    learn_all(live)
    follower = Follower(CONFIG, events, updates, tmp_path)
    order = Rollback("r", 0, 201, 300, "ops", "wrongly")
    events.append([order, *views(20, start=300)], NOW)
    learn_all(live)
    assert live.fold.preprocess.total_events == 220
    assert undo(events, order) == 100
    assert undo(events, order) == 0, "each counts once"
    learn_all(live)
    follower.catch_up()
    assert live.fold.preprocess.total_events == 320
    assert follower.trained_through == events.end() == 421
    assert_equal(counted(follower), counted(live))
    originals = [record.entry for record in events.read(200, 100)]
    again = [record.entry for record in events.read(321, 100)]
    for one, other in zip(originals, again, strict=True):
        assert isinstance(one, Event)
        assert isinstance(other, Event)
        assert (other.user_id, other.item_id, other.timestamp) == (
            one.user_id,
            one.item_id,
            one.timestamp,
        )
        assert other.imported
    straight = Learner(CONFIG, events, MemoryUpdatesLog(), None)
    learn_all(straight)
    assert_equal(counted(straight), counted(live))


def test_what_else_is_set_aside_and_who_was_removed_stay_out() -> None:
    events = events_log(views(1_200))
    one, other = Rollback("a", 0, 11, 100, "", ""), Rollback("b", 0, 51, 1_200, "", "")
    first = views(1, start=5_000)[0]
    assert isinstance(first, Event)
    later = msgspec.structs.replace(first, user_id="u3")
    events.append([one, UserRemoval("u3"), later, other], NOW)
    users = [
        record.entry.user_id
        for record in events.read(100, 1_100)
        if isinstance(record.entry, Event)
    ]
    batches = list(set_aside(events, other))
    assert [len(batch) for batch in batches][:1] == [1_000]
    copies = [event for batch in batches for event in batch]
    assert [event.event_id for event in copies] == [
        str(101 + place) for place, user in enumerate(users) if user != "u3"
    ]
    assert not {int(event.event_id) for event in copies} & set(range(101))
    assert list(set_aside(events, Rollback("c", 0, 301, 300, "", ""))) == []


def test_what_came_back_can_be_set_aside_again(tmp_path: Path) -> None:
    events, updates = events_log(views(200)), MemoryUpdatesLog()
    live = Learner(CONFIG, events, updates, tmp_path)
    order = Rollback("r", 0, 151, 200, "ops", "")
    events.append([order], NOW)
    assert undo(events, order) == 50
    again = Rollback("s", 0, 202, 251, "ops", "rightly")
    events.append([again], NOW)
    learn_all(live)
    assert live.fold.preprocess.total_events == 150
    assert undo(events, order) == 0
    assert undo(events, again) == 50
    learn_all(live)
    assert live.fold.preprocess.total_events == 200
