"""What cleaning finds teaches no expert, in either role, and is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from headwater.config import Config
from headwater.ingest import read_interactions
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import Event, State
from tests.loop.streams import assert_equal, counted, learn_all, small, views

HAMMERED = Config().preprocess.cleaning.hammered_events


def live_log(events: list[Event]) -> MemoryEventsLog:
    """Each received when it happened."""
    log = MemoryEventsLog()
    for event in events:
        log.append([event], event.timestamp)
    return log


def people(n: int) -> list[Event]:
    return [entry for entry in views(n) if isinstance(entry, Event)]


def with_bot(events: list[Event], item: str, n: int, seconds: float) -> list[Event]:
    """``n`` views of one item by one user, evenly among the events of others."""
    start = events[-1].timestamp - seconds * n
    bots = [Event(f"bot{k}", "view", "bot", start + seconds * k, item) for k in range(n)]
    return sorted([*events, *bots], key=lambda event: event.timestamp)


def with_double_clicks(events: list[Event]) -> list[Event]:
    """Every third event once more, a second later, under another id."""
    found = list(events)
    for event in events[::3]:
        again = {"event_id": f"{event.event_id}'", "timestamp": event.timestamp + 1.0}
        found.append(msgspec.structs.replace(event, **again))
    return sorted(found, key=lambda event: event.timestamp)


def counts(learner: Learner) -> State:
    """What the counting experts have learned."""
    names = ("popularity.", "transitions.", "neighbours.")
    return {k: v for k, v in learner.fold.model.state().items() if k.startswith(names)}


def learned(events: list[Event], **rules: float) -> Learner:
    # Longer than the experts look back, or what was cleaned would shorten their view.
    preprocess = {"history_length": 50, "cleaning": rules}
    learner = Learner(small(preprocess=preprocess), live_log(events), MemoryUpdatesLog(), None)
    learn_all(learner)
    return learner


def test_a_bot_moves_popularity_no_further_than_the_cap() -> None:
    events = with_bot(people(300), "i50", 1_000, 15.0)
    off = {"duplicate_seconds": 0, "burst_events": 0, "hammered_events": 0, "pushed_times": 0}
    for rules, most in (({}, HAMMERED), (off, 1_000)):
        fold = learned(events, **rules).fold
        row = fold.preprocess.items.find("i50")
        of_people = sum(event.item_id == "i50" for event in events) - 1_000
        assert fold.model.popularity.events[row] - of_people == most
        assert fold.preprocess.item_events[row] - of_people == 1_000, "metrics still count it"


def test_double_clicks_teach_the_counting_experts_nothing() -> None:
    events = people(300)
    noisy = learned(with_double_clicks(events))
    clean = learned(events)
    assert noisy.fold.preprocess.cleaning.counts["duplicate"] == 100
    assert_equal(counts(noisy), counts(clean))
    taught = counts(learned(with_double_clicks(events), duplicate_seconds=0))
    for name in ("popularity.counts", "transitions.weights", "neighbours.weights"):
        assert not np.array_equal(taught[name], counts(clean)[name]), name


def test_both_roles_find_the_same_wherever_batches_end(tmp_path: Path) -> None:
    events = live_log(with_double_clicks(with_bot(people(300), "i50", 100, 15.0)))
    updates = MemoryUpdatesLog()
    learner = Learner(small(train={"batch_events": 37}), events, updates, tmp_path)
    for _ in range(5):
        learner.step()
    learner.snapshot()
    learn_all(learner)
    found = learner.fold.preprocess.cleaning.counts
    assert found["duplicate"] >= 100
    assert found["hammered"] > 0
    follower = Follower(small(), events, updates, None)
    follower.catch_up()
    assert_equal(counted(follower), counted(learner))
    assert follower.report["cleaned"] == found
    again = Learner(small(train={"batch_events": 37}), events, updates, tmp_path)
    assert again.digest() == learner.digest()


def test_what_a_file_holds_is_not_judged(tmp_path: Path) -> None:
    """A basket of equal lines at one moment, as a shop's export has it, counts as it is."""
    path = tmp_path / "baskets.csv"
    lines = ["user_id,item_id,timestamp,event"]
    lines += [f"u,i{k % 7},1700000000,purchase" for k in range(700)]
    path.write_text("\n".join(lines))
    log = MemoryEventsLog()
    log.append(read_interactions(path).events(), 1_700_000_000.0)
    learner = Learner(small(), log, MemoryUpdatesLog(), None)
    learn_all(learner)
    assert not any(learner.fold.preprocess.cleaning.counts.values())
    assert learner.fold.model.popularity.events.tolist() == [100] * 7
