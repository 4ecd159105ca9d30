"""The follower: equal to the learner, fresh at once, and never guessing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headwater.config import Config
from headwater.deploy import decode, state_digest
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner, _follower
from headwater.model import _first_look
from headwater.model._scan import Scan
from headwater.types import Entry, Event, Item, ItemRemoval, Recommendations, Request, State
from tests.loop.streams import (
    NOW,
    all_updates,
    assert_equal,
    copied,
    counted,
    events_log,
    learn_all,
    learn_cut,
    small,
    tampered,
    views,
)


@pytest.fixture(params=[False, True], ids=["alone", "prepared"], autouse=True)
def prepared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether another thread reads updates before they are taken over; nothing else may differ."""
    catch_up = Follower.catch_up

    def prepared_first(follower: Follower) -> None:
        reader = threading.Thread(target=follower.prepare)
        reader.start()
        reader.join()
        catch_up(follower)

    if request.param:
        monkeypatch.setattr(Follower, "catch_up", prepared_first)
    return bool(request.param)


ENTRIES: list[Entry] = [
    Item("i1", title="One"),
    *views(180),
    Item("fresh", title="Fresh"),
    ItemRemoval("i4"),
    *views(220, start=180, items=80),
]


def served(part: Learner | Follower) -> State:
    """All that an answer depends on: folds, rows and dense weights, without optimizer state."""
    model = part.fold.model
    return {
        **counted(part),
        "rows": model.sequence.tower.vectors(),
        **model.sequence.dense.values(),
        **model.mixture.dense.values(),
    }


def assert_same(follower: Follower, learner: Learner) -> None:
    assert_equal(served(follower), served(learner))


def following(
    config: Config, events: MemoryEventsLog, updates: MemoryUpdatesLog, folder: Path | None = None
) -> Follower:
    follower = Follower(config, events, updates, folder)
    follower.catch_up()
    return follower


def items_of(answer: Recommendations) -> list[str]:
    return [item.item_id for item in answer.items]


def for_users(follower: Follower, *users: str, n: int = 10) -> list[list[str]]:
    requests = [Request(n=n, user_id=user) for user in users]
    return [items_of(answer) for answer in follower.recommend(requests, NOW + 1.0)]


USERS = [f"u{k}" for k in range(12)]


# --- equal to the learner ------------------------------------------------------------------------


def test_it_equals_the_learner_bit_for_bit_at_every_update() -> None:
    events, updates = events_log(ENTRIES), MemoryUpdatesLog()
    log = MemoryEventsLog()
    learner = Learner(small(train={"batch_events": 37}), log, updates, None)
    follower = Follower(small(), log, updates, None)
    for start in range(0, len(ENTRIES), 37):
        log.append(ENTRIES[start : start + 37], NOW)
        while learner.step():
            pass
        learner.publish()
        follower.catch_up()
        assert (follower.epoch, follower.sequence) == (learner.epoch, learner.sequence)
        assert follower.trained_through == learner.trained_through == follower.offset
        assert_same(follower, learner)
    late = following(small(), events, updates)
    assert_same(late, learner)
    assert learner.sequence > 10


def test_from_a_snapshot_it_is_the_same_as_from_the_start(tmp_path: Path) -> None:
    events, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learner = Learner(small(), events, updates, tmp_path)
    learner.step()
    learner.step()
    learner.snapshot()
    learn_all(learner)
    assert [stored.sequence for stored in all_updates(updates)] == [2, 3, 4]
    late = following(small(), events, updates, tmp_path)
    assert late.sequence == learner.sequence
    assert_same(late, learner)


def test_from_a_snapshot_its_first_look_is_at_the_vectors_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer's bytes follow its tokens in turn, and lag behind after a long backlog."""
    monkeypatch.setattr(_first_look, "_SWEPT", 1)
    config = small(sequence={"exact_items": 10})
    entries = [Item(f"i{n}", categories=(f"c{n % 3}",)) for n in range(60)]
    events, updates = events_log([*entries, *views(200)]), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    learn_all(learner)
    learner.snapshot()
    tower = following(config, events, updates, tmp_path).fold.model.sequence.tower
    learned = learner.fold.model.sequence.tower
    np.testing.assert_array_equal(tower.vectors(), learned.vectors())
    exact = Scan(tower.items.dim - 1)
    exact.grow(len(tower.items))
    exact.put(np.arange(len(tower.items), dtype=np.int32), tower.vectors())
    assert_equal(tower.first_look.scan.state(), exact.state())
    assert (learned.first_look.scan.state()["codes"] != exact.state()["codes"]).any()


@pytest.mark.parametrize("at", [30, 50, 170, 290])
def test_it_looks_along_the_directions_that_the_trainer_found(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the log, and from a snapshot without a sketch, amid its making, and with one."""
    monkeypatch.setattr(_first_look, "_EVERY", 8)
    monkeypatch.setattr(_first_look, "_SWEPT", 10)
    config = small(sequence={"exact_items": 10}, train={"batch_events": 5})
    events, updates = events_log(views(at)), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    early = Follower(config, events, updates, None)
    learn_all(learner)
    learner.snapshot()
    late = following(config, events, updates, tmp_path)
    for start in range(at, 400, 50):
        events.append(views(50, start=start), NOW)
        learn_all(learner)
        for follower in (early, late):
            follower.catch_up()
            while follower.look_on():
                pass
    found = learner.fold.model.sequence.tower.first_look
    assert found.sketch
    for follower in (early, late):
        assert_same(follower, learner)
        looks = follower.fold.model.sequence.tower.first_look
        assert looks.sketch
        newest = found.values().items()
        assert all((looks.values()[name] == value).all() for name, value in newest)


def test_the_order_of_folding_and_applying_does_not_matter() -> None:
    """Events before their updates, updates before the newest events, or in turns."""
    log, updates = MemoryEventsLog(), MemoryUpdatesLog()
    learner = Learner(small(), log, updates, None)
    ahead, behind = Follower(small(), log, updates, None), Follower(small(), log, updates, None)
    for start in range(0, len(ENTRIES), 50):
        log.append(ENTRIES[start : start + 50], NOW)
        ahead.catch_up()
        learn_all(learner)
        ahead.catch_up()
    behind.catch_up()
    assert_same(ahead, learner)
    assert_same(behind, learner)


def test_a_removed_item_leaves_the_lists_and_its_row_is_cleared() -> None:
    events, updates = events_log(views(200)), MemoryUpdatesLog()
    learner = Learner(small(), events, updates, None)
    learn_all(learner)
    follower = following(small(), events, updates)
    [popular, *_] = items_of(follower.popular(5))
    row = follower.fold.preprocess.items.find(popular)
    learned = follower.fold.model.sequence.tower.items.values[row].copy()
    everywhere = for_users(follower, *USERS, n=60)
    assert any(popular in listed for listed in everywhere)
    events.append([ItemRemoval(popular)], NOW)
    follower.catch_up()
    assert popular not in items_of(follower.popular(60))
    assert not any(popular in listed for listed in for_users(follower, *USERS, n=60))
    learn_all(learner)
    assert decode(all_updates(updates)[-1].payload).tombstones["sequence.items"].tolist() == [row]
    late = Follower(small(), events, updates, None)
    for each in (follower, late):
        each.catch_up()
        assert_same(each, learner)
        assert not np.array_equal(each.fold.model.sequence.tower.items.values[row], learned)


# --- fresh at once -------------------------------------------------------------------------------


def test_an_event_shows_before_anything_is_learned_from_it() -> None:
    """History, popularity and transitions are folded here; no update is needed."""
    log, updates = events_log(views(300, type="rating")), MemoryUpdatesLog()
    learn_all(Learner(small(), log, updates, None))
    follower = following(small(), log, updates)
    before_sequence = follower.sequence
    [before] = for_users(follower, "u3", n=60)
    counted = follower.fold.model.popularity.events.copy()
    chosen = before[4]
    event = Event("new", "rating", "u3", log.read(299, 1)[0].stream_time + 60.0, item_id=chosen)
    [appended] = log.append([event], NOW)
    follower.catch_up()
    assert (follower.offset, follower.sequence) == (appended.offset, before_sequence)
    assert follower.trained_through == appended.offset - 1
    [after] = for_users(follower, "u3", n=60)
    assert chosen not in after
    assert [item for item in before if item != chosen] != after
    row = follower.fold.preprocess.items.find(chosen)
    assert follower.fold.model.popularity.events[row] == counted[row] + 1


def test_a_transition_shows_at_once() -> None:
    log = events_log(views(100))
    follower = following(small(), log, MemoryUpdatesLog())
    pair = [Event(f"p{k}", "view", "walker", 2e9 - 9 + k, item_id=i) for k, i in enumerate("ab")]
    log.append(pair, NOW)
    follower.catch_up()
    [answer] = follower.recommend([Request(n=5, session_items=("a",))], NOW)
    found = {item.item_id: item for item in answer.items}
    assert "b" in found
    transitions = [reason for reason in found["b"].reasons if reason.expert == "transitions"]
    assert transitions[0].because_of == "a"


def test_stream_time_goes_on_from_the_newest_event_after_a_start_from_a_snapshot(
    tmp_path: Path,
) -> None:
    """The events are years old: an answer must not depend on whether a snapshot held them all."""
    log, updates = events_log(views(200)), MemoryUpdatesLog()
    running = Follower(small(), log, updates, tmp_path)
    learner = Learner(small(), log, updates, tmp_path)
    learn_all(learner)
    # An item that is set later moves no clock.
    log.append([Item("i1", title="One")] * 3, NOW + 3.0)
    learn_all(learner)
    learner.snapshot()
    running.catch_up()
    restarted = following(small(), log, updates, tmp_path)
    assert restarted.sequence == running.sequence
    requests = [Request(n=20, user_id=user) for user in USERS]
    answers = [each.recommend(requests, NOW + 5.0) for each in (running, restarted)]
    for one, other in zip(*answers, strict=True):
        assert one.items == other.items
        assert one.items


# --- read by another thread ----------------------------------------------------------------------


def test_what_was_prepared_is_neither_read_nor_decoded_again(
    prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learner, follower = (
        Learner(small(), events, updates, None),
        Follower(small(), events, updates, None),
    )
    threads: set[int] = set()

    def noted(payload: bytes) -> Any:
        threads.add(threading.get_ident())
        return decode(payload)

    monkeypatch.setattr(_follower, "decode", noted)
    while learner.step():
        learner.publish()
        follower.catch_up()
    assert follower.sequence == learner.sequence
    assert (threading.get_ident() in threads) != prepared
    assert_same(follower, learner)


def test_an_update_that_came_since_waits_for_the_next_preparation() -> None:
    events, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learner, follower = (
        Learner(small(), events, updates, None),
        Follower(small(), events, updates, None),
    )
    follower.prepare()
    learner.step()
    learner.publish()
    follower._catch_up()
    assert (follower.sequence, follower.offset) == (0, events.end())
    follower.prepare()
    follower._catch_up()
    assert follower.sequence == 1


def test_preparing_and_taking_over_at_once_loses_nothing() -> None:
    events, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learner, follower = (
        Learner(small(), events, updates, None),
        Follower(small(), events, updates, None),
    )
    done = threading.Event()

    def prepare() -> None:
        while not done.is_set():
            follower.prepare()

    reader = threading.Thread(target=prepare)
    reader.start()
    while learner.step():
        learner.publish()
        follower._catch_up()
    done.set()
    reader.join()
    follower.prepare()
    follower._catch_up()
    assert follower.sequence == learner.sequence
    assert len(follower._ready) <= 4
    assert_same(follower, learner)


# --- never guessing ------------------------------------------------------------------------------


def test_behind_a_gap_it_follows_from_the_newest_snapshot(tmp_path: Path) -> None:
    log, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learner = Learner(small(deploy={"snapshots_kept": 1}), log, updates, tmp_path)
    learner.step()
    learner.publish()
    follower = following(small(), log, updates, tmp_path)
    assert follower.sequence == 1
    learner.step()
    learner.snapshot()
    assert updates.read(0, 10) == []
    early = Follower(small(), log, updates, tmp_path)
    follower.catch_up()
    assert (follower.sequence, follower.trained_through) == (2, learner.trained_through)
    learner.step()
    learner.publish()
    learner.step()
    learner.snapshot()
    learn_all(learner)
    assert [stored.sequence for stored in all_updates(updates)] == [5]
    for each in (follower, early):
        each.catch_up()
        assert (each.sequence, each.trained_through) == (5, log.end())
        assert_same(each, learner)


def test_where_no_snapshot_helps_it_goes_on_with_what_comes() -> None:
    log, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learner = Learner(small(), log, updates, None)
    for _ in range(3):
        learner.step()
        learner.publish()
    updates.drop(2)
    follower = following(small(), log, updates)
    assert (follower.sequence, follower.trained_through) == (3, learner.trained_through)
    learn_all(learner)
    follower.catch_up()
    assert follower.sequence == learner.sequence
    weights = {**learner.fold.model.sequence.dense.values()}
    for name, value in follower.fold.model.sequence.dense.values().items():
        assert np.array_equal(value, weights[name])


def test_a_new_epoch_is_followed_from_its_snapshot_on_though_its_sequence_is_lower(
    tmp_path: Path,
) -> None:
    """A power cut took updates that a snapshot had named; the next trainer opened an epoch."""
    log, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learner = Learner(small(), log, updates, tmp_path)
    for _ in range(3):
        learner.step()
        learner.publish()
    learner.snapshot()
    cut = MemoryUpdatesLog()
    token = cut.acquire()
    for stored in copied_prefix(updates_of(learner, log), 1):
        cut.append(stored, token)
    follower = following(small(), log, cut, tmp_path)
    assert follower.sequence == 3
    second = Learner(small(), log, cut, tmp_path)
    assert (second.epoch, second.sequence) == (2, 2)
    learn_all(second)
    assert second.sequence > 3
    follower.catch_up()
    assert (follower.epoch, follower.sequence) == (2, second.sequence)
    assert_same(follower, second)


def updates_of(learner: Learner, log: MemoryEventsLog) -> MemoryUpdatesLog:
    updates = MemoryUpdatesLog()
    again = Learner(small(), log, updates, None)
    while again.trained_through < learner.trained_through:
        again.step()
        again.publish()
    return updates


def copied_prefix(updates: MemoryUpdatesLog, n: int) -> list[Any]:
    return all_updates(copied(updates))[:n]


@pytest.mark.parametrize("snapshot_later", [False, True])
def test_a_damaged_update_is_never_applied_and_a_later_snapshot_gets_past_it(
    snapshot_later: bool, tmp_path: Path
) -> None:
    log, whole = events_log(ENTRIES), MemoryUpdatesLog()
    learn_all(Learner(small(), log, whole, None))
    payload = bytearray(all_updates(whole)[2].payload)
    payload[-5] ^= 1
    updates = tampered(whole, 3, payload=bytes(payload))
    reference = following(small(), log, until(whole, 2))
    follower = Follower(small(), log, updates, tmp_path)
    for _ in range(2):
        follower.catch_up()
        assert (follower.sequence, follower.trained_through) == (2, reference.trained_through)
        assert state_digest(served(follower)) == state_digest(served(reference))
    assert follower.offset == log.end(), "events are folded on"
    if snapshot_later:
        learner = Learner(small(), log, copied(whole), tmp_path)
        learner.snapshot()
    else:
        learner = Learner(small(), log, updates, tmp_path)
        assert learner.epoch == 2
        learn_all(learner)
    follower.catch_up()
    assert (follower.epoch, follower.sequence) == (learner.epoch, learner.sequence)
    assert_same(follower, learner)


def until(updates: MemoryUpdatesLog, sequence: int) -> MemoryUpdatesLog:
    short = MemoryUpdatesLog()
    token = short.acquire()
    for stored in updates.read(0, sequence):
        short.append(stored, token)
    return short


def test_who_starts_from_a_snapshot_has_its_report(tmp_path: Path) -> None:
    events, updates = events_log(views(200)), MemoryUpdatesLog()
    learner = Learner(small(), events, updates, tmp_path)
    learn_all(learner)
    learner.snapshot()
    report = following(small(), events, updates, tmp_path).report
    assert report["trained_through"] > 0
    assert report["metrics"]
    # Nothing was learned by the one that writes the next snapshot.
    Learner(small(), events, updates, tmp_path).snapshot()
    assert following(small(), events, updates, tmp_path).report == report


def test_a_follower_with_time_has_the_bytes_of_one_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_follower, "_REST_SECONDS", 0.0)
    config = small(sequence={"exact_items": 10})
    items = [Item(f"i{n}", categories=(f"c{n % 3}",)) for n in range(40)]
    events, updates = events_log([*items, *views(200)]), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    served = Follower(config, events, updates, None)
    learn_all(learner)
    served.catch_up()
    learner.snapshot()
    served.catch_up()
    while served.rest():
        served.look_on()
    started = following(config, events, updates, tmp_path)
    mine, others = (
        follower.fold.model.sequence.tower.first_look.state() for follower in (served, started)
    )
    for name in ("scan.codes", "scan.scales", "scan.biases"):
        assert (mine[name] == others[name]).all()


def test_a_damaged_report_is_no_reason_to_stop() -> None:
    log, whole = events_log(ENTRIES), MemoryUpdatesLog()
    learner = Learner(small(), log, whole, None)
    learn_all(learner)
    reported = all_updates(whole)[0]
    assert reported.report
    assert following(small(), log, until(whole, 1)).report["trained_through"] == 100
    damaged = tampered(whole, 1, report=reported.report[:-9])
    assert following(small(), log, until(damaged, 1)).report == {}
    assert_same(following(small(), log, damaged), learner)


# --- reading never writes ------------------------------------------------------------------------


def everything(follower: Follower) -> str:
    return state_digest(follower.fold.state())


def test_answering_changes_nothing() -> None:
    log, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learn_all(Learner(small(), log, updates, None))
    follower = following(small(), log, updates)
    before = everything(follower)
    users, items = len(follower.fold.preprocess.users), len(follower.fold.preprocess.items)
    requests = [
        Request(n=10, user_id="u1"),
        Request(n=10, user_id="nobody knows"),
        Request(n=10, session_items=("i1", "never seen", "i2")),
        Request(n=10, session_items=("never seen",), exclude=frozenset({"nor this", "i3"})),
        Request(n=10, user_id="u2", exclude=frozenset({"i5"})),
        Request(n=10),
    ]
    for _ in range(3):
        answers = follower.recommend(requests, NOW + 100.0)
        follower.popular(10)
    assert all(answer.items for answer in answers)
    assert everything(follower) == before
    assert (len(follower.fold.preprocess.users), len(follower.fold.preprocess.items)) == (
        users,
        items,
    )
    log.append([Event("one more", "view", "u1", 1.5e9, item_id="i1")], NOW)
    follower.catch_up()
    assert everything(follower) != before, "the digest sees a single event"


def test_a_batch_is_answered_as_its_requests_are_one_by_one() -> None:
    log, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learn_all(Learner(small(), log, updates, None))
    follower = following(small(), log, updates)
    requests = [
        *(Request(n=8, user_id=user) for user in USERS),
        Request(n=8, session_items=("i1", "i2")),
        Request(n=8, user_id="nobody"),
    ]
    together = follower.recommend(requests, NOW)
    for request, answer in zip(requests, together, strict=True):
        [alone] = follower.recommend([request], NOW)
        assert items_of(alone) == items_of(answer)
        assert [item.score for item in alone.items] == pytest.approx(
            [item.score for item in answer.items], abs=1e-4
        )
    assert len({answer.recommendation_id for answer in together}) == len(requests)


# --- sensible answers ----------------------------------------------------------------------------


def test_before_the_first_event_there_is_nothing_to_recommend() -> None:
    log, updates = events_log([]), MemoryUpdatesLog()
    seen = small(recommend={"catalogue": "seen"})
    follower = following(seen, log, updates)
    answers = follower.recommend(
        [Request(n=5), Request(n=5, user_id="u"), Request(n=5, session_items=("a",))], NOW
    )
    assert [answer.items for answer in [*answers, follower.popular(5)]] == [[]] * 4
    log.append([Item("a"), Item("b", title="B")], NOW)
    follower.catch_up()
    [answer] = follower.recommend([Request(n=5, user_id="u")], NOW)
    assert answer.items == [], "a listed item is recommended once it is seen"
    everything = following(small(), log, updates)
    [answer] = everything.recommend([Request(n=5, user_id="u")], NOW)
    assert {item.item_id: item.title for item in answer.items} == {"a": None, "b": "B"}


def test_an_unknown_user_gets_what_is_popular() -> None:
    log = events_log([])
    log.append(
        [
            Event(f"{k}", "view", f"u{k}", 1e9 + k, item_id="hit" if k % 2 else f"rare{k}")
            for k in range(60)
        ],
        NOW,
    )
    follower = following(small(), log, MemoryUpdatesLog())
    [answer] = follower.recommend([Request(n=3, user_id="nobody")], NOW)
    assert answer.items[0].item_id == "hit"
    assert len(answer.items) == 3
    assert answer.items[0].reasons[0].expert == "popularity"
    assert items_of(follower.popular(3))[0] == "hit"


def test_a_list_is_as_long_as_there_are_items() -> None:
    log = events_log(views(100, items=7))
    follower = following(small(), log, MemoryUpdatesLog())
    known = {f"i{k}" for k in range(7)}
    [answer] = follower.recommend([Request(n=50, user_id="u1")], NOW)
    assert set(items_of(answer)) == known
    assert len(answer.items) == 7
    assert [item.score for item in answer.items] == sorted(
        (item.score for item in answer.items), reverse=True
    )
    assert set(items_of(follower.popular(50))) == known


def test_longer_lists_than_the_experts_usually_propose_are_filled() -> None:
    log = events_log(views(1_500, items=90))
    follower = following(small(mixture={"candidates": 5}), log, MemoryUpdatesLog())
    [answer] = follower.recommend([Request(n=80, user_id="u1")], NOW)
    assert len(set(items_of(answer))) == 80


def test_excluded_items_are_not_in_the_list() -> None:
    log = events_log(views(100, items=7))
    follower = following(small(), log, MemoryUpdatesLog())
    known = frozenset(f"i{k}" for k in range(7))
    some, all_of_them, session = follower.recommend(
        [
            Request(n=9, user_id="u1", exclude=frozenset({"i1", "i2", "unheard of"})),
            Request(n=9, user_id="u1", exclude=known),
            Request(n=9, session_items=("i1",), exclude=known - {"i6"}),
        ],
        NOW,
    )
    assert set(items_of(some)) == known - {"i1", "i2"}
    assert all_of_them.items == []
    assert items_of(session) == ["i6"]


def test_a_user_who_had_everything_gets_an_empty_list() -> None:
    entries = [Event(f"{k}", "rating", "u", 1e9 + k, item_id=f"i{k}") for k in range(5)]
    follower = following(small(), events_log(entries), MemoryUpdatesLog())
    had, other = follower.recommend([Request(n=5, user_id="u"), Request(n=5, user_id="v")], NOW)
    assert had.items == []
    assert len(other.items) == 5


def test_an_unavailable_item_is_not_in_a_list_until_it_is_back() -> None:
    log = events_log(views(100, items=7))
    follower = following(small(), log, MemoryUpdatesLog())
    for available in (False, True):
        log.append([Item("i1", available=available)], NOW)
        follower.catch_up()
        [listed] = for_users(follower, "u1", n=9)
        assert ("i1" in listed) is available
        assert ("i1" in items_of(follower.popular(9))) is available


def test_an_answer_says_which_state_gave_it(tmp_path: Path) -> None:
    log, updates = events_log(views(250)), MemoryUpdatesLog()
    learner = Learner(small(), log, updates, tmp_path)
    follower = Follower(small(), log, updates, tmp_path)
    for end in (100, 180):
        learn_cut(learner, log, [end])
        learner.publish()
        follower.catch_up()
        [answer] = follower.recommend([Request(n=3, user_id="u1")], NOW)
        popular = follower.popular(3)
        for given in (answer, popular):
            assert (given.version, given.sequence) == (1, learner.sequence)
            assert given.trained_through == end
        assert follower.offset == 250
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Recommendations) == answer
