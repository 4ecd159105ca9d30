from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headwater.config import Config
from headwater.deploy import state_digest
from headwater.model import Examples
from headwater.preprocess import Preprocessor
from headwater.testing import checkerboard
from headwater.train import NOTHING, Lesson, Trainer
from headwater.types import NO_ROW, Batch, Event, Labels, Ranking, Record, State
from tests.model.arrays import LENGTH, batches, copied, small, stream
from tests.model.test_experts import Whole

RATES = {"sequence": 1.0, "mixture": 1.0}


class Recorded(Whole):
    """A whole model that keeps what its two learners were given."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.examples: list[Examples] = []
        self.negatives: list[np.ndarray] = []
        self.log_qs: list[Any] = []
        self.lists: list[tuple[np.ndarray, ...]] = []
        self.lessons: list[Lesson] = []
        sequence, mixture = self.model.sequence, self.model.mixture
        learn_examples, learn_lists = sequence.begin, mixture.step

        def of_sequence(examples, negatives, log_q, rate):
            self.examples.append(examples)
            self.negatives.append(negatives)
            self.log_qs.append(log_q)
            return learn_examples(examples, negatives, log_q, rate)

        def of_mixture(*lists):
            self.lists.append(lists)
            return learn_lists(*lists)

        sequence.begin = of_sequence  # type: ignore[method-assign,assignment]
        mixture.step = of_mixture  # type: ignore[method-assign]

    def ranking(self, batch: Batch) -> Ranking:
        return self.recommender.rank(batch.contexts, ~self.model.popularity.eligible())

    def taught(
        self, batch: Batch, ranking: Ranking, rates: dict[str, float], *args: Any, **named: Any
    ) -> Lesson:
        self.model.count(batch)
        return self.trainer.learn(batch, ranking, rates, *args, **named)

    def step(self, batch: Batch, *, gradient: bool = True, **rates: float) -> Lesson:
        if gradient:
            lesson = self.taught(batch, self.ranking(batch), RATES | rates)
        else:
            self.model.count(batch)
            lesson = NOTHING
        self.lessons.append(lesson)
        return lesson


def course(rows=None, config=None, size=50):
    """Batches of a stream, and the number of its items."""
    config = config or small()
    records = stream(
        rows or [(e.user_id, e.item_id, e.timestamp, e.type) for e in checkerboard(500)]
    )
    made, items = batches(config, records, range(0, len(records), size))
    return made, len(items)


def taught(config=None, rows=None, gradient=True, **rates):
    config = config or small()
    found = Recorded(config)
    made, n_items = course(rows, config)
    found.grow(n_items)
    for batch in made:
        found.step(batch, gradient=gradient, **rates)
    return found


# --- determinism ---------------------------------------------------------------------------------


def test_two_runs_are_equal_bit_for_bit():
    one, other = taught(), taught()
    assert state_digest(one.state()) == state_digest(other.state())
    assert [repr(lesson) for lesson in one.lessons] == [repr(lesson) for lesson in other.lessons]


def test_another_seed_samples_otherwise():
    one = taught(small(sequence={"negatives": 8}))
    other = taught(small(sequence={"negatives": 8}).model_copy(update={"seed": 1}))
    assert one.negatives[3].tolist() != other.negatives[3].tolist()


def test_what_is_sampled_depends_on_the_offset_and_not_on_what_was_drawn_before():
    config = small(sequence={"negatives": 8, "replay": 0.0}, mixture={"replay": 0.0})
    made, n_items = course(config=config)
    one, other = Recorded(config), Recorded(config)
    for found in (one, other):
        found.grow(n_items)
    for batch in made[:5]:
        one.step(batch)
    other.step(made[4])
    assert one.negatives[-1].tolist() == other.negatives[-1].tolist()
    assert one.negatives[-2].tolist() != one.negatives[-1].tolist()


def test_a_loaded_state_goes_on_bit_for_bit():
    made, n_items = course()
    one, other = Recorded(small()), Recorded(small())
    one.grow(n_items)
    for batch in made[:5]:
        one.step(batch)
    other.load(copied(one.state()))
    for batch in made[5:]:
        one.step(batch)
        other.step(batch)
    assert state_digest(one.state()) == state_digest(other.state())


def test_a_trainer_without_its_replay_buffers_goes_on_otherwise():
    made, n_items = course()
    one, other = Recorded(small()), Recorded(small())
    one.grow(n_items)
    for batch in made[:5]:
        one.step(batch)
    other.model.load(copied(one.model.state()))
    one.step(made[5])
    other.step(made[5])
    assert state_digest(one.model.state()) != state_digest(other.model.state())


# --- counting only -------------------------------------------------------------------------------


def parts(state: State, *names: str) -> str:
    return state_digest({name: v for name, v in state.items() if name.startswith(names)})


def test_without_gradient_only_counts_change():
    found, fresh = taught(gradient=False), Recorded(small())
    fresh.grow(course()[1])
    gradient = ("sequence.", "mixture.", "t.")
    assert parts(found.state(), *gradient) == parts(fresh.state(), *gradient)
    assert not found.examples
    assert not found.lists
    assert all(np.isnan(x.sequence_loss) and np.isnan(x.mixture_loss) for x in found.lessons)


def test_counts_are_the_same_with_and_without_gradient():
    counts = ("popularity.", "transitions.", "neighbours.", "precedents.", "habits.")
    assert parts(taught().state(), *counts) == parts(taught(gradient=False).state(), *counts)


def test_a_rate_of_nothing_changes_no_weight():
    found, fresh = taught(sequence=0.0, mixture=0.0), Recorded(small())
    fresh.grow(course()[1])
    for name, value in fresh.model.sequence.dense.values().items():
        np.testing.assert_array_equal(found.model.sequence.dense.values()[name], value)
    np.testing.assert_array_equal(
        found.model.sequence.tower.items.values, fresh.model.sequence.tower.items.values
    )
    assert all(np.isfinite(x.sequence_loss) for x in found.lessons[1:])


def test_losses_fall_on_a_stream_that_can_be_learned():
    rows = [(e.user_id, e.item_id, e.timestamp) for e in checkerboard(1500)]
    found = taught(small(sequence={"learning_rate": 0.01}), rows)
    for name in ("sequence_loss", "mixture_loss"):
        losses = [getattr(x, name) for x in found.lessons if np.isfinite(getattr(x, name))]
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1, name


# --- what is taught ------------------------------------------------------------------------------

KINDS = ("view", "purchase", "dislike", "skip", "impression", "search", "unheard of", "rating")


def mixed(n=600, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(6), rng.integers(30), 1e9 + 60.0 * k, KINDS[rng.integers(len(KINDS))])
        for k in range(n)
    ]


def weighted(examples):
    """(query, position) pairs that teach."""
    return np.argwhere(examples.weights > 0)


def test_events_without_weight_or_wish_are_no_targets():
    config = small(sequence={"replay": 0.0, "earlier_positions": 0})
    found = taught(config, mixed())
    made, _ = course(mixed(), config)
    types = config.event_types
    names = Preprocessor(config).type_names
    for batch, examples in zip(made, found.examples, strict=True):
        expected = [
            int(batch.items[b])
            for b in range(len(batch))
            if (kind := types.get(names[batch.types[b]]))
            and kind.weight > 0
            and kind.polarity > 0
            and batch.contexts.history_lengths[b] > 0
        ]
        assert examples.targets[:, 0].tolist() == expected
        assert (examples.weights[:, 0] > 0).all()
        assert 0 < len(expected) < len(batch)


def test_an_example_weighs_as_its_type():
    config = small(sequence={"replay": 0.0, "earlier_positions": 2})
    found = taught(config, mixed())
    for examples in found.examples:
        assert set(examples.weights[:, 0].tolist()) <= {1.0, 5.0}
        earlier = examples.weights[:, 1:]
        own = np.repeat(examples.weights[:, :1], 2, axis=1)
        np.testing.assert_allclose(earlier[earlier > 0], own[earlier > 0] / 4)
    assert {5.0} < {w for e in found.examples for w in e.weights[:, 0].tolist()}


def test_earlier_positions_predict_what_the_history_says_came_next():
    found = taught(small(sequence={"earlier_positions": 3}), mixed())
    taught_earlier = 0
    for examples in found.examples:
        for q, p in weighted(examples):
            column = examples.at[q, p]
            assert examples.items[q, column] != NO_ROW
            if p == 0:
                assert column == LENGTH - 1
            else:
                assert column < LENGTH - 1
                assert examples.targets[q, p] == examples.items[q, column + 1]
                taught_earlier += 1
        single = (examples.items >= 0).sum(axis=1) == 1
        assert not examples.weights[single, 1:].any(), "a history of one has no earlier position"
    assert taught_earlier > 100


def test_what_was_not_wanted_is_no_target_at_earlier_positions_either():
    config = small(sequence={"earlier_positions": 4})
    found = taught(config, mixed())
    types, names = config.event_types, Preprocessor(config).type_names
    kinds = set()
    for examples in found.examples:
        for q, p in weighted(examples):
            if p > 0:
                kinds.add(names[examples.types[q, examples.at[q, p] + 1]])
    assert kinds == {"view", "purchase", "rating"}
    assert all(types[kind].polarity > 0 for kind in kinds)
    in_histories = {names[code] for e in found.examples for code in np.unique(e.types)}
    assert {"dislike", "skip"} < in_histories, "they are seen, as what they are"


@pytest.mark.parametrize("seconds", [10.0, 0.0])
def test_what_was_cleaned_is_no_target_at_earlier_positions_either(seconds):
    config = small(
        preprocess={"history_length": LENGTH, "cleaning": {"duplicate_seconds": seconds}},
        sequence={"earlier_positions": 60},
    )
    rows = [("a", 0.0), *(("b", 60.0 + k) for k in range(9)), ("c", 120.0)]
    start = 1_700_000_000.0
    records = [
        Record(k, start + time, start + time, Event(f"e{k}", "view", "u", start + time, item))
        for k, (item, time) in enumerate(rows, 1)
    ]
    (batch,), items = batches(config, records)
    found = Recorded(config)
    found.grow(len(items))
    found.step(batch)
    earlier = {
        tuple(items[row] for row in examples.items[q, at : at + 2])
        for examples in found.examples
        for q, p in weighted(examples)
        if (at := examples.at[q, p]) < LENGTH - 1
    }
    assert earlier == ({("a", "b")} if seconds else {("a", "b"), ("b", "b")})


@pytest.mark.parametrize("type", ["unheard of", "impression", "search", "dislike"])
def test_a_batch_without_targets_teaches_no_gradient(type):
    found = taught()
    made, _ = course([(f"u{n % 20}", "i0", 2e9 + n, type) for n in range(50)])
    before = parts(found.state(), "sequence.", "mixture.")
    lesson = found.step(made[0])
    assert np.isnan(lesson.sequence_loss)
    assert np.isnan(lesson.mixture_loss)
    assert parts(found.state(), "sequence.", "mixture.") == before


def test_an_empty_history_is_no_example():
    found = Recorded(small())
    made, n_items = course([(f"u{n}", f"i{n % 5}", 1e9 + n) for n in range(50)])
    found.grow(n_items)
    assert np.isnan(found.step(made[0]).sequence_loss)
    assert not found.examples


# --- negatives -----------------------------------------------------------------------------------


def test_where_there_are_few_items_all_are_candidates_and_nothing_is_corrected():
    found = taught(small(sequence={"negatives": 1000}))
    _, n_items = course()
    for negatives, log_q in zip(found.negatives, found.log_qs, strict=True):
        assert negatives.tolist() == list(range(n_items))
        assert log_q is None


def test_the_correction_is_the_log_probability_of_being_a_candidate():
    wanted = 8
    found = taught(small(sequence={"negatives": wanted}))
    _, n_items = course()
    for negatives, examples, log_q in zip(
        found.negatives, found.examples, found.log_qs, strict=True
    ):
        assert len(negatives) == len(set(negatives.tolist())) <= wanted
        positives = int((examples.weights > 0).sum())
        rows = np.arange(n_items, dtype=np.int32)
        share = found.model.popularity.shares(rows).mean(axis=-1).astype(np.float64)
        absent = (1.0 - 1.0 / n_items) ** wanted * (1.0 - share) ** positives
        np.testing.assert_allclose(log_q(rows), np.log1p(-absent), rtol=1e-3, atol=1e-6)
    assert (log_q(rows) < 0).all()
    order = np.argsort(share)
    assert (np.diff(log_q(rows)[order]) >= -1e-6).all(), "popular items are likelier candidates"


# --- replay --------------------------------------------------------------------------------------


def test_only_the_newest_target_of_a_new_example_is_new():
    found = taught(small(sequence={"replay": 1.0, "earlier_positions": 3}))
    none = taught(small(sequence={"replay": 0.0, "earlier_positions": 3}))
    for both, new in zip(found.examples, none.examples, strict=True):
        first = np.arange(len(both.items)) < len(new.items)
        np.testing.assert_array_equal(both.again[:, 0], ~first)
        assert both.again[:, 1:].all()


def test_replayed_examples_come_behind_the_new_ones():
    none = taught(small(sequence={"replay": 0.0}))
    some = taught(small(sequence={"replay": 2.0}))
    for new, both in zip(none.examples, some.examples, strict=True):
        n = len(new.items)
        np.testing.assert_array_equal(both.items[:n], new.items)
        np.testing.assert_array_equal(both.targets[:n, 0], new.targets[:, 0])
        assert len(both.items) <= 3 * n
    assert len(some.examples[0].items) == len(none.examples[0].items), "nothing to replay yet"
    assert len(some.examples[-1].items) > 2 * len(none.examples[-1].items)


def test_an_example_is_replayed_at_most_as_often_as_the_cap():
    config = small(sequence={"replay": 3.0, "replay_cap": 2, "earlier_positions": 0})
    # Every item is viewed once, so that a target names its example.
    found = taught(config, [(n % 5, n, 1e9 + 60.0 * n) for n in range(400)])
    seen = Counter(
        target for examples in found.examples for target in examples.targets.ravel().tolist()
    )
    assert max(seen.values()) == 3, "once new, twice replayed"


# --- lists ---------------------------------------------------------------------------------------


def list_batch(items, n_features, longest=100):
    """A batch of views with lists whose features are their items' places."""
    made, _ = course([(0, f"i{n}", 1e9 + n) for n in range(len(items))], size=len(items))
    batch = replace(made[0], items=np.array(items, np.int32))
    rows = np.tile(np.arange(longest, dtype=np.int32), (len(items), 1))
    features = np.zeros((len(items), longest, n_features), np.float32)
    features[:, :, 0] = np.arange(longest)
    scores = -features[:, :, 0]
    return batch, Ranking(rows, scores, features, {})


def test_the_mixture_learns_the_lists_that_hold_their_answer():
    config = small(mixture={"replay": 0.0})
    found = Recorded(config)
    found.grow(200)
    batch, ranking = list_batch([0, 7, 150, 63], len(found.recommender.features))
    found.taught(batch, ranking, RATES)
    features, valid, targets, weights, rate, correction = found.lists[0]
    assert targets.tolist() == [0, 7, 63]
    assert features[[0, 1, 2], targets, 0].tolist() == [0.0, 7.0, 63.0]
    assert valid.all()
    assert weights.tolist() == [[1.0]] * 3
    assert rate == 1.0
    assert correction is None


def test_an_answer_further_down_takes_the_last_place():
    config = small(mixture={"replay": 0.0})
    found = Recorded(config)
    found.grow(200)
    batch, ranking = list_batch([90, 80], len(found.recommender.features))
    found.taught(batch, ranking, RATES)
    features, valid, targets, *_ = found.lists[0]
    last = features.shape[1] - 1
    assert targets.tolist() == [last, last]
    assert features[:, last, 0].tolist() == [90.0, 80.0]
    assert features[0, :last, 0].tolist() == list(range(last))
    assert valid.all()


def test_what_stands_past_the_end_of_a_list_is_not_valid():
    config = small(mixture={"replay": 0.0})
    found = Recorded(config)
    found.grow(200)
    batch, ranking = list_batch([3, 4], len(found.recommender.features), longest=20)
    ranking.rows[0, 12:] = NO_ROW
    found.taught(batch, ranking, RATES)
    _, valid, *_ = found.lists[0]
    assert valid.sum(axis=1).tolist() == [12, 20]
    assert valid[0, :12].all()


def test_a_list_of_an_unwanted_event_teaches_the_mixture_nothing():
    found = Recorded(small())
    found.grow(200)
    batch, ranking = list_batch([3, 4], len(found.recommender.features))
    batch = replace(batch, targets=np.zeros(2, np.bool_), polarities=-np.ones(2, np.int8))
    assert np.isnan(found.taught(batch, ranking, RATES).mixture_loss)
    assert not found.lists


def test_lists_are_learned_with_the_features_that_they_were_ranked_by():
    found = taught(small(mixture={"replay": 0.0}))
    made, _ = course()
    batch = made[-1]
    ranking = found.ranking(batch)
    kept = {
        tuple(row)
        for row in ranking.features.astype(np.float16)
        .reshape(-1, ranking.features.shape[2])
        .tolist()
    }
    found.taught(batch, ranking, RATES)
    features, valid, *_ = found.lists[-1]
    assert {tuple(row) for row in features[valid].astype(np.float16).tolist()} <= kept


def test_trainers_do_not_share_their_buffers():
    one = taught()
    fresh = Trainer(small(), one.model, len(one.recommender.features))
    assert int(fresh.state()["histories.added"]) == 0
    assert int(one.trainer.state()["histories.added"]) > 0


@pytest.mark.parametrize("negatives", [1_000, 8])
def test_a_row_that_stands_for_no_item_is_no_negative(negatives):
    config = small(sequence={"negatives": negatives})
    made, n_items = course(config=config)
    found = Recorded(config)
    found.model.grow(n_items + 30)
    known = np.arange(n_items + 30) < n_items
    before = found.model.sequence.tower.items.values[~known].copy()
    for batch in made:
        found.taught(batch, found.ranking(batch), RATES, known=known)
    assert all(known[rows].all() for rows in found.negatives)
    np.testing.assert_array_equal(found.model.sequence.tower.items.values[~known], before)


# --- what feedback says --------------------------------------------------------------------------


def labels(n: int, weight: float = -0.25) -> Labels:
    items = np.full((n, LENGTH), NO_ROW, np.int32)
    items[:, -2:] = [1, 2]
    return Labels(
        history_items=items,
        history_types=np.where(items >= 0, 1, 0).astype(np.uint8),
        history_gaps=np.full((n, LENGTH), 3, np.uint8),
        items=np.arange(n, dtype=np.int32),
        weights=np.full(n, weight, np.float32),
    )


def test_labels_ride_on_the_step_behind_everything_else():
    made, n_items = course()
    with_labels, without = Recorded(small()), Recorded(small())
    for found, given in ((with_labels, lambda: labels(3)), (without, None)):
        found.grow(n_items)
        for batch in made[:3]:
            last = given if batch is made[2] else None
            ranking = found.ranking(batch)
            found.taught(batch, ranking, RATES, last)
    got, plain = with_labels.examples[-1], without.examples[-1]
    for name in ("items", "types", "gaps", "at", "targets", "weights"):
        assert np.array_equal(getattr(got, name)[:-3], getattr(plain, name)), name
    own = labels(3)
    assert np.array_equal(got.items[-3:], own.history_items)
    assert np.array_equal(got.gaps[-3:], own.history_gaps)
    assert (got.at[-3:] == LENGTH - 1).all()
    assert got.targets[-3:, 0].tolist() == [0, 1, 2]
    assert got.weights[-3:].tolist() == [[-0.25, 0.0, 0.0]] * 3
    assert len(with_labels.trainer.state()["histories.uses"]) == len(
        without.trainer.state()["histories.uses"]
    ), "they aren't replayed"


def test_no_labels_change_nothing():
    made, n_items = course()
    one, other = Recorded(small()), Recorded(small())
    for found, given in ((one, None), (other, lambda: labels(0))):
        found.grow(n_items)
        for batch in made[:4]:
            found.taught(batch, found.ranking(batch), RATES, given)
    assert state_digest(one.model.state()) == state_digest(other.model.state())


def test_labels_are_taken_only_where_there_is_a_step_to_ride_on():
    found, taken = Recorded(small()), []
    rows = [("u", "a", 1.0), ("u", "b", 2.0), ("u", "c", 3.0, "dislike"), ("u", "d", 4.0, "odd")]
    made, items = batches(small(), stream(rows), range(4))
    found.grow(len(items))

    def take():
        taken.append(batch.end)
        return labels(1)

    for batch in made:
        if len(batch):
            found.taught(batch, found.ranking(batch), RATES, take)
    assert taken == [made[-1].end - 2]
