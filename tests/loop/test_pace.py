"""Under load: every event is counted, of samples more is done, and what was done is recorded."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from headwater.config import Config
from headwater.deploy import decode, encode
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.loop._pace import events_of, pace_of, sampled
from headwater.types import Event, Held, Item, Pace
from tests.loop.streams import (
    all_updates,
    assert_equal,
    counted,
    events_log,
    learn_all,
    small,
    views,
)

LOADED = small(train={"pace": "load", "batch_events": 20})
LEAST = small(train={"pace": "least", "batch_events": 20})


def paces(updates: MemoryUpdatesLog) -> list[Pace]:
    return [pace for stored in all_updates(updates) for pace in decode(stored.payload).paces]


def ends(updates: MemoryUpdatesLog) -> list[int]:
    return [end for stored in all_updates(updates) for end in decode(stored.payload).batch_ends]


def learned(config: Config, events: MemoryEventsLog) -> tuple[Learner, MemoryUpdatesLog]:
    updates = MemoryUpdatesLog()
    learner = Learner(config, events, updates, None)
    learn_all(learner)
    return learner, updates


def test_the_further_behind_the_larger_the_batch_and_the_smaller_the_shares() -> None:
    settings = Config().train
    assert [events_of(n, settings) for n in (0, 1, 100, 150, 499, 500, 10**6)] == [
        100, 100, 100, 150, 499, 500, 500,
    ]  # fmt: skip
    assert pace_of(7, 100, settings) is None
    found = [pace_of(7, n, settings) for n in (101, 200, 400, 500, 10**6)]
    assert found[-1] == found[-2] == Pace(7, 0.2, 0.1, False)
    for slower, faster in pairwise(found[:-1]):
        assert slower is not None
        assert faster is not None
        assert slower.gradient > faster.gradient >= 0.2
        assert slower.evaluated > faster.evaluated >= 0.1
        assert slower.replay
    assert events_of(10**6, small().train) == 100
    assert pace_of(7, 10**6, small().train) is None
    assert pace_of(7, 0, settings.model_copy(update={"pace": "least"})) == found[-1]


def test_a_larger_share_holds_the_smaller_one() -> None:
    offsets = np.arange(1, 20_001)
    small_one, large_one = (sampled(3, offsets, share) for share in (0.05, 0.2))
    assert not (small_one & ~large_one).any()
    assert small_one.mean() == pytest.approx(0.05, abs=0.01)
    assert large_one.mean() == pytest.approx(0.2, abs=0.02)
    assert not np.array_equal(large_one, sampled(4, offsets, 0.2))
    assert sampled(3, offsets, 1.0).all()


def test_what_was_imported_is_learned_in_full_however_much_waits() -> None:
    live = [event for event in views(200) if isinstance(event, Event)]
    history = [msgspec.structs.replace(event, imported=True) for event in live]
    _, in_full = learned(LOADED, events_log(history))
    _, in_samples = learned(LOADED, events_log(live))
    assert paces(in_full) == []
    assert ends(in_full) == list(range(20, 201, 20))
    assert paces(in_samples) != []


def test_of_a_long_history_all_is_learned_and_ever_less_predicted() -> None:
    settings = Config().train
    assert pace_of(settings.history_in_full, 100, settings, imported=True) is None
    found = [pace_of(n, 100, settings, imported=True) for n in (12_000, 20_000, 10**9)]
    assert [pace and (pace.gradient, pace.evaluated, pace.replay) for pace in found] == [
        (1.0, 0.8333, True),
        (1.0, 0.5, True),
        (1.0, settings.least_evaluated, True),
    ]
    config = small(train={"pace": "load", "batch_events": 20, "history_in_full": 100})
    live = [event for event in views(200) if isinstance(event, Event)]
    events = events_log([msgspec.structs.replace(event, imported=True) for event in live])
    learner, updates = learned(config, events)
    assert [(pace.through, pace.evaluated) for pace in paces(updates)] == [
        (end, round(100 / end, 4)) for end in range(120, 201, 20)
    ]
    everything, _ = learned(small(train={"batch_events": 20}), events)
    assert_equal(counted(learner), counted(everything))
    seen, of = (int(one.state()["evaluate.seen"][0]) for one in (learner, everything))
    assert 100 < seen < of == 200
    added, all_of_it = (one.state()["train.histories.added"] for one in (learner, everything))
    assert added == all_of_it
    assert Learner(config, events, updates, None).digest() == learner.digest()
    # Who asks for samples, or for everything, gets that.
    everything_predicted = settings.model_copy(update={"least_gradient": 1.0})
    assert pace_of(10**9, 100, everything_predicted, imported=True) is None
    _, least = learned(LEAST, events)
    assert {pace.gradient for pace in paces(least)} == {0.2}
    _, full = learned(small(train={"batch_events": 20, "history_in_full": 100}), events)
    assert paces(full) == []


def test_every_event_is_counted_at_the_least_share() -> None:
    events = events_log(views(730))
    full, _ = learned(small(), events)
    least, updates = learned(LEAST, events)
    assert {(pace.gradient, pace.evaluated, pace.replay) for pace in paces(updates)} == {
        (0.2, 0.1, False)
    }
    assert_equal(counted(least), counted(full))
    everything, part = (learner.state()["evaluate.seen"][0] for learner in (full, least))
    chosen = sampled(0, np.arange(1, 731), 0.1)
    assert (int(everything), int(part)) == (730, int(chosen.sum()))
    taught = sampled(0, np.arange(1, 731), 0.2).sum()
    assert 0.8 * taught < least.state()["train.histories.added"] <= taught


def test_what_depended_on_load_is_recorded_and_learned_again_from_there() -> None:
    events = events_log(views(500))
    updates = MemoryUpdatesLog()
    learner = Learner(LOADED, events, updates, None)
    learn_all(learner)
    events.append(views(45, start=500), 2e9)
    learn_all(learner)
    assert ends(updates) == [100, 200, 300, 400, 500, 545]
    shares = {pace.through: pace.gradient for pace in paces(updates)}
    assert shares == {**dict.fromkeys((100, 200, 300, 400, 500), 0.2), 545: round(20 / 45, 4)}
    for other in (LOADED, LEAST, small(train={"least_gradient": 0.5, "pace": "load"})):
        again = Learner(other, events, updates, None)
        assert (again.epoch, again.sequence) == (1, learner.sequence)
        assert again.digest() == learner.digest()


def test_a_pace_that_is_lost_is_found_out() -> None:
    events = events_log(views(300))
    _, updates = learned(LOADED, events)
    forgetful = MemoryUpdatesLog()
    token = forgetful.acquire()
    for stored in all_updates(updates):
        update = decode(stored.payload)
        update.paces = ()
        forgetful.append(msgspec.structs.replace(stored, payload=encode(update)), token)
    assert Learner(LOADED, events, forgetful, None).epoch == 2


def test_gradient_through_stays_where_a_batch_was_only_counted() -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    learner = Learner(small(), events, updates, None)
    follower = Follower(small(), events, updates, None)
    for through, held in ((100, None), (200, Held(200, "step", "said so"))):
        learner.learn(events.read(through - 100, 100), held=held)
        learner.publish()
        follower.catch_up()
        assert learner.trained_through == follower.trained_through == through
        assert learner.gradient_through == follower.gradient_through == 100
    learner.learn(events.read(200, 100), pace=Pace(300, 0.2, 0.05, False))
    learner.publish()
    again = Learner(small(), events, updates, None)
    # The watch pauses after a trip, and learning goes on when it is over.
    assert again.gradient_through == learner.gradient_through == 100


@pytest.mark.parametrize("config", [small(), LEAST])
def test_a_step_touches_no_more_rows_where_the_catalogue_is_larger(config: Config) -> None:
    touched = []
    for items in (100, 5_000):
        entries = [Item(f"i{k}", title=f"word{k}", categories=("all",)) for k in range(items)]
        events, updates = events_log([*entries, *views(200)]), MemoryUpdatesLog()
        learner = Learner(config, events, updates, None)
        while learner.trained_through < items:
            learner.learn(events.read(learner.trained_through, min(100, items)))
        learner.publish()
        before = updates.end()
        learn_all(learner)
        changed = [decode(stored.payload).tables for stored in updates.read(before, 100)]
        touched.append(max(len(rows.rows) for tables in changed for rows in tables.values()))
    named = 60  # items of the stream
    assert 0 < touched[1] <= named + config.sequence.negatives
    assert touched[0] <= named + config.sequence.negatives
