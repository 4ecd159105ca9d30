from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headwater.config import Config
from headwater.deploy import state_digest
from headwater.model import Examples
from headwater.train import ListPasses, Pasts, SequencePasses, is_judge
from headwater.types import NO_ROW, Batch, Gone, Ranking
from tests.model.arrays import LENGTH, batches, small, stream
from tests.model.test_experts import Whole

ITEMS = 30


def rounds(users: int, events: int, seed: int = 0, type: str = "view") -> list[tuple[Any, ...]]:
    """Users who walk round the items in order, from where chance put them."""
    starts = np.random.default_rng(seed).integers(ITEMS, size=users)
    return [
        (f"u{user}", (starts[user] + k) % ITEMS, 600.0 * k + user, type)
        for k in range(events)
        for user in range(users)
    ]


class Course:
    """A model, and passes over a stream."""

    def __init__(self, rows: list[tuple[Any, ...]], **backfill: Any) -> None:
        self.config = small(backfill={"positions": 200, **backfill})
        self.batches, items = batches(self.config, stream(rows), [len(rows) // 3])
        self.whole = Whole(self.config)
        self.whole.model.grow(len(items))
        self.pasts = Pasts()
        for batch in self.batches:
            self.pasts.add(batch)
        self.seen: list[tuple[Examples, Any, Any]] = []
        expert = self.whole.model.sequence
        self.expert, step = expert, expert.step

        def recorded(examples, rows, correction, rate, dropout):
            self.seen.append((examples, rows, correction))
            return step(examples, rows, correction, rate, dropout)

        expert.step = recorded  # type: ignore[method-assign,assignment]

    def passes(self) -> SequencePasses:
        return SequencePasses(self.config, self.expert, self.pasts)


# --- what a pass shows ---------------------------------------------------------------------------


def taught(course: Course) -> list[tuple[list[int], int]]:
    """Each prediction: what is before it in its window, and what it predicts."""
    found = []
    for examples, _, _ in course.seen:
        for q, p in np.argwhere(examples.weights > 0):
            before = examples.items[q, : examples.at[q, p] + 1]
            found.append((before[before != NO_ROW].tolist(), int(examples.targets[q, p])))
    return found


@pytest.mark.parametrize("events", [2, LENGTH, LENGTH + 1, LENGTH + 2, 25])
def test_a_pass_predicts_every_event_but_the_first_from_those_just_before_it(events: int) -> None:
    course = Course(rounds(1, events))
    passes = course.passes()
    for _ in range(3):
        course.seen.clear()
        passes.run()
        predictions = taught(course)
        assert {target for _, target in predictions} == set(range(1, events))
        for before, target in predictions:
            assert before == list(range(target - len(before), target)), "nothing of what came after"
        longest = max(len(before) for before, target in predictions if target == events - 1)
        assert longest == min(events - 1, LENGTH), "the newest one as it will be asked"


def test_windows_are_cut_elsewhere_in_every_pass() -> None:
    course = Course(rounds(1, 28))
    passes = course.passes()
    cuts = []
    for _ in range(5):
        course.seen.clear()
        passes.run()
        cuts.append(tuple(sorted(before[0] for before, _ in taught(course))))
    assert len(set(cuts)) > 1


def test_what_is_not_wanted_is_seen_but_never_predicted() -> None:
    rows = rounds(1, 8)
    rows[4] = (*rows[4][:3], "dislike")
    course = Course(rows)
    course.passes().run()
    predictions = taught(course)
    assert 4 not in {target for _, target in predictions}
    assert any(4 in before for before, _ in predictions)


def test_removed_users_and_items_are_left_out() -> None:
    course = Course([*rounds(2, 9), ("u7", 29, 9999.0, "view")])
    course.pasts.forget(Gone(np.array([3], np.int32), np.array([1], np.int32)))
    columns = course.pasts.by_user()
    assert set(columns["users"]) == {0, 2}
    assert 3 not in columns["items"]


# --- what is learned -----------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [4096, 12])
def test_passes_learn_what_follows_what(candidates: int) -> None:
    course = Course(rounds(60, 25), candidates=candidates, dropout=0.0)
    passes = course.passes()
    first = passes.run()
    for _ in range(15):
        last = passes.run()
    assert last < 0.6 * first
    assert all((correction is None) == (candidates > ITEMS) for _, _, correction in course.seen)


def test_an_item_that_nobody_used_is_not_pushed_away() -> None:
    course = Course(rounds(5, 9))
    course.whole.model.grow(ITEMS + 5)
    before = course.expert.tower.vectors()[ITEMS:].copy()
    course.passes().run()
    assert np.array_equal(course.expert.tower.vectors()[ITEMS:], before)


def test_sampling_is_corrected_by_the_probability_of_being_a_candidate() -> None:
    course = Course(rounds(40, 25), candidates=5, positions=30)
    passes = course.passes()
    for _ in range(20):
        passes.run()
    candidates = np.zeros(ITEMS)
    expected = np.zeros(ITEMS)
    for examples, drawn, correction in course.seen:
        there = np.union1d(drawn, examples.targets[examples.weights > 0])
        candidates[there] += 1
        expected += np.exp(correction(np.arange(ITEMS, dtype=np.int32)))
    assert len(course.seen) > 500
    # Targets of one window are distinct, a little less alike than draws of their shares.
    assert candidates / len(course.seen) == pytest.approx(expected / len(course.seen), abs=0.12)
    assert (expected < len(course.seen)).all()


def test_without_two_events_of_a_user_there_is_nothing_to_learn() -> None:
    course = Course([("a", 1, 1.0), ("b", 2, 2.0)])
    before = state_digest(course.expert.state())
    assert np.isnan(course.passes().run())
    assert np.isnan(SequencePasses(course.config, course.expert, Pasts()).run())
    assert state_digest(course.expert.state()) == before


# --- lists ---------------------------------------------------------------------------------------


def ranked(course: Course) -> list[tuple[Batch, Ranking]]:
    model, rank = course.whole.model, course.whole.recommender.rank
    withheld = ~model.popularity.eligible()
    return [(batch, rank(batch.contexts, withheld)) for batch in course.batches[1:]]


def learned_lists() -> tuple[Course, list[tuple[Batch, Ranking]]]:
    course = Course(rounds(20, 25))
    course.whole.model.count(course.batches[0])
    return course, ranked(course)


def test_the_judges_lists_teach_nothing_and_their_loss_falls() -> None:
    course, lists = learned_lists()
    mixture = course.whole.model.mixture
    passes = ListPasses(mixture, 0, lists)
    before = passes.loss()
    for _ in range(5):
        passes.run()
    assert passes.loss() < before
    weights = state_digest(mixture.state())
    # The same with other answers for the judges: what they should be moves nothing.
    again, lists = learned_lists()
    batch = lists[0][0]
    batch.items[is_judge(np.arange(len(batch)))] = int(batch.items[1])
    passes = ListPasses(again.whole.model.mixture, 0, lists)
    for _ in range(5):
        passes.run()
    assert state_digest(again.whole.model.mixture.state()) == weights


def test_other_answers_of_the_others_do_move_it() -> None:
    course, lists = learned_lists()
    before = state_digest(course.whole.model.mixture.state())
    ListPasses(course.whole.model.mixture, 0, lists).run()
    assert state_digest(course.whole.model.mixture.state()) != before


def test_settings_of_the_passes_are_those_of_backfill() -> None:
    assert Config().backfill.candidates >= 3_706, "MovieLens-1M is taken whole"
