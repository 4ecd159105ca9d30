"""The learner: what it comes back to, what it publishes, and when it starts anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headwater.config import Config
from headwater.deploy import PAUSED, Manifest, Snapshots, Versions, decode
from headwater.deploy._snapshots import LAYOUT
from headwater.errors import Fenced, GuardTripped, Unfit
from headwater.log import StoredUpdate
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner, _publishing
from headwater.loop._fold import shape
from headwater.model import _first_look
from headwater.types import Batch, Event, Held, Item, ItemRemoval, Pace, Record, SettingChange
from tests.loop.streams import (
    NOW,
    all_updates,
    assert_equal,
    counted,
    digests,
    events_log,
    learn_all,
    learn_cut,
    small,
    tampered,
    views,
)

TABLE = "sequence.items"


def refolded(
    config: Config, events: MemoryEventsLog, updates: MemoryUpdatesLog, snapshots: Path | None
) -> Learner:
    """A new learner that went through the logged updates and agreed with each digest."""
    newest = all_updates(updates)[-1]
    learner = Learner(config, events, updates, snapshots)
    assert (learner.epoch, learner.sequence) == (newest.epoch, newest.sequence)
    assert updates.end() == newest.sequence, "nothing was appended again"
    return learner


def newest_manifest(folder: Path) -> Manifest:
    snapshots = Snapshots(folder, keep=1)
    return snapshots.manifest(snapshots.paths()[-1])


# --- coming back ---------------------------------------------------------------------------------


class Plan:
    """Random micro-batches of 1 to 100 records, after some of which something is done."""

    def __init__(self, seed: int, records: int) -> None:
        random = np.random.default_rng(seed)
        ends = np.cumsum(random.integers(1, 101, records))
        self.ends = [int(end) for end in ends if end < records] + [records]
        self.published, self.kept, self.killed = (
            {end for end in self.ends if random.random() < share} for share in (0.5, 0.15, 0.25)
        )
        self.published.add(records)
        self.kept &= self.published

    def follow(self, learner: Learner, events: MemoryEventsLog, *, snapshots: bool) -> bool:
        """Goes on from where the learner is; False when it was killed before the end."""
        for end in self.ends:
            if end <= learner.trained_through:
                continue
            learn_cut(learner, events, [end])
            if end in self.published:
                learner.publish()
            if end in self.kept and snapshots:
                learner.snapshot()
            if end in self.killed:
                self.killed.discard(end)
                return False
        return True


@pytest.mark.parametrize("seed", range(6))
def test_killed_anywhere_it_arrives_where_the_uninterrupted_one_does(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_first_look, "_EVERY", 2)
    monkeypatch.setattr(_first_look, "_SWEPT", 20)
    entries = [*views(150, seed), Item("i3", title="Three"), *views(250, seed, start=150)]
    entries.insert(220, ItemRemoval("i5"))
    events = events_log(entries)
    # A small catalogue, and one of which bytes are looked at.
    exact_items = 5 if seed % 2 else 1_000
    config = small(seed, optimize={"every": 100}, sequence={"exact_items": exact_items})
    plan = Plan(seed, len(entries))
    kills = len(plan.killed)

    undisturbed_updates = MemoryUpdatesLog()
    undisturbed = Learner(config, events, undisturbed_updates, None)
    plan.killed, killed = set(), plan.killed
    assert plan.follow(undisturbed, events, snapshots=False)

    plan.killed = killed
    updates = MemoryUpdatesLog()
    lives = 1
    learner = Learner(config, events, updates, tmp_path)
    while not plan.follow(learner, events, snapshots=True):
        learner = Learner(config, events, updates, tmp_path)
        assert learner.sequence == updates.end()
        lives += 1
    assert lives == kills + 1 > 1
    assert bool(learner.fold.model.sequence.tower.first_look.sketch) == (exact_items == 5)
    assert learner.epoch == 1
    assert learner.digest() == undisturbed.digest()
    assert updates.end() == undisturbed_updates.end()
    dropped = undisturbed_updates.end() - len(digests(updates))
    assert digests(updates) == digests(undisturbed_updates)[dropped:]


def test_that_digest_tells_states_apart() -> None:
    entries = views(200)
    whole, half = (
        Learner(small(), events_log(part), MemoryUpdatesLog(), None)
        for part in (entries, entries[:199])
    )
    for learner in (whole, half):
        learn_all(learner)
    assert whole.digest() != half.digest()


def test_logged_updates_are_learned_again_but_never_appended_twice(tmp_path: Path) -> None:
    events, updates = events_log(views(700)), MemoryUpdatesLog()
    first = Learner(small(), events, updates, tmp_path)
    learn_all(first)
    logged = all_updates(updates)
    assert len(logged) == 7
    for _ in range(2):
        again = refolded(small(), events, updates, tmp_path)
        again.publish()
        assert not again.step()
        assert again.digest() == first.digest()
    assert all_updates(updates) == logged
    ends = [end for stored in logged for end in decode(stored.payload).batch_ends]
    assert ends == sorted(set(ends))


def test_recorded_ends_are_respected_whatever_the_settings_say_now() -> None:
    random = np.random.default_rng(1)
    ends = np.unique(np.minimum(np.cumsum(random.integers(1, 101, 40)), 600)).tolist()
    events, updates = events_log(views(600)), MemoryUpdatesLog()
    recording = Learner(small(), events, updates, None)
    for end in ends:
        learn_cut(recording, events, [end])
        recording.publish()
    other = small(train={"batch_events": 17, "batch_milliseconds": 1.0})
    learner = refolded(other, events, updates, None)
    assert learner.digest() == recording.digest()
    assert digests(updates) == digests(updates_of(small(), events, ends))
    by_the_hundred = updates_of(small(), events, range(100, 601, 100))
    assert digests(by_the_hundred)[-1] != digests(updates)[-1], "the cuts matter, or this is idle"


def updates_of(config: Config, events: MemoryEventsLog, ends: Iterable[int]) -> MemoryUpdatesLog:
    updates = MemoryUpdatesLog()
    learner = Learner(config, events, updates, None)
    for end in ends:
        learn_cut(learner, events, [end])
        learner.publish()
    return updates


def test_a_micro_batch_ends_at_its_size_and_after_a_removal() -> None:
    entries = [*views(70), ItemRemoval("i1"), ItemRemoval("i2"), *views(100, start=70)]
    updates = MemoryUpdatesLog()
    learn_all(Learner(small(train={"batch_events": 50}), events_log(entries), updates, None))
    ends = [end for stored in all_updates(updates) for end in decode(stored.payload).batch_ends]
    assert ends == [50, 71, 72, 122, 172]


def test_an_update_that_is_due_waits_for_its_time_while_batches_follow_each_other() -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    learner = Learner(small(train={"publish_milliseconds": 60_000.0}), events, updates, None)
    learner.step()
    learner.publish()
    learner.step()
    learner.publish_due()
    assert updates.end() == 1
    learner.step()
    learner.publish_due()
    assert updates.end() == 2, "nothing is left to wait for"
    assert decode(all_updates(updates)[-1].payload).batch_ends == (200, 300)


def test_a_micro_batch_that_took_all_there_was_is_published_though_more_came_meanwhile() -> None:
    events, updates, rest = events_log(views(50)), MemoryUpdatesLog(), views(100, start=50)
    learner = Learner(small(train={"publish_milliseconds": 60_000.0}), events, updates, None)

    def more_come(_: Batch) -> None:
        events.append(rest[:50], NOW)
        del rest[:50]

    learner.on_batch = more_come
    for end in (50, 100):
        learner.step()
        assert learner.trained_through == end < events.end()
        learner.publish_due()
        assert decode(all_updates(updates)[-1].payload).batch_ends == (end,)


@pytest.mark.parametrize("imported", [False, True])
def test_what_was_imported_waits_longer_for_an_update(
    imported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_publishing, "_HISTORY_MILLISECONDS", 60_000.0)
    entries = [
        msgspec.structs.replace(entry, imported=imported)
        for entry in views(400)
        if isinstance(entry, Event)
    ]
    updates = MemoryUpdatesLog()
    config = small(train={"publish_milliseconds": 0.0})
    learner = Learner(config, events_log(entries), updates, None)
    while learner.step():
        learner.publish_due()
    ends = [decode(stored.payload).batch_ends for stored in all_updates(updates)]
    assert ends == ([(100,), (200, 300, 400)] if imported else [(100,), (200,), (300,), (400,)])


SELDOM = small(train={"publish_milliseconds": 0.0, "publish_dense_milliseconds": 60_000.0})


def carried(updates: MemoryUpdatesLog) -> list[bool]:
    return [bool(decode(stored.payload).dense) for stored in all_updates(updates)]


def test_dense_weights_wait_while_batches_follow_each_other() -> None:
    events, updates = events_log(views(500)), MemoryUpdatesLog()
    learner = Learner(SELDOM, events, updates, None)
    follower = Follower(SELDOM, events, updates, None)
    while learner.step():
        learner.publish_due()
    assert carried(updates) == [True, False, False, False, True], "the first, and when drained"
    follower.catch_up()
    for name, value in learner.fold.model.sequence.dense.values().items():
        assert np.array_equal(follower.fold.model.sequence.dense.values()[name], value)
    assert refolded(SELDOM, events, updates, None).digest() == learner.digest()


def test_who_starts_from_a_snapshot_has_the_weights_of_who_has_followed(tmp_path: Path) -> None:
    events, updates = events_log(views(500)), MemoryUpdatesLog()
    learner = Learner(SELDOM, events, updates, tmp_path)
    learner.step()
    learner.snapshot()
    followed = Follower(SELDOM, events, updates, tmp_path)
    for _ in range(3):
        learner.step()
        learner.publish_due()
    assert carried(updates) == [False, False, False]
    learner.snapshot()
    assert carried(updates) == [False, False, False, True]
    assert decode(all_updates(updates)[-1].payload).batch_ends == ()
    followed.catch_up()
    started = Follower(SELDOM, events, updates, tmp_path)
    assert followed.sequence == started.sequence == learner.sequence
    for name, value in started.fold.model.sequence.dense.values().items():
        assert np.array_equal(followed.fold.model.sequence.dense.values()[name], value)
    assert refolded(SELDOM, events, updates, tmp_path).digest() == learner.digest()


# --- a new epoch ---------------------------------------------------------------------------------


def assert_new_epoch(
    config: Config,
    events: MemoryEventsLog,
    updates: MemoryUpdatesLog,
    folder: Path,
    through: int,
) -> Learner:
    """A learner on these logs opens epoch 2 at ``through``, and a follower goes along."""
    logged = updates.end()
    follower = Follower(config, events, updates, folder)
    learner = Learner(config, events, updates, folder)
    assert (learner.epoch, learner.sequence) == (2, logged + 1)
    assert learner.trained_through == through
    opening = all_updates(updates)[-1]
    assert (opening.epoch, opening.sequence, opening.trained_through) == (2, logged + 1, through)
    assert decode(opening.payload).batch_ends == ()
    manifest = newest_manifest(folder)
    assert (manifest.epoch, manifest.sequence, manifest.offset) == (2, logged, through)
    learn_all(learner)
    for following in (follower, Follower(config, events, updates, folder)):
        following.catch_up()
        assert (following.epoch, following.sequence) == (2, learner.sequence)
        assert following.trained_through == learner.trained_through == events.end()
        ours, its = following.fold.model.sequence, learner.fold.model.sequence
        assert np.array_equal(ours.tower.vectors(), its.tower.vectors())
    again = refolded(config, events, updates, folder)
    assert again.digest() == learner.digest()
    return learner


@pytest.mark.parametrize(
    ("section", "other"),
    [
        ("popularity", {"half_lives_hours": (1.0, 48.0)}),
        ("transitions", {"half_life_days": 30.0}),
        ("neighbours", {"half_life_days": 30.0}),
    ],
)
def test_what_was_counted_under_other_half_lives_is_not_gone_on_from(
    section: str, other: dict[str, Any], tmp_path: Path
) -> None:
    events, updates = events_log(views(50)), MemoryUpdatesLog()
    learner = Learner(small(), events, updates, tmp_path)
    learn_all(learner)
    learner.snapshot()
    Learner(small(), events, updates, tmp_path)
    (key,) = other
    with pytest.raises(Unfit, match=rf"{section}\.{key} is .* there and .* in the settings"):
        Learner(small(0, **{section: other}), events, updates, tmp_path)


def test_operators_are_told_every_setting_that_makes_snapshots_unfit() -> None:
    guide = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    (told,) = re.findall(r"Settings that change the model's shape \((.*), new event types\)", guide)
    settings = {key for key in shape(small()) if key != LAYOUT and "." in key}
    assert set(told.replace("`", "").split(", ")) == settings - {"mixture.features"}


def test_a_digest_that_differs_opens_an_epoch(tmp_path: Path) -> None:
    config, events, updates = small(), events_log(views(500)), MemoryUpdatesLog()
    learn_all(Learner(config, events, updates, tmp_path))
    lying = tampered(updates, 3, digest="0" * 64)
    assert_new_epoch(config, events, lying, tmp_path, through=300)


def test_another_seed_or_setting_opens_an_epoch(tmp_path: Path) -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    learn_all(Learner(small(), events, updates, tmp_path))
    assert_new_epoch(small(seed=1), events, updates, tmp_path, through=100)


@pytest.mark.parametrize("place", [3, 400, -1])
def test_a_damaged_update_opens_an_epoch(place: int, tmp_path: Path) -> None:
    config, events, updates = small(), events_log(views(400)), MemoryUpdatesLog()
    learn_all(Learner(config, events, updates, tmp_path))
    payload = bytearray(all_updates(updates)[2].payload)
    payload[place] ^= 0x40
    damaged = tampered(updates, 3, payload=bytes(payload))
    assert_new_epoch(config, events, damaged, tmp_path, through=200)


def test_updates_that_the_log_has_lost_open_an_epoch(tmp_path: Path) -> None:
    config, events, updates = small(), events_log(views(400)), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    learn_all(learner)
    updates.drop(updates.end())
    assert_new_epoch(config, events, updates, tmp_path, through=0)


def test_a_new_epoch_takes_no_settings_of_the_old_one_along(tmp_path: Path) -> None:
    """A change that was made since the last agreed update is in the snapshot, not in an update."""
    config, events, updates = small(), events_log(views(300)), MemoryUpdatesLog()
    learn_all(Learner(config, events, updates, tmp_path))

    class Changing(Learner):
        def learn(
            self, records: Sequence[Record], *, held: Held | None = None, pace: Pace | None = None
        ) -> None:
            super().learn(records, held=held, pace=pace)
            self._publishing.unpublished.settings.append(
                SettingChange(self.trained_through, "rate", 1.0, 2.0, {})
            )

    opened = Changing(config, events, updates, tmp_path)
    assert (opened.epoch, opened.trained_through) == (2, 100)
    refolded(config, events, updates, tmp_path)


def test_a_second_learner_fences_off_the_first(tmp_path: Path) -> None:
    events, updates = events_log(views(100)), MemoryUpdatesLog()
    first = Learner(small(), events, updates, tmp_path)
    learn_all(first)
    second = Learner(small(), events, updates, tmp_path)
    events.append(views(100, start=100), 2e9)
    first.step()
    with pytest.raises(Fenced):
        first.publish()
    assert updates.end() == 1
    with pytest.raises(Fenced):
        first.snapshot()
    assert Snapshots(tmp_path, keep=1).paths() == []
    learn_all(second)
    assert (second.epoch, updates.end()) == (1, 2)


# --- what the digests catch ----------------------------------------------------------------------


class Skips(Learner):
    """Broken: says that it trained through every other batch that it only counted."""

    def learn(
        self, records: Sequence[Record], *, held: Held | None = None, pace: Pace | None = None
    ) -> None:
        odd = self._publishing.unpublished or self.sequence % 2
        super().learn(records, held=Held(0, "step", "") if odd else held, pace=pace)
        self._publishing.unpublished.held.clear()


def test_trained_through_without_a_step_is_found_out() -> None:
    events = events_log(views(400))
    honest, broken = MemoryUpdatesLog(), MemoryUpdatesLog()
    learn_all(Learner(small(), events, honest, None))
    learn_all(Skips(small(), events, broken, None))
    assert [stored.trained_through for stored in all_updates(broken)] == [100, 200, 300, 400]
    assert Learner(small(), events, honest, None).epoch == 1
    caught = Learner(small(), events, broken, None)
    assert (caught.epoch, caught.trained_through) == (2, 200)


# --- the guard -----------------------------------------------------------------------------------


class Spoiled(Learner):
    """The gradient step of the micro-batch through 300 spoils an item row."""

    poison = float("nan")

    def learn(
        self, records: Sequence[Record], *, held: Held | None = None, pace: Pace | None = None
    ) -> None:
        super().learn(records, held=held, pace=pace)
        if held is None and self.trained_through == 300:
            rows = self.fold.model.sequence.tower.items
            rows.values[7] = self.poison
            rows._dirty[7] = True


class SpoiledBeyondTheLimit(Spoiled):
    poison = 1e6


def published_tables(updates: MemoryUpdatesLog) -> list[np.ndarray]:
    return [
        table.values
        for stored in all_updates(updates)
        for table in decode(stored.payload).tables.values()
    ]


@pytest.mark.parametrize("spoiled", [Spoiled, SpoiledBeyondTheLimit])
@pytest.mark.parametrize("snapshot_at", [0, 100, 200])
@pytest.mark.parametrize("pending", [(300,), (200, 300), (300, 400)])
def test_a_spoiled_row_is_never_published_and_its_batches_are_counted_only(
    spoiled: type[Spoiled], snapshot_at: int, pending: tuple[int, ...], tmp_path: Path
) -> None:
    events, updates = events_log(views(500)), MemoryUpdatesLog()
    plain_updates = MemoryUpdatesLog()
    learner = spoiled(small(), events, updates, tmp_path)
    plain = Learner(small(), events, plain_updates, None)
    for end in (100, 200, 300, 400, 500):
        learn_cut(learner, events, [end])
        if end not in pending[:-1]:
            learner.publish()
        if end == snapshot_at and end not in pending:
            learner.snapshot()
    held = [held for stored in all_updates(updates) for held in decode(stored.payload).held]
    tripped = {one.through: one for one in held if one.guard != PAUSED}
    assert tuple(tripped) == pending
    assert {one.through for one in held} == {
        end for end in (200, 300, 400, 500) if end >= pending[0]
    }
    for end in (100, 200, 300, 400, 500):
        plain.learn(events.read(end - 100, 100), held=tripped.get(end))
        if end not in pending[:-1]:
            plain.publish()
    assert all((np.abs(values) < 100.0).all() for values in published_tables(updates))
    assert digests(updates) == digests(plain_updates)[-len(digests(updates)) :]
    assert learner.digest() == plain.digest()
    assert refolded(small(), events, updates, tmp_path).digest() == plain.digest()
    follower = Follower(small(), events, updates, tmp_path)
    follower.catch_up()
    assert np.array_equal(
        follower.fold.model.sequence.tower.items.values,
        plain.fold.model.sequence.tower.items.values,
    )


def test_without_a_folder_to_return_from_the_guard_raises() -> None:
    events, updates = events_log(views(300)), MemoryUpdatesLog()
    learner = Spoiled(small(), events, updates, None)
    learn_cut(learner, events, [300])
    with pytest.raises(GuardTripped, match=r"finite: table sequence\.items, row 7"):
        learner.publish()
    assert updates.end() == 0


# --- snapshots -----------------------------------------------------------------------------------


def test_updates_are_dropped_behind_the_oldest_kept_snapshot_only(tmp_path: Path) -> None:
    config = small(deploy={"snapshot_events": 200, "snapshots_kept": 2})
    events, updates = events_log(views(950)), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    snapshots = Snapshots(tmp_path, keep=2)
    kept: list[int] = []
    while learner.step():
        learner.publish()
        kept = [snapshots.manifest(path).offset for path in snapshots.paths()]
        assert (
            kept
            == [through for through in (200, 400, 600, 800) if through <= learner.trained_through][
                -2:
            ]
        )
        oldest = snapshots.manifest(snapshots.paths()[0]).sequence if kept else 0
        assert [stored.sequence for stored in updates.read(0, 100)] == [
            *range(oldest + 1, learner.sequence + 1)
        ]
    assert kept == [600, 800]
    # Every snapshot that is kept can still be started from.
    for path in [None, *reversed(snapshots.paths())]:
        if path is not None:
            path.unlink()
        if snapshots.paths():
            again = Learner(config, events, updates, tmp_path)
            assert (again.epoch, again.digest()) == (1, learner.digest())


def test_the_updates_log_is_synced_before_a_snapshot_names_its_sequence(tmp_path: Path) -> None:
    order: list[str] = []

    class Watched(MemoryUpdatesLog):
        def append(self, update: StoredUpdate, token: int) -> None:
            super().append(update, token)
            order.append(f"append {update.sequence}")

        def sync(self, token: int) -> None:
            super().sync(token)
            assert not list(tmp_path.glob("*.safetensors"))
            order.append("sync")

    learner = Learner(small(), events_log(views(100)), Watched(), tmp_path)
    learner.step()
    learner.snapshot()
    assert order == ["append 1", "sync"]
    assert newest_manifest(tmp_path).sequence == 1


def test_a_learner_that_was_taken_over_from_keeps_no_version(tmp_path: Path) -> None:
    events, updates = events_log(views(100)), MemoryUpdatesLog()
    learner = Learner(small(), events, updates, tmp_path)
    learner.step()
    learner.publish(whole=True)
    updates.acquire()
    with pytest.raises(Fenced):
        learner.snapshot()
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_publishes_what_is_pending_and_stands_for_it(tmp_path: Path) -> None:
    events, updates = events_log(views(150)), MemoryUpdatesLog()
    learner = Learner(small(), events, updates, tmp_path)
    learn_cut(learner, events, [70, 150])
    path = learner.snapshot()
    assert updates.end() == 1
    state, manifest = Snapshots(tmp_path, keep=1).load(path, learner.fold.shape)
    assert (manifest.epoch, manifest.sequence, manifest.offset) == (1, 1, 150)
    assert manifest.digest == learner.digest()
    assert state.keys() == learner.state().keys()


# --- removed items -------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [137, 100, 101])
def test_a_removed_item_is_forgotten_everywhere(at: int) -> None:
    entries = [*views(at), ItemRemoval("i0"), *views(250 - at, start=at)]
    events, updates = events_log(entries[: at + 1]), MemoryUpdatesLog()
    learner = Learner(small(), events, updates, None)
    row = learner.fold.preprocess.items.row("i0")
    learner.fold.model.grow(row + 1)
    untouched = Learner(small(), events_log([]), MemoryUpdatesLog(), None)
    untouched.fold.model.grow(row + 1)
    learn_all(learner)
    model = learner.fold.model
    row = learner.fold.preprocess.items.find("i0")
    assert np.array_equal(
        model.sequence.tower.items.values[row],
        untouched.fold.model.sequence.tower.items.values[row],
    )
    assert model.popularity.events[row] == 0
    assert not (model.popularity.shares(np.array([row])) > 0).any()
    assert row not in model.from_history["transitions"].state()["successors"]
    assert not learner.fold.eligible()[row]
    assert decode(all_updates(updates)[-1].payload).tombstones[TABLE].tolist() == [row]
    events.append(entries[at + 1 :], 2e9)
    learn_all(learner)
    assert not learner.fold.eligible()[row], "events that name it don't bring it back"
    events.append([Item("i0")], 2e9)
    learn_all(learner)
    assert learner.fold.eligible()[row]


def test_what_is_counted_does_not_depend_on_where_batches_end() -> None:
    entries = [*views(60), ItemRemoval("i2"), Item("new"), *views(90, start=60), Item("i1")]
    entries += [ItemRemoval("i3"), *views(100, seed=3, start=150, items=90), Item("other")]
    found = []
    for size in (1, 7, 100):
        learner = Learner(
            small(train={"batch_events": size}), events_log(entries), MemoryUpdatesLog(), None
        )
        learn_all(learner)
        found.append(counted(learner))
    follower = Follower(small(), events_log(entries), MemoryUpdatesLog(), None)
    follower.catch_up()
    found.append(counted(follower))
    for other in found[1:]:
        assert_equal(found[0], other)


def test_every_snapshot_is_a_line_in_the_history_of_versions(tmp_path: Path) -> None:
    log = events_log(views(300))
    learner = Learner(small(), log, MemoryUpdatesLog(), tmp_path)
    first = learner.snapshot()
    learn_all(learner)
    second = learner.snapshot()
    versions = Versions(tmp_path / "versions.jsonl")
    assert [version.snapshot for version in versions.history()] == [first.name, second.name]
    live = versions.live()
    assert live is not None
    assert (live.number, live.snapshot, live.offset) == (2, second.name, 300)
    assert [version.state for version in versions.listed()] == ["kept", "live"]
    assert live.metrics.keys() == {"mixture.ndcg@10", "popularity.ndcg@10"}
