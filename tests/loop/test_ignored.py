"""What was shown and ignored sinks; what was only read, or acted on later, doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.config import Config
from headwater.deploy import PAUSED
from headwater.feedback import Feedback
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.log.served import ServedLog
from headwater.loop import Follower, Learner
from headwater.types import Entry, Event, Held, ItemRemoval, Request, UserRemoval
from tests.loop.streams import (
    NOW,
    digests,
    events_log,
    learn_all,
    learn_cut,
    small,
    views,
)

MINUTE = 60.0
START = 1_000_000_000.0


def config(weight: float = 0.1, **sections: dict[str, Any]) -> Config:
    feedback = {"negative_weight": weight, **sections.pop("feedback", {})}
    return small(0, feedback=feedback, **sections)


def impression(n: int, user: int, item: str, minute: float, **fields: Any) -> Event:
    return Event(f"s{n}", "impression", f"u{user}", START + minute * MINUTE, item, **fields)


def mixed(n: int = 400, each: int = 2) -> list[Entry]:
    """Views, and behind every few of them an impression."""
    found: list[Entry] = []
    for k, entry in enumerate(views(n)):
        found.append(entry)
        if k % each == 0 and isinstance(entry, Event):
            user, item = int(entry.user_id[1:]), f"i{k % 60}"
            fields = {"recommendation_id": f"r{k // 8}", "position": k % 5}
            found.append(impression(k, user, item, k, **fields))
    return found


def learned(settings: Config, entries: list[Entry]) -> Learner:
    learner = Learner(settings, events_log(entries), MemoryUpdatesLog(), None)
    learn_all(learner)
    return learner


# --- it is a fold --------------------------------------------------------------------------------


def test_a_stream_without_impressions_is_learned_as_if_there_were_none() -> None:
    logs = [MemoryUpdatesLog(), MemoryUpdatesLog()]
    for weight, log in zip((0.0, 0.5), logs, strict=True):
        learn_all(Learner(config(weight), events_log(views(400)), log, None))
    assert digests(logs[0]) == digests(logs[1])


def test_impressions_change_what_is_learned_and_two_runs_agree() -> None:
    logs = [MemoryUpdatesLog() for _ in range(3)]
    for weight, log in zip((0.5, 0.5, 0.0), logs, strict=True):
        learn_all(Learner(config(weight), events_log(mixed()), log, None))
    assert digests(logs[0]) == digests(logs[1])
    assert digests(logs[0]) != digests(logs[2])


@pytest.mark.parametrize("removal", [None, ItemRemoval("i3"), UserRemoval("u3")])
def test_a_restart_in_the_middle_gives_the_same_state(
    removal: Entry | None, tmp_path: Path
) -> None:
    entries = mixed()
    if removal is not None:
        entries.insert(350, removal)
    settings = config(0.5)
    events, updates = events_log(entries), MemoryUpdatesLog()
    first = Learner(settings, events, updates, tmp_path)
    ends = [*range(70, 351, 70), 351, 420, 490, len(entries)]
    learn_cut(first, events, ends[:3])
    first.snapshot()
    learn_cut(first, events, ends[3:5])
    first.publish()
    again = Learner(settings, events, updates, tmp_path)
    assert again.epoch == 1, "the logged updates were arrived at"
    for learner in (first, again):
        learn_cut(learner, events, ends)
    assert first.digest() == again.digest()
    assert first.stages.impressions.figures()["ignored"] > 50


def test_the_labels_of_a_held_batch_wait_for_the_next_step() -> None:
    events = events_log(mixed())
    learner = Learner(config(), events, MemoryUpdatesLog(), None)
    learner.learn(events.read(0, 300), held=Held(300, PAUSED, ""))
    assert learner.stages.impressions.figures()["ignored"] == 0
    learner.learn(events.read(300, 100))
    assert learner.stages.impressions.figures()["ignored"] > 50


# --- what it does --------------------------------------------------------------------------------


def score(learner: Learner, user: str, item: str) -> float:
    """Log of the item's share of the sequence expert's belief."""
    fold, expert = learner.fold, learner.fold.model.sequence
    contexts = fold.preprocess.contexts([Request(n=1, user_id=user)], NOW)
    scores = (expert.encode(contexts) @ expert.tower.vectors().T)[0]
    return float(scores[fold.preprocess.items.find(item)] - np.log(np.exp(scores).sum()))


def place(learner: Learner, user: str, item: str) -> int:
    """Among all items by the sequence expert."""
    names = learner.fold.preprocess.items
    return sum(score(learner, user, other) > score(learner, user, item) for other in names)


def ignored_often(times: int = 20, users: int = 6) -> list[Entry]:
    """After a warm-up, some users are shown i0 every hour and never act on it."""
    found = views(600, users=users, items=20)
    start = 600.0
    for n in range(times):
        minute = start + 60.0 * n
        found += [
            impression(1000 * n + user, user, "i0", minute, recommendation_id=f"r{n}")
            for user in range(users)
        ]
        for entry in views(12, seed=1, users=users, items=20, start=1_000_000 + 12 * n):
            if isinstance(entry, Event) and entry.item_id != "i0":
                at = START + MINUTE * (minute + 1)
                found.append(Event(entry.event_id, "view", entry.user_id, at, entry.item_id))
    return found


def test_an_item_that_is_shown_twenty_times_and_ignored_sinks() -> None:
    entries = ignored_often()
    plain, weak, full = (learned(config(weight), entries) for weight in (0.0, 0.1, 1.0))
    users = [f"u{n}" for n in range(6)]
    scores = [np.array([score(one, user, "i0") for user in users]) for one in (plain, weak, full)]
    assert weak.stages.impressions.figures()["ignored"] >= 100
    assert (scores[1] < scores[0] - 0.01).all()
    assert (scores[2] < scores[1] - 0.01).all()
    others = [np.mean([score(one, user, "i1") for user in users]) for one in (plain, full)]
    assert others[1] > others[0] - 0.05, "and it alone"
    places = [np.mean([place(one, user, "i0") for user in users]) for one in (plain, full)]
    assert places[1] > places[0] + 1


def test_a_late_action_is_learned_beside_the_history_that_the_impression_stood_by() -> None:
    shown = impression(0, 1, "i5", 300)
    late = Event("late", "click", "u1", START + 420 * MINUTE, "i5")
    views_ = [e for e in views(480, users=6, items=20) if not _is(e, "u1", "i5")]
    entries = sorted([*views_, shown, late], key=lambda entry: getattr(entry, "timestamp", 0.0))
    learner = learned(config(train={"batch_events": 10}), entries)
    assert learner.stages.impressions.figures() == {"ignored": 1, "taken_back": 1, "waiting": 0}


def _is(entry: Entry, user: str, item: str) -> bool:
    return isinstance(entry, Event) and (entry.user_id, entry.item_id) == (user, item)


def test_a_crawler_teaches_nothing() -> None:
    """Lists that are only read change no bit of what is learned from then on."""
    settings = config(0.5)
    digests_: list[list[str]] = []
    for asked in (0, 500):
        events, updates = MemoryEventsLog(), MemoryUpdatesLog()
        learner = Learner(settings, events, updates, None)
        follower = Follower(settings, events, updates, None)
        served = ServedLog(None)
        feedback = Feedback(served, settings)
        entries = mixed(200)
        for half in (entries[:200], entries[200:]):
            events.append(half, NOW)
            learn_all(learner)
            follower.catch_up()
            for _ in range(asked):
                (answer,) = follower.recommend([Request(n=20, user_id="u1")], NOW)
                feedback.record([(answer, "u1")], NOW)
            feedback.follow(events, follower.offset)
        digests_.append([learner.digest(), *digests(updates)])
        feedback.close()
    assert digests_[0] == digests_[1]
