"""A challenger in the shadow of the live model, and in its place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.config import Config, overridden
from headwater.deploy import VERSIONS, Challengers, Snapshots, Versions, rollback_to
from headwater.errors import Dropped, GuardTripped
from headwater.log.gains import GainsLog
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner, Shadow, _report, seed
from headwater.types import Promotion, Request, Rollback, Trial
from tests.loop.streams import (
    NOW,
    all_updates,
    assert_equal,
    counted,
    events_log,
    learn_all,
    small,
    views,
)
from tests.loop.test_follower import assert_same

CONFIG = small(deploy={"snapshot_events": 200, "snapshots_kept": 9})
OTHER = {"sequence.dim": 4, "sequence.layers": 0, "preprocess.history_length": 6}
FASTER = {"sequence.row_learning_rate": 0.2, "precedents.window": 5}


class Beside:
    """A live learner on a folder, whose gains are written down, and its challengers."""

    def __init__(self, folder: Path, n: int = 600) -> None:
        self.folder = folder
        self.events, self.updates = events_log(views(n)), MemoryUpdatesLog()
        self.gains = GainsLog(folder / "gains.db")
        self.challengers = Challengers(folder / "challengers")
        self.live = self.learner()

    def learner(self, kind: type[Learner] = Learner) -> Learner:
        live = kind(
            CONFIG,
            self.events,
            self.updates,
            self.folder / "snapshots",
            challengers=self.folder / "challengers",
        )
        live.on_gains = self.gains.add
        return live

    def follower(self) -> Follower:
        follower = Follower(CONFIG, self.events, self.updates, self.folder / "snapshots")
        follower.catch_up()
        return follower

    def add(self, settings: dict[str, Any]) -> int:
        added = self.challengers.add(settings, policy="better", delta=0.0, by="a test", why="")
        return added.number

    def shadow(self, number: int, kind: type[Shadow] = Shadow) -> Shadow:
        settings = self.challengers.get(number)[0].settings
        folder = self.challengers.snapshots(number)
        seed(Snapshots(self.folder / "snapshots", 9), CONFIG, settings, folder)
        return kind(overridden(CONFIG, settings), self.events, folder, self.gains, Trial())

    def shadowed(self, settings: dict[str, Any]) -> int:
        """A challenger with these settings that has learned all that the live one has."""
        number = self.add(settings)
        shadow = self.shadow(number)
        while shadow.step():
            shadow.publish()
        shadow.snapshot()
        return number

    def promote(self, number: int) -> int:
        order = self.challengers.promotion(number, "a test", "why not")
        return self.events.append([order], NOW)[0].offset

    def versions(self) -> Versions:
        return Versions(self.folder / "snapshots" / VERSIONS)


@pytest.fixture
def beside(tmp_path: Path) -> Any:
    beside = Beside(tmp_path)
    with closing(beside.gains):
        learn_all(beside.live)
        yield beside


# --- in the shadow -------------------------------------------------------------------------------


def test_a_shadow_with_the_live_settings_is_the_live_model_bit_for_bit(beside: Beside) -> None:
    """It cuts where the live model cut, so what it is compared on is the same predictions."""
    shadow = beside.shadow(beside.add({"sequence.dim": 8}))
    assert shadow.trained_through == 600, "it went on from the live model's newest snapshot"
    cold = Shadow(CONFIG, beside.events, beside.folder / "cold", beside.gains, Trial())
    while cold.step():
        cold.publish()
    assert cold.digest() == beside.live.digest()
    sums = cold.trial.sums
    assert sums.n > 400
    assert sums.challenger == sums.live
    assert sums.challenger_squares == sums.live_squares == pytest.approx(sums.products)


def test_a_shadow_is_compared_on_every_event_once(beside: Beside) -> None:
    number = beside.add(OTHER)
    shadow = beside.shadow(number)
    assert shadow.trained_through == 0, "its state has another shape, so it begins at the start"
    for _ in range(3):
        shadow.step()
        shadow.publish()
    shadow.snapshot()
    for _ in range(2):
        shadow.step()
    trial = shadow.trial
    assert (trial.trained_through, trial.compared_through) == (500, 500)
    again = Shadow(
        overridden(CONFIG, OTHER),
        beside.events,
        beside.challengers.snapshots(number),
        beside.gains,
        trial,
    )
    assert again.trained_through == 300
    while again.step():
        pass
    straight = Shadow(
        overridden(CONFIG, OTHER), beside.events, beside.folder / "s", beside.gains, Trial()
    )
    while straight.step():
        pass
    assert again.trial.sums.n == straight.trial.sums.n
    assert again.trial.sums.challenger == pytest.approx(straight.trial.sums.challenger)
    assert straight.trial.sums.challenger != straight.trial.sums.live


def test_a_shadow_goes_on_from_the_live_state_where_it_can(beside: Beside) -> None:
    beside.events.append(views(100, start=600), NOW)
    learn_all(beside.live)
    shadow = beside.shadow(beside.add(FASTER))
    assert shadow.trained_through == 600
    assert shadow.step() == 100
    assert shadow.step() == 0, "it is never ahead of the live model"
    assert shadow.trial.sums.n > 50
    assert shadow.config.sequence.row_learning_rate == 0.2
    # A longer history is another state.
    assert beside.shadow(beside.add({"preprocess.history_length": 20})).trained_through == 0


def test_the_comparison_begins_anew_where_the_live_model_does(beside: Beside) -> None:
    shadow = beside.shadow(beside.add(OTHER))
    while shadow.step():
        pass
    assert (shadow.trial.epoch, shadow.trial.sums.n > 400) == (1, True)
    beside.live._open_epoch("a test")
    beside.events.append(views(50, start=600), NOW)
    learn_all(beside.live)
    while shadow.step():
        pass
    assert shadow.trial.epoch == 2
    assert shadow.trial.sums.n <= 50


def test_a_shadow_writes_nothing_that_anybody_learns(beside: Beside) -> None:
    end, updates = beside.events.end(), beside.updates.end()
    digest = beside.live.digest()
    beside.shadowed(OTHER)
    beside.shadowed(FASTER)
    learn_all(beside.live)
    assert (beside.events.end(), beside.updates.end()) == (end, updates)
    assert (beside.live.digest(), beside.live.version) == (digest, 1)


def test_a_shadow_passes_over_what_is_rolled_back(beside: Beside) -> None:
    shadow = beside.shadow(beside.add(OTHER))
    while shadow.step():
        pass
    order = rollback_to(
        beside.versions().listed(), 2, through=beside.events.end(), by="a test", why=""
    )
    assert order.first == 401
    beside.events.append([order, *views(100, start=600)], NOW)
    learn_all(beside.live)
    while shadow.step():
        pass
    assert shadow.fold.preprocess.total_events == 500
    assert beside.live.fold.preprocess.total_events == 500


@pytest.mark.parametrize("publish", [Shadow.publish, Shadow.publish_due, Shadow.snapshot])
def test_a_shadow_whose_update_would_be_held_back_ends(
    beside: Beside, publish: Callable[[Shadow], object]
) -> None:
    shadow = beside.shadow(beside.add(OTHER))
    while shadow.step():
        pass
    items = shadow.fold.model.sequence.tower.items
    items.values[:] = 1e6
    items._dirty[:] = True
    with pytest.raises(GuardTripped):
        publish(shadow)


def test_a_shadow_that_begins_to_rush_ends_and_one_of_a_higher_rate_does_not(
    beside: Beside,
) -> None:
    """By the live model's stride a rate that is fifty times as high would be a wild step."""
    beside.events.append(views(6_000, start=700), NOW)
    learn_all(beside.live)
    beside.live.snapshot()
    rate = 50 * CONFIG.sequence.learning_rate
    shadow = beside.shadow(beside.add({"sequence.learning_rate": rate}))
    assert shadow.trained_through == beside.live.trained_through
    beside.events.append(views(6_000, start=6_700), NOW)
    learn_all(beside.live)
    while shadow.step():
        shadow.publish()
    assert shadow.trained_through == beside.live.trained_through
    for factors in shadow.stages.optimizer._rates.values():
        factors.factor = 100.0
    beside.events.append(views(100, start=12_700), NOW)
    learn_all(beside.live)
    with pytest.raises(GuardTripped, match=r"stride: the \w+ step changed weights by"):
        shadow.step()


def test_a_shadow_of_another_shape_needs_the_whole_log(beside: Beside) -> None:
    beside.events.drop(50)
    with pytest.raises(Dropped):
        beside.shadow(beside.add(OTHER))
    assert beside.shadow(beside.add(FASTER)).trained_through == 600


# --- promoted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [OTHER, FASTER])
def test_a_promoted_challenger_is_live_in_both_roles(
    settings: dict[str, Any], beside: Beside
) -> None:
    number = beside.shadowed(settings)
    before = beside.follower()
    beside.events.append(views(50, start=600), NOW)
    offset = beside.promote(number)
    beside.events.append(views(150, start=650), NOW)
    alerts: list[str] = []
    beside.live.on_alert = lambda what, numbers: alerts.append(what)
    learn_all(beside.live)
    live = beside.live
    assert alerts == ["promoted"]
    assert (live.epoch, live.version, live.trained_through) == (2, 2, 801)
    assert (live.lineage.settings, live.lineage.promotion) == (settings, offset)
    assert live.lineage.challenger == number
    wanted = overridden(CONFIG, settings)
    assert live.config == wanted
    before.catch_up()
    for follower in (before, beside.follower()):
        assert (follower.version, follower.epoch) == (2, 2)
        assert (follower.config, follower.trained_through) == (wanted, 801)
        assert_same(follower, live)
    (answer,) = before.recommend([Request(5, "u1")], NOW)
    assert (answer.version, len(answer.items)) == (2, 5)
    again = beside.learner()
    assert (again.digest(), again.version, again.lineage) == (
        live.digest(),
        2,
        live.lineage,
    )


def newest(updates: MemoryUpdatesLog) -> dict[tuple[str, str], Any]:
    """The metrics of the newest report, by window and segment."""
    reports = [stored.report for stored in all_updates(updates) if stored.report]
    metrics = msgspec.json.decode(reports[-1])["metrics"]
    return {(one["window"], one["segment"]): one["values"] for one in metrics}


def test_the_version_before_stands_beside_the_live_one_and_goes_with_it(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_report, "_DRAINED_SECONDS", 0.0)
    assert beside.live.lineage.before is None
    measured = beside.live.stages.evaluator.metrics("newest")
    own = {
        (one.segment, name): value
        for one in measured
        for name, value in one.values.items()
        if name.startswith("mixture.")
    }
    offset = beside.promote(beside.shadowed(OTHER))
    learn_all(beside.live)
    before = beside.live.lineage.before
    assert before is not None
    assert (before.version, before.through) == (1, offset - 1)
    assert {one.window for one in before.metrics} == {"before"}
    assert {
        (one.segment, name): value for one in before.metrics for name, value in one.values.items()
    } == own
    beside.events.append(views(100, start=600), NOW)
    learn_all(beside.live)
    told = newest(beside.updates)
    assert told["before", "all"]["mixture.ndcg@10"] == msgspec.to_builtins(
        own["all", "mixture.ndcg@10"]
    )
    assert told["newest", "all"]["mixture.ndcg@10"]["n"] > own["all", "mixture.ndcg@10"].n
    beside.live = beside.learner()
    assert beside.live.lineage.before == before
    number = next(v.number for v in beside.versions().listed() if v.version == 1)
    order = rollback_to(
        beside.versions().listed(), number, through=beside.events.end(), by="a test", why=""
    )
    beside.events.append([order, *views(50, start=700)], NOW)
    learn_all(beside.live)
    assert beside.live.lineage.before is None
    assert not [window for window, _ in newest(beside.updates) if window == "before"]


def test_no_version_from_a_promotion_on_stands_for_less_than_those_before(beside: Beside) -> None:
    number = beside.shadowed(FASTER)
    beside.events.append(views(150, start=600), NOW)
    learn_all(beside.live)
    beside.live.snapshot()
    offset = beside.promote(number)
    learn_all(beside.live)
    listed = beside.versions().listed()
    assert [v.offset for v in listed if v.version == 2] == [offset]
    assert offset > max(v.offset for v in listed if v.version == 1)
    assert listed[-1].lineage.settings == FASTER
    # It was learned there as a trainer of these settings would have learned it.
    assert beside.live.fold.preprocess.total_events == 750


class Dies(Exception):
    """What stands for kill -9."""


def dies_at(name: str) -> type[Learner]:
    def die(self: Learner, *_: Any, **__: Any) -> Any:
        raise SystemExit(name)

    return type("Dying", (Learner,), {name: die})


@pytest.mark.parametrize("step", ["_open_epoch", "_begin_snapshot", "_append"])
@pytest.mark.parametrize("settings", [OTHER, FASTER])
def test_a_trainer_that_dies_during_a_promotion_ends_it_when_it_starts(
    step: str, settings: dict[str, Any], beside: Beside
) -> None:
    offset = beside.promote(beside.shadowed(settings))
    follower = beside.follower()
    with pytest.raises(SystemExit, match=step):
        beside.learner(dies_at(step)).step()
    follower.catch_up()
    assert follower.version == 1, "nothing was published"
    live = beside.learner()
    learn_all(live)
    beside.events.append(views(100, start=600), NOW)
    learn_all(live)
    assert (live.version, live.lineage.promotion, live.epoch) == (2, offset, 2)
    follower.catch_up()
    assert (follower.version, follower.config) == (2, overridden(CONFIG, settings))
    assert_same(follower, live)
    assert len([v for v in beside.versions().listed() if v.version == 2]) == 1


def test_what_cannot_be_promoted_leaves_the_live_model_as_it_is(beside: Beside) -> None:
    number = beside.shadowed(OTHER)
    digest = beside.live.digest()
    offset = beside.promote(number)
    beside.challengers.clear(number)
    alerts: list[tuple[str, Any]] = []
    beside.live.on_alert = lambda what, numbers: alerts.append((what, numbers))
    learn_all(beside.live)
    ((what, numbers),) = alerts
    assert (what, numbers["challenger"]) == ("not promoted", number)
    assert "holds no state" in numbers["reason"]
    assert (beside.live.version, beside.live.epoch) == (1, 1)
    assert beside.live.lineage.promotion == offset, "it isn't tried again"
    assert beside.live.trained_through == offset
    assert digest != beside.live.digest() or beside.live.fold.offset == offset
    follower = beside.follower()
    assert (follower.version, follower.config) == (1, CONFIG)


class CannotLearn(Learner):
    """No batch can be learned by the challenger's settings."""

    def learn(self, *records: Any, **named: Any) -> None:
        if self.config != CONFIG:
            raise ValueError("no way")
        super().learn(*records, **named)


def test_a_challenger_that_cannot_learn_what_it_lacks_is_not_promoted(beside: Beside) -> None:
    number = beside.shadowed(FASTER)
    beside.events.append(views(50, start=600), NOW)
    beside.promote(number)
    live = beside.learner(CannotLearn)
    learn_all(live)
    assert (live.version, live.config, live.trained_through) == (1, CONFIG, 651)
    straight = Learner(CONFIG, beside.events, MemoryUpdatesLog(), None)
    learn_all(straight)
    assert_equal(counted(live), counted(straight))


# --- and back ------------------------------------------------------------------------------------


def roll_back(beside: Beside, to: int) -> Rollback:
    order = rollback_to(
        beside.versions().listed(), to, through=beside.events.end(), by="a test", why=""
    )
    beside.events.append([order], NOW)
    return order


def test_a_rollback_to_before_a_promotion_undoes_it_for_good(beside: Beside) -> None:
    good = max(v.number for v in beside.versions().listed())
    beside.promote(beside.shadowed(OTHER))
    beside.events.append(views(100, start=600), NOW)
    learn_all(beside.live)
    follower = beside.follower()
    assert follower.version == 2
    roll_back(beside, good)
    beside.events.append(views(100, start=700), NOW)
    learn_all(beside.live)
    assert (beside.live.version, beside.live.config) == (1, CONFIG)
    assert beside.live.fold.preprocess.total_events == 700
    follower.catch_up()
    assert (follower.version, follower.config) == (1, CONFIG)
    assert_same(follower, beside.live)
    again = beside.learner()
    learn_all(again)
    assert (again.version, again.digest()) == (1, beside.live.digest())
    # The next one that is promoted is a third version: nothing is called as something was before.
    beside.promote(beside.shadowed(FASTER))
    learn_all(again)
    assert again.version == 3


def test_a_rollback_within_a_promoted_version_stays_with_its_settings(beside: Beside) -> None:
    beside.promote(beside.shadowed(OTHER))
    learn_all(beside.live)
    good = max(v.number for v in beside.versions().listed())
    beside.events.append(views(100, start=600), NOW)
    learn_all(beside.live)
    roll_back(beside, good)
    learn_all(beside.live)
    assert beside.live.version == 2
    assert beside.live.config == beside.follower().config == overridden(CONFIG, OTHER)
    assert beside.live.fold.preprocess.total_events == 600


def test_a_challenger_that_has_learned_what_was_rolled_back_since_goes_on_from_before(
    beside: Beside,
) -> None:
    number = beside.shadowed(FASTER)
    folder = beside.challengers.snapshots(number)
    assert [Snapshots(folder, 9).manifest(p).offset for p in Snapshots(folder, 9).paths()] == [600]
    roll_back(beside, 2)
    learn_all(beside.live)
    promoted = beside.live.version
    beside.promote(number)
    learn_all(beside.live)
    assert beside.live.version == promoted == 1, "its only state holds what was set aside"
    other = beside.shadowed({**FASTER, "content.window": 5})
    beside.promote(other)
    learn_all(beside.live)
    assert beside.live.version == 2
    assert beside.live.fold.preprocess.total_events == 400


def test_settings_outlive_the_loss_of_every_snapshot(beside: Beside) -> None:
    beside.promote(beside.shadowed(OTHER))
    learn_all(beside.live)
    Snapshots(beside.folder / "snapshots", 9).clear()
    beside.updates.drop(beside.updates.end())
    again = beside.learner()
    learn_all(again)
    assert (again.version, again.config) == (2, overridden(CONFIG, OTHER))
    assert again.fold.preprocess.total_events == 600
    follower = beside.follower()
    assert (follower.version, follower.config) == (2, overridden(CONFIG, OTHER))


@pytest.mark.parametrize(
    ("after", "wanted"),
    [
        (lambda number: [Promotion("a", number, {}, "", "")], 1),
        (lambda number: [Promotion("a", 9, {"sequence.dim": 3}, "", "")], 1),
    ],
)
def test_an_order_that_makes_no_sense_stops_nobody(
    after: Callable[[int], list[Promotion]], wanted: int, beside: Beside
) -> None:
    number = beside.shadowed(OTHER)
    beside.events.append([*after(number), *views(50, start=600)], NOW)
    learn_all(beside.live)
    assert (beside.live.version, beside.live.config) == (wanted, CONFIG)
    assert isinstance(beside.events, MemoryEventsLog)
    assert beside.live.trained_through == beside.events.end()


def test_settings_of_a_promotion_lie_over_the_configured_ones() -> None:
    assert overridden(Config(), {"mixture.hidden": 12}).mixture.hidden == 12
