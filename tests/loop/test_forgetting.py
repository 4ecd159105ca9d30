"""Sweeps in the loop: both roles forget alike, at once, and serve nothing of what is gone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import Config
from headwater.log import StoredUpdate
from headwater.log.chunks import Entries, bounds
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.loop._forgotten import Forgotten
from headwater.model._tower import Tower
from headwater.types import (
    NO_ROW,
    Entry,
    Event,
    Flags,
    Floats,
    Gone,
    Ints,
    Item,
    ItemRemoval,
    Request,
    TableRows,
    User,
)
from tests.loop.streams import (
    NOW,
    SMALL,
    assert_equal,
    counted,
    digests,
    events_log,
    learn_all,
    small,
)

SWEEP = 50


def bounded(**preprocess: Any) -> Config:
    """Room for 20 items and 15 users, swept every ``SWEEP`` entries."""
    own = {"max_items": 20, "max_users": 15, "sweep_events": SWEEP, "consumed_per_user": 8}
    return small(preprocess={**SMALL["preprocess"], **own, **preprocess})


def drifting(n: int, start: int = 0) -> list[Entry]:
    """Entries whose items and users are ever new ones: described, used, used up, removed."""
    random = np.random.default_rng(start)
    found: list[Entry] = []
    for k in range(start, start + n):
        item, user = f"i{k // 4 - int(random.integers(6))}", f"u{k // 6 - int(random.integers(5))}"
        match k % 25:
            case 3:
                found.append(Item(item, title="Shared", categories=(f"c{k // 50}",), tags=(item,)))
            case 17:
                found.append(ItemRemoval(item))
            case 11:
                found.append(User(user, {"plan": "gold"}))
            case _:
                kind = "rating" if k % 3 else "view"
                found.append(Event(f"e{k}", kind, user, 1e9 + 60.0 * k, item))
    return found


ENTRIES = drifting(600)


def served(part: Learner | Follower) -> dict[str, Any]:
    return {**counted(part), "rows": part.fold.model.sequence.tower.vectors()}


# --- both roles, and restarts --------------------------------------------------------------------


def test_a_follower_equals_the_learner_at_every_update() -> None:
    log, updates = MemoryEventsLog(), MemoryUpdatesLog()
    learner, follower = (
        Learner(bounded(), log, updates, None),
        Follower(bounded(), log, updates, None),
    )
    for start in range(0, len(ENTRIES), 35):
        log.append(ENTRIES[start : start + 35], NOW)
        follower.catch_up()
        learn_all(learner)
        follower.catch_up()
        assert_equal(served(follower), served(learner))
    late = Follower(bounded(), log, updates, None)
    late.catch_up()
    assert_equal(served(late), served(learner))
    preprocess = learner.fold.preprocess
    assert preprocess.expired["items"] > 60
    assert preprocess.expired["users"] > 40
    assert len(preprocess.items) < 60


@pytest.mark.parametrize("kill_after", [1, 4, 9])
def test_a_killed_learner_comes_back_to_the_same_digests(kill_after: int, tmp_path: Path) -> None:
    log, whole = events_log(ENTRIES), MemoryUpdatesLog()
    config = bounded()
    learn_all(undisturbed := Learner(config, log, whole, None))
    updates = MemoryUpdatesLog()
    first = Learner(config, log, updates, tmp_path)
    for step in range(kill_after):
        first.step()
        if step == kill_after // 2:
            first.snapshot()
        first.publish()
    second = Learner(config, log, updates, tmp_path)
    assert (second.epoch, second.trained_through) == (1, first.trained_through)
    assert second.digest() == first.digest()
    learn_all(second)
    assert second.digest() == undisturbed.digest()
    n = len(digests(updates))
    assert digests(updates) == digests(whole)[-n:]


def test_batches_end_at_sweeps() -> None:
    log = events_log(ENTRIES)
    learner = Learner(bounded(), log, MemoryUpdatesLog(), None)
    ends = []
    while learner.step():
        ends.append(learner.trained_through)
    assert set(range(SWEEP, len(ENTRIES) + 1, SWEEP)) <= set(ends)


# --- nothing is left -----------------------------------------------------------------------------


def swept_learner() -> Learner:
    learner = Learner(bounded(), events_log(ENTRIES), MemoryUpdatesLog(), None)
    while learner.step():
        pass
    assert learner.trained_through % SWEEP == 0
    return learner


def test_nothing_names_a_row_that_was_given_up() -> None:
    learner = swept_learner()
    state = learner.state()
    preprocess = learner.fold.preprocess
    free = np.flatnonzero(~preprocess.items.in_use())
    assert len(free) > 5
    names = ["preprocess.histories.items", "preprocess.histories.nodes", "evaluate.tops"]
    names += [f"model.{expert}.successors" for expert in ("transitions", "neighbours")]
    for name in (*names, "model.content.postings"):
        assert not np.isin(state[name], free).any(), name
    names = [
        f"model.{expert}.{what}"
        for expert in ("transitions", "neighbours")
        for what in ("weights", "sums", "events")
    ]
    names += [f"model.popularity.{what}" for what in ("counts", "events", "first_times")]
    for name in (*names, "preprocess.item_events", "model.sequence.rows.accumulators"):
        assert not state[name][free].any(), name
    assert (state["model.content.tokens"][free] == NO_ROW).all()
    assert not state["evaluate.shown"][:, free[free < state["evaluate.shown"].shape[1]]].any()
    fresh = Learner(
        bounded(), events_log([]), MemoryUpdatesLog(), None
    ).fold.model.sequence.tower.items
    fresh.grow(len(preprocess.items))
    assert np.array_equal(state["model.sequence.rows.values"][free], fresh.values[free])
    users = np.flatnonzero(~preprocess.users.in_use())
    last = state["satisfaction.last_times"]
    assert not last[users[users < len(last)]].any()
    assert not np.isin(state["model.precedents.item"], free).any()
    assert (state["model.precedents.newest_of_item"][free] == -1).all()
    assert not np.isin(state["model.precedents.user"], users).any()
    newest = state["model.precedents.newest_of_user"]
    assert (newest[users[users < len(newest)]] == -1).all()
    unused = state["model.content.frequencies"] == 0
    assert np.array_equal(unused, ~preprocess.tokens.in_use())


def test_a_token_that_has_anothers_row_is_a_category_only_if_it_is_one() -> None:
    entries = [
        Item("gone", categories=("x",), tags=("t",)),
        Item("b", tags=("s",)),
        Item("c", tags=("s",)),
        Item("tagged", tags=("p",)),
        Item("sorted", categories=("y", "z")),
    ]
    learner = Learner(
        bounded(max_items=2, sweep_events=3), events_log(entries), MemoryUpdatesLog(), None
    )
    while learner.step():
        pass
    items, tokens = learner.fold.preprocess.items, learner.fold.preprocess.tokens
    assert (tokens.find("tag:p"), tokens.find("category:y")) == (0, 1), "rows of a gone item's"
    rows = np.array([items.find("tagged"), items.find("sorted")], np.int32)
    tagged, sorted_ = learner.fold.categories(rows).tolist()
    assert {token for token in tagged if token != NO_ROW} == set()
    names = {tokens.id(token) for token in sorted_ if token != NO_ROW}
    assert names == {"category:y", "category:z"}
    again = Learner(learner.config, events_log([]), MemoryUpdatesLog(), None)
    again.fold.load(learner.fold.state(), learner.trained_through)
    assert again.fold.categories(rows).tolist() == [tagged, sorted_]


def test_what_is_replayed_names_no_item_that_is_gone() -> None:
    learner = Learner(bounded(), events_log(ENTRIES), MemoryUpdatesLog(), None)
    taught = learner.fold.model.sequence.begin
    seen = 0

    def begin(examples: Any, negatives: Ints, *rest: Any) -> Any:
        nonlocal seen
        known = learner.fold.preprocess.items.in_use()
        rows = np.concatenate([examples.items.ravel(), examples.targets.ravel(), negatives])
        assert known[rows[rows != NO_ROW]].all()
        seen += len(examples.items)
        return taught(examples, negatives, *rest)

    learner.fold.model.sequence.begin = begin  # type: ignore[method-assign, assignment]
    while learner.step():
        pass
    assert seen > len(ENTRIES) / 2


def test_no_example_is_left_to_replay_that_names_what_was_cleared() -> None:
    learner = Learner(bounded(), events_log(ENTRIES), MemoryUpdatesLog(), None)
    trainer = learner.stages.trainer
    honest, left = trainer.forget, []

    def forget(items: Ints) -> None:
        honest(items)
        state = trainer.state()
        open_ones = state["histories.uses"] < learner.config.sequence.replay_cap
        for column in ("items", "targets"):
            assert not np.isin(state[f"histories.column.{column}"][open_ones], items).any()
        left.append(int(open_ones.sum()))

    trainer.forget = forget  # type: ignore[method-assign]
    while learner.step():
        pass
    assert max(left) > 0
    assert len(left) > len(ENTRIES) / SWEEP


# --- never the vector of an item that is gone ----------------------------------------------------


NOBODY = np.zeros(0, np.int32)


class Chronicle(MemoryUpdatesLog):
    """An updates log that forgets nothing, and the learner's tables at each of its updates."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[StoredUpdate] = []
        self.rows: dict[int, dict[str, tuple[Floats, Flags]]] = {}
        self.tower: Callable[[], Tower]

    def append(self, update: StoredUpdate, token: int) -> None:
        super().append(update, token)
        self.all.append(update)
        self.rows[update.trained_through] = rows_of(self.tower())


def rows_of(tower: Tower) -> dict[str, tuple[Floats, Flags]]:
    """The rows of each table, and which of them anything was learned of."""
    return {
        table.name: (table.values.copy(), table.learned.copy())
        for table in (tower.items, tower.tokens)
    }


class Told(Learner):
    """A learner that says which rows it cleared, and where."""

    def __init__(
        self, config: Config, log: MemoryEventsLog, updates: Chronicle, path: Path
    ) -> None:
        super().__init__(config, log, updates, path)
        updates.tower = lambda: self.fold.model.sequence.tower


class World:
    """A learner, a follower, and updates that are on their way from one to the other."""

    def __init__(self, folder: Path) -> None:
        self.config = bounded(max_items=8, sweep_events=10)
        self.folder = folder
        self.events, self.published, self.arrived = (
            MemoryEventsLog(),
            Chronicle(),
            MemoryUpdatesLog(),
        )
        self.token = self.arrived.acquire()
        self.learner = Told(self.config, self.events, self.published, folder)
        self.follower = Follower(self.config, self.events, self.arrived, folder)
        self.initial = Learner(self.config, MemoryEventsLog(), MemoryUpdatesLog(), None)
        self.initial.fold.model.grow(1_000)
        self.initial.fold.model.sequence.tower.tokens.grow(1_000)

    def happen(self) -> None:
        self.events.append(drifting(13, start=self.events.end()), NOW)

    def learn(self) -> None:
        if self.learner.step():
            self.learner.publish()

    def deliver(self) -> None:
        for update in self.published.all[self.arrived.end() :][:1]:
            self.arrived.append(update, self.token)

    def follow(self) -> None:
        self.follower.catch_up()
        self.check()

    def snapshot(self) -> None:
        self.learner.snapshot()

    def restart(self) -> None:
        self.follower = Follower(self.config, self.events, self.arrived, self.folder)
        self.check()

    def check(self) -> None:
        """Every row is as the newest update taken over has it, or new if cleared behind that."""
        follower = self.follower
        through = follower.trained_through
        ahead = Follower(self.config, self.events, MemoryUpdatesLog(), None)
        cleared: list[Gone] = []
        honest = ahead.fold.forget

        def forget(entries: Entries, removed: Ints) -> Gone:
            gone = honest(entries, removed)
            if through < bounds(entries)[1] <= follower.offset:
                cleared.append(gone)
            return gone

        ahead.fold.forget = forget  # type: ignore[method-assign]
        ahead.catch_up()
        model = follower.fold.model
        tables = {"items": model.sequence.tower.items, "tokens": model.sequence.tower.tokens}
        at_zero = {
            "items": model.content.item_tokens[: len(tables["items"]), 0] >= 0,
            "tokens": np.zeros(len(tables["tokens"]), np.bool_),
        }
        for which, table in tables.items():
            expected = getattr(self.initial.fold.model.sequence.tower, which).values[: len(table)]
            expected = np.where(at_zero[which][:, None], np.float32(0), expected)
            if through:
                values, learned = self.published.rows[through][table.name]
                gone = np.concatenate([NOBODY, *(getattr(one, which) for one in cleared)])
                kept = learned[: len(table)] & ~np.isin(np.arange(len(learned)), gone)[: len(table)]
                rows = np.flatnonzero(kept)
                expected[rows] = values[rows]
            assert np.array_equal(table.values, expected)


STEPS = ["happen", "happen", "learn", "learn", "deliver", "follow", "follow", "snapshot", "restart"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_whatever_arrives_when_no_row_is_served_of_an_item_that_is_gone(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for step in steps:
            getattr(world, step)()
        learn_all(world.learner)
        while world.arrived.end() < world.published.end():
            world.deliver()
        world.follow()
        assert_equal(served(world.follower), served(world.learner))


LATE = ["happen", "learn", "happen", "happen", "follow", "deliver", "follow"]


def test_an_update_that_is_late_says_nothing_of_rows_that_were_cleared(tmp_path: Path) -> None:
    world = World(tmp_path)
    for step in LATE:
        getattr(world, step)()


def test_a_follower_that_takes_over_everything_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(self: Forgotten, table: TableRows, trained_through: int) -> TableRows:
        return table

    monkeypatch.setattr(Forgotten, "current", everything)
    world = World(tmp_path)
    for step in LATE[:-1]:
        getattr(world, step)()
    with pytest.raises(AssertionError):
        world.follow()


def test_a_removed_item_that_is_put_again_starts_anew_though_updates_are_late() -> None:
    events, published, arrived = events_log([]), MemoryUpdatesLog(), MemoryUpdatesLog()
    learner = Learner(small(), events, published, None)
    events.append(
        [Event(f"e{k}", "view", f"u{k % 3}", 1e9 + k, f"i{k % 5}") for k in range(60)], NOW
    )
    learn_all(learner)
    follower = Follower(small(), events, arrived, None)
    events.append([ItemRemoval("i1"), Item("i1", title="Another")], NOW)
    follower.catch_up()
    first = follower.fold.model.sequence.tower.items.values.copy()
    token = arrived.acquire()
    for update in published.read(0, 10):
        arrived.append(update, token)
    follower.catch_up()
    row = follower.fold.preprocess.items.find("i1")
    served_rows = follower.fold.model.sequence.tower.items.values
    assert np.array_equal(served_rows[row], first[row])
    assert (served_rows != first).any(axis=1).sum() == 4


# --- what is seen of it --------------------------------------------------------------------------


def test_an_expired_item_is_in_no_list_and_an_expired_user_is_unknown() -> None:
    log, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learn_all(Learner(bounded(), log, updates, None))
    follower = Follower(bounded(), log, updates, None)
    follower.catch_up()
    preprocess = follower.fold.preprocess
    known = {id for id in preprocess.items if id}
    old_user, recent = follower.recommend([Request(40, "u1"), Request(40, "u98")], NOW)
    assert preprocess.users.find("u1") == NO_ROW != preprocess.users.find("u98")
    for answer in (old_user, recent, follower.popular(40)):
        assert answer.items
        assert {item.item_id for item in answer.items} <= known
    assert follower.explain("u1", 5, NOW).history == []


def test_an_id_that_comes_back_starts_anew() -> None:
    back = [Event("back", "view", "u1", 2e9 - 1.0, "i1")]
    log, updates = events_log([*ENTRIES, *back]), MemoryUpdatesLog()
    learn_all(learner := Learner(bounded(), log, updates, None))
    preprocess = learner.fold.preprocess
    row = preprocess.items.find("i1")
    assert preprocess.item_events[row] == 1
    [contexts] = [preprocess.contexts([Request(1, "u1")], 2e9)]
    assert contexts.history_lengths.tolist() == [1]


def test_the_report_says_how_many_are_known_and_expired() -> None:
    log, updates = events_log(ENTRIES), MemoryUpdatesLog()
    learn_all(learner := Learner(bounded(), log, updates, None))
    follower = Follower(bounded(), log, updates, None)
    follower.catch_up()
    preprocess = learner.fold.preprocess
    assert follower.report["known"] == {
        "users": int(preprocess.users.in_use().sum()),
        "items": int(preprocess.items.in_use().sum()),
    }
    assert follower.report["expired"] == preprocess.expired


def test_a_kept_user_vector_is_of_no_item_that_is_gone() -> None:
    log = events_log(ENTRIES[:95])
    follower = Follower(bounded(), log, MemoryUpdatesLog(), None)
    follower.catch_up()
    follower.recommend([Request(5, "u14")], NOW)
    kept = follower.caches["user_vectors"]
    assert len(kept) == 1
    expired = follower.fold.preprocess.expired["items"]
    log.append(ENTRIES[95:99], NOW)
    follower.catch_up()
    assert (len(kept), follower.fold.preprocess.expired["items"]) == (1, expired)
    log.append(ENTRIES[99:100], NOW)
    follower.catch_up()
    assert follower.fold.preprocess.expired["items"] > expired
    assert len(kept) == 0
