from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headwater.config import Config
from headwater.deploy import Snapshots
from headwater.errors import GuardTripped
from headwater.log.memory import MemoryUpdatesLog
from headwater.loop import Backfilled, Follower, Learner, relearn
from headwater.model import SequenceExpert
from headwater.types import Entry, Event, ItemRemoval, UserRemoval
from tests.loop.streams import assert_equal, counted, events_log, learn_all, small, views

EVENTS = 600
HELD = 60


class Folder:
    """A data folder in parts: two logs in memory, snapshots on disk."""

    def __init__(self, snapshots: Path, entries: list[Entry], config: Config | None = None) -> None:
        self.config = config or settings()
        self.events = events_log(entries)
        self.updates = MemoryUpdatesLog()
        self.snapshots = snapshots
        self.told: list[tuple[str, int, int, str]] = []

    def learner(self, *, anew: bool = False) -> Learner:
        return Learner(self.config, self.events, self.updates, self.snapshots, anew=anew)

    def backfill(self) -> tuple[Learner, Backfilled]:
        learner = self.learner(anew=True)
        done = relearn(self.config, learner, self.events, lambda *told: self.told.append(told))
        return learner, done


def settings(**backfill: Any) -> Config:
    return small(backfill={"passes": 4, "threads": 1, "positions": 200, **backfill})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, views(EVENTS))


# --- what goes live ------------------------------------------------------------------------------


def test_a_trainer_goes_on_from_the_snapshot_without_learning_it_again(folder: Folder) -> None:
    learner, done = folder.backfill()
    assert (done.events, done.held_out) == (EVENTS - HELD, HELD)
    went_on = folder.learner()
    assert went_on.trained_through == EVENTS
    assert went_on.digest() == learner.digest()
    assert went_on.epoch == learner.epoch
    folder.events.append(views(40, start=EVENTS), 2e9)
    learn_all(went_on)
    assert went_on.trained_through == EVENTS + 40


@pytest.mark.parametrize("hold_out", [0.1, 1e-6])
def test_passes_are_learning_by_gradient_and_no_pause(tmp_path: Path, hold_out: float) -> None:
    folder = Folder(tmp_path, views(EVENTS), settings(hold_out=hold_out))
    learner, alerts = folder.learner(anew=True), []
    learner.on_alert = lambda what, _: alerts.append(what)
    relearn(folder.config, learner, folder.events, lambda *_: None)
    assert learner.gradient_through == learner.trained_through == EVENTS
    assert "learning goes on" not in alerts


def test_an_api_serves_what_was_learned(folder: Folder) -> None:
    learner, _ = folder.backfill()
    follower = Follower(folder.config, folder.events, folder.updates, folder.snapshots)
    follower.catch_up()
    assert follower.trained_through == EVENTS
    assert_equal(
        follower.fold.model.sequence.tower.items.state(),
        learner.fold.model.sequence.tower.items.state(),
    )


def test_it_takes_the_place_of_what_was_learned_before(folder: Folder) -> None:
    before = folder.learner()
    learn_all(before)
    before.snapshot()
    learner, _ = folder.backfill()
    assert learner.epoch > before.epoch
    assert folder.learner().digest() == learner.digest() != before.digest()


def test_without_its_snapshots_the_log_is_learned_as_a_stream(folder: Folder) -> None:
    learner, _ = folder.backfill()
    for path in Snapshots(folder.snapshots, 3).paths():
        path.unlink()
    again = folder.learner()
    assert again.trained_through == 0
    assert again.epoch > learner.epoch, "followers don't take the one for the other"
    learn_all(again)
    assert again.trained_through == EVENTS
    assert_equal(counted(again), counted(learner))


def test_what_must_not_go_live_changes_nothing(tmp_path: Path) -> None:
    config = settings().model_copy(
        update={"deploy": small(deploy={"row_norm_limit": 0.001}).deploy}
    )
    folder = Folder(tmp_path, views(100), config)
    with pytest.raises(GuardTripped):
        folder.backfill()
    assert folder.updates.end() == 0
    assert not list(tmp_path.iterdir())


# --- how it is learned ---------------------------------------------------------------------------


def test_counting_experts_count_once_as_from_a_stream(folder: Folder) -> None:
    learner, _ = folder.backfill()
    streamed = Learner(folder.config, folder.events, MemoryUpdatesLog(), None)
    learn_all(streamed)
    assert_equal(counted(learner), counted(streamed))


def test_it_comes_out_the_same_twice(folder: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other", views(EVENTS))
    assert folder.backfill()[0].digest() == other.backfill()[0].digest()


def test_the_best_pass_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hold-out gets better twice, and then no more: two further passes leave no trace."""
    monkeypatch.setattr("headwater.loop._backfill.Backfill._sequence_ndcg", scripted(0, 1, 2, 1, 2))
    stopped = Folder(tmp_path / "a", views(EVENTS), settings(patience=2, passes=9))
    learner, done = stopped.backfill()
    assert (done.passes, done.passes_done) == (2, 4)
    monkeypatch.setattr("headwater.loop._backfill.Backfill._sequence_ndcg", scripted(0, 1, 2))
    exact, done = Folder(tmp_path / "b", views(EVENTS), settings(passes=2)).backfill()
    assert (done.passes, done.passes_done) == (2, 2)
    found = learner.fold.model.sequence.state()
    assert_equal(found, exact.fold.model.sequence.state())


def scripted(*values: float) -> Any:
    left = list(values)
    return lambda *_: left.pop(0)


def test_no_pass_begins_that_would_not_end_in_time(tmp_path: Path) -> None:
    folder = Folder(tmp_path, views(EVENTS), settings(minutes=1e-9))
    assert folder.backfill()[1].passes_done <= 1


def test_the_passes_know_nothing_of_the_hold_out(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its items have names of their own, so that a row of theirs would give it away."""
    for held in views(HELD, start=EVENTS):
        assert isinstance(held, Event)
        entry = Event(
            "n" + held.event_id, "view", held.user_id, held.timestamp, "new" + held.event_id
        )
        folder.events.append([entry], 2e9)
    seen: list[int] = []
    begin = SequenceExpert.begin

    def watched(self, examples, *arguments):
        seen.append(int(max(examples.items.max(), examples.targets.max())))
        return begin(self, examples, *arguments)

    monkeypatch.setattr(SequenceExpert, "begin", watched)
    learner, done = folder.backfill()
    assert done.held_out < HELD, "items that nobody knows can't be asked for"
    first_new = learner.fold.preprocess.items.find("newe600")
    streamed = -(-round(0.1 * (EVENTS + HELD)) // folder.config.train.batch_events)
    assert max(seen[:-streamed]) < first_new <= max(seen[-streamed:])


def test_passes_predict_better_than_one_time_through(tmp_path: Path) -> None:
    """Everybody walks the same round; what comes next is learned by going over it."""
    entries: list[Entry] = [
        Event(f"e{k}", "view", f"u{k % 20}", 1e9 + 60 * k, f"i{(k // 20 + k % 20) % 30}")
        for k in range(600)
    ]
    config = small(
        sequence={"row_learning_rate": 0.2, "learning_rate": 0.01},
        backfill={"passes": 30, "threads": 1, "positions": 100, "dropout": 0.0},
    )
    _, done = Folder(tmp_path, entries, config).backfill()
    assert done.sequence_ndcg > 0.5
    assert done.passes > 1


# --- odd histories -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 4, 12])
def test_the_smallest_histories(tmp_path: Path, n: int) -> None:
    folder = Folder(tmp_path, views(n))
    learner, done = folder.backfill()
    assert done.held_out == round(0.1 * n)
    assert folder.learner().digest() == learner.digest()


def test_the_removed_leave_no_trace_in_what_is_gone_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [*views(300), UserRemoval("u3"), ItemRemoval("i0"), *views(300, start=300)]
    folder = Folder(tmp_path, entries)
    pasts: list[Any] = []

    def none(config: Any, expert: Any, found: Any) -> _NoPasses:
        pasts.append(found)
        return _NoPasses()

    monkeypatch.setattr("headwater.loop._backfill.SequencePasses", none)
    learner, _ = folder.backfill()
    columns = pasts[0].by_user()
    user = learner.fold.preprocess.users.find("u3")
    item = learner.fold.preprocess.items.find("i0")
    removed_at = 1_000_000_000.0 + 60.0 * 299
    assert (columns["times"][columns["users"] == user] > removed_at).all()
    assert (columns["times"][columns["items"] == item] > removed_at).all()
    assert (columns["times"] <= removed_at).any()


class _NoPasses:
    done = 10_000


def test_a_large_hold_out_is_asked_in_part(tmp_path: Path) -> None:
    folder = Folder(tmp_path, views(1500), settings(hold_out=0.4, judged=100))
    _, done = folder.backfill()
    assert done.held_out == 100
    assert {what for what, *_ in folder.told} == {"counting", "passes", "mixture", "hold-out"}
