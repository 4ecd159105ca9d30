from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.config import Content as ContentSettings
from headwater.config import Sequence as Settings
from headwater.deploy import state_digest
from headwater.model import Content, SequenceExpert, gap_buckets
from tests.model.arrays import LENGTH, contexts, copied, examples

ITEMS = 30
CONSUMES = 2
"""Code of the one event type that uses its item up."""


def expert(items=ITEMS, seed=0, **settings):
    own = Settings(**{"dim": 8, "layers": 1, "heads": 2} | settings)
    made = SequenceExpert(
        own, LENGTH, np.array([False, False, True]), Content(ContentSettings()), seed
    )
    made.grow(items)
    return made


def every(items=ITEMS):
    return np.arange(items, dtype=np.int32)


def cycle(n, items=ITEMS, seed=0):
    """Histories that walk round the items in order, and the item that comes next."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(items, size=n), rng.integers(1, LENGTH + 3, n)
    histories = [[(s + k) % items for k in range(m)] for s, m in zip(starts, lengths, strict=True)]
    return examples(histories, [(history[-1] + 1) % items for history in histories])


# --- learning ------------------------------------------------------------------------------------


# A sum of behaviours doesn't know which way round the circle goes, so it ends at about log 4.
@pytest.mark.parametrize(("layers", "left"), [(0, 0.7), (2, 0.4)])
def test_steps_lower_the_loss_of_what_can_be_learned(layers, left):
    found = expert(layers=layers, learning_rate=0.01, row_learning_rate=0.1)
    losses = [found.step(cycle(60, seed=step), every(), None, 1.0).take() for step in range(60)]
    assert losses[0] == pytest.approx(np.log(ITEMS), abs=0.1), "nothing is known at first"
    assert np.mean(losses[-5:]) < left * losses[0]
    unknown = cycle(60, seed=1000)
    asked = contexts([row[row >= 0].tolist() for row in unknown.items])
    rows, _ = found.candidates(found.encode(asked), asked, np.zeros(ITEMS, np.bool_), 3)
    hits = (rows == unknown.targets).any(axis=1).mean()
    assert hits > 0.25, "against 0.1 by chance"


def test_shuffled_targets_teach_nothing_of_use():
    found = expert(learning_rate=0.01, row_learning_rate=0.1)
    rng = np.random.default_rng(0)
    losses = []
    for step in range(60):
        lesson = cycle(60, seed=step)
        lesson.targets = rng.permutation(lesson.targets)
        losses.append(found.step(lesson, every(), None, 1.0).take())
    assert np.mean(losses[-5:]) > 0.9 * losses[0]


def test_only_candidates_and_history_items_are_written():
    found = expert(items=5000)
    start = found.tower.items.values.copy()
    lesson = examples([[1, 2, 3], [4]], [10, 11])
    found.step(
        lesson, np.array([20, 3000], np.int32), lambda rows: np.zeros(len(rows), "f4"), 1.0
    ).take()
    touched = [1, 2, 3, 4, 10, 11, 20, 3000]
    changed = np.flatnonzero((found.tower.items.values != start).any(axis=1))
    assert changed.tolist() == touched
    assert found.tower.items.take_changes()[0].rows.tolist() == touched


def test_the_bias_of_an_item_that_is_used_up_gets_no_gradient():
    histories = [[1, 2, 3], [4, 1]]
    masked, shown = expert(), expert()
    start = masked.tower.items.values[:, -1].copy()
    masked.step(examples(histories, [10, 10], type=CONSUMES), every(), None, 1.0).take()
    shown.step(examples(histories, [10, 10], type=1), every(), None, 1.0).take()
    # Item 1 is used up in both histories, the others in one of them only.
    assert masked.tower.items.values[1, -1] == start[1]
    assert (np.delete(masked.tower.items.values[:, -1], 1) != np.delete(start, 1)).all()
    assert (shown.tower.items.values[:, -1] != start).all()


def test_a_target_that_was_used_up_before_is_a_target_still():
    found = expert()
    start = found.tower.items.values[1, -1]
    loss = found.step(examples([[1, 2]], [1], type=CONSUMES), every(), None, 1.0).take()
    assert np.isfinite(loss)
    assert loss < 10.0
    assert found.tower.items.values[1, -1] > start


def test_an_item_is_used_up_only_from_its_place_in_the_history_on():
    lesson = examples([[1, 2, 3]], [4], type=CONSUMES)
    lesson.at = np.full((1, 1), LENGTH - 3, np.int32)
    lesson.targets = np.full((1, 1), 2, np.int32)
    found = expert()
    start = found.tower.items.values[:, -1].copy()
    found.step(lesson, every(), None, 1.0).take()
    unchanged = np.flatnonzero(found.tower.items.values[:, -1] == start)
    assert unchanged.tolist() == [1], "item 3 came later, so it is an honest negative"


def test_what_has_no_weight_teaches_nothing():
    plain, padded = examples([[1, 2, 3]], [4]), examples([[1, 2, 3]], [4])
    padded.at = np.array([[LENGTH - 1, LENGTH - 2, 0]], np.int32)
    padded.targets = np.array([[4, 7, 0]], np.int32)
    padded.weights = np.array([[1.0, 0.0, 0.0]], np.float32)
    one, other = expert(), expert()
    assert one.step(plain, every(), None, 1.0).take() == pytest.approx(
        other.step(padded, every(), None, 1.0).take(), rel=1e-6
    )
    np.testing.assert_allclose(one.tower.items.values, other.tower.items.values, atol=1e-6)


def test_the_loss_is_the_weighted_mean_of_its_examples():
    lessons = [examples([[1, 2]], [3]), examples([[4]], [5])]
    alone = [expert().step(lesson, every(), None, 1.0).take() for lesson in lessons]
    both = examples([[1, 2], [4]], [3, 5])
    both.weights = np.array([[3.0], [1.0]], np.float32)
    together = expert().step(both, every(), None, 1.0).take()
    assert together == pytest.approx((3 * alone[0] + alone[1]) / 4, rel=1e-5)


def test_what_is_learned_again_moves_vectors_and_no_biases():
    first, again = expert(), expert()
    start = first.tower.items.values.copy()
    lesson = examples([[1, 2, 3], [4]], [5, 6])
    loss = first.step(lesson, every(), None, 1.0).take()
    lesson.again[:] = True
    assert again.step(lesson, every(), None, 1.0).take() == pytest.approx(loss)
    assert (first.tower.items.values[:, -1] != start[:, -1]).all()
    assert (again.tower.items.values[:, -1] == start[:, -1]).all()
    assert (again.tower.items.values[:, :-1] != start[:, :-1]).any(axis=1).all()


def test_the_bias_follows_what_is_new_of_a_step():
    """Its gradient is that of the new example, at its share of the weights."""
    both, alone = (np.zeros(ITEMS) for _ in range(2))
    lesson = examples([[1, 2, 3], [4]], [5, 6])
    lesson.again[1] = True
    for out, taught, share in ((both, lesson, 1.0), (alone, examples([[1, 2, 3]], [5]), 0.5)):
        found = expert(layers=0)
        start = found.tower.items.values[:, -1].copy()
        found.step(taught, every(), None, 1.0).take()
        scale = np.sqrt(found.tower.items.state()["accumulators"])
        out[:] = share * (start - found.tower.items.values[:, -1]) * scale
    np.testing.assert_allclose(both, alone, rtol=1e-3, atol=1e-8)


def test_the_rate_scales_the_step():
    moved = []
    for rate in (0.0, 1.0, 2.0):
        found = expert()
        start = found.tower.items.values.copy()
        found.step(cycle(20), every(), None, rate).take()
        moved.append(found.tower.items.values - start)
    assert not moved[0].any()
    np.testing.assert_allclose(moved[2], 2 * moved[1], atol=1e-5)


# --- sampled softmax -----------------------------------------------------------------------------


def gradients(lesson, negatives, log_q):
    """(N, D + 1) gradient of the rows at their first values, read off one step of Adagrad."""
    found = expert(items=200, layers=0)
    start = found.tower.items.values.copy()
    found.step(lesson, negatives, log_q, 1.0).take()
    scale = np.sqrt(found.tower.items.state()["accumulators"])[:, None]
    return (start - found.tower.items.values) / found.settings.row_learning_rate * scale


def test_the_correction_brings_sampled_gradients_to_those_of_the_full_softmax():
    rng = np.random.default_rng(0)
    share = 1.0 / np.arange(1, 201)
    share /= share.sum()
    n_negatives, positives, draws = 40, 30, 80
    drawn = (1.0 - 1.0 / 200) ** n_negatives

    def log_q(rows):
        return np.log1p(-drawn * (1.0 - share[rows]) ** positives).astype(np.float32)

    sums = {name: np.zeros((200, 9)) for name in ("full", "corrected", "bare")}
    for _ in range(draws):
        histories = rng.integers(200, size=(positives, 3)).tolist()
        lesson = examples(histories, rng.choice(200, positives, p=share).tolist())
        negatives = np.unique(rng.integers(0, 200, n_negatives)).astype(np.int32)
        sums["full"] += gradients(lesson, every(200), None)
        sums["corrected"] += gradients(lesson, negatives, log_q)
        sums["bare"] += gradients(lesson, negatives, lambda rows: np.zeros(len(rows), "f4"))
    bias = {name: total[:, -1] / draws for name, total in sums.items()}
    shift = {name: (bias[name] - bias["full"])[:20].mean() for name in ("corrected", "bare")}
    assert np.corrcoef(bias["corrected"], bias["full"])[0, 1] > 0.99
    assert shift["bare"] > 0, "without it popular items are held down"
    assert abs(shift["corrected"]) < 0.2 * shift["bare"]


# --- what was ignored ----------------------------------------------------------------------------


def with_ignored(weight=0.1, item=7):
    """What came next after two histories, and an item that was ignored behind a third."""
    lesson = examples([[1, 2], [4], [5, 6]], [3, 5, item])
    lesson.weights = np.array([[1.0], [3.0], [-weight]], np.float32)
    return lesson


def test_the_gradient_of_an_ignored_item_is_that_of_the_formula():
    plain = examples([[1, 2], [4]], [3, 5])
    plain.weights = np.array([[1.0], [3.0]], np.float32)
    found = expert(items=200, layers=0)
    scores = found.encode(contexts([[5, 6]])) @ found.tower.items.values.T
    exponents = np.exp(scores[0])
    ratio = exponents[7] / np.delete(exponents, 7).sum() * 200
    added = gradients(with_ignored(), every(200), None) - gradients(plain, every(200), None)
    push = 0.1 / 4.0 * ratio / (1.0 + ratio)
    assert added[7, -1] == pytest.approx(push, rel=1e-3)
    shares = np.delete(exponents, 7) / np.delete(exponents, 7).sum()
    np.testing.assert_allclose(np.delete(added[:, -1], 7), -push * shares, rtol=1e-2)


def test_an_ignored_item_need_not_be_a_candidate_and_is_none_for_others():
    found, without = expert(items=5000), expert(items=5000)
    negatives, start = np.array([20, 3000], np.int32), found.tower.items.values.copy()

    def log_q(rows):
        assert 4000 not in rows
        return np.zeros(len(rows), "f4")

    found.step(with_ignored(item=4000), negatives, log_q, 1.0).take()
    without.step(with_ignored(item=4000, weight=0.0), negatives, log_q, 1.0).take()
    changed = np.flatnonzero((found.tower.items.values != start).any(axis=1))
    assert 4000 in changed
    assert found.tower.items.values[4000, -1] < start[4000, -1]
    assert (without.tower.items.values[4000] == start[4000]).all()


def test_the_loss_that_is_told_is_that_of_what_came_next():
    whole = expert().step(with_ignored(), every(), None, 1.0).take()
    assert whole == expert().step(with_ignored(weight=0.0), every(), None, 1.0).take()


def test_what_scores_below_the_average_is_left_alone():
    pushes = []
    for bias in (5.0, 0.0, -5.0):
        found, plain = (expert(items=200, layers=0) for _ in range(2))
        for one in (found, plain):
            one.tower.items.values[7, -1] = bias
        found.step(with_ignored(), every(200), None, 1.0).take()
        plain.step(with_ignored(weight=0.0), every(200), None, 1.0).take()
        gradients = [
            (bias - one.tower.items.values[7, -1])
            * np.sqrt(one.tower.items.state()["accumulators"][7])
            for one in (found, plain)
        ]
        pushes.append((gradients[0] - gradients[1]) / found.settings.row_learning_rate)
    assert pushes[0] > pushes[1] > 10 * pushes[2] > 0
    assert pushes[0] < 0.1 / 4.0, "bounded by its weight"


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("between", [0, 20])
@pytest.mark.parametrize("bias", [0.0, 2.0])
def test_taking_it_back_makes_up_for_it(layers, between, bias):
    """Behind the same history, the score ends at least as high as if it had never been said."""
    scores = []
    for weight in (0.0, 0.1):
        found = expert(layers=layers)
        for step in range(30):
            found.step(cycle(20, seed=step), every(), None, 1.0).take()
        found.tower.items.values[7, -1] += bias
        for step, sign in [(0, -1.0), *((k, 0.0) for k in range(1, between + 1)), (99, 2.0)]:
            lesson = cycle(20, seed=100 + step)
            lesson.items[0], lesson.targets[0] = cycle(1, seed=5).items[0], 7
            lesson.weights[0] = sign * weight
            found.step(lesson, every(), None, 1.0).take()
        history = [item for item in cycle(1, seed=5).items[0].tolist() if item >= 0]
        belief = found.encode(contexts([history])) @ found.tower.items.values.T
        scores.append(float(belief[0, 7] - np.log(np.exp(belief[0]).sum())))
    assert scores[1] >= scores[0]


# --- user vectors --------------------------------------------------------------------------------


def trained(layers=2, steps=5):
    found = expert(layers=layers, learning_rate=0.05)
    for step in range(steps):
        found.step(cycle(40, seed=step), every(), None, 1.0).take()
    return found


@pytest.mark.parametrize("layers", [0, 2])
def test_a_user_vector_depends_on_no_other_history_of_the_call(layers):
    found = trained(layers)
    rng = np.random.default_rng(1)
    histories = [rng.integers(ITEMS, size=n).tolist() for n in [3, 0, 10, 1, 7, 6, 25, 5, 2, 10]]
    together = found.encode(contexts(histories))
    alone = np.concatenate([found.encode(contexts([history])) for history in histories])
    np.testing.assert_array_equal(together, alone)
    assert np.abs(np.diff(together[:, :-1], axis=0)).max(axis=1).min() > 1e-3, "they differ"


@pytest.mark.parametrize("layers", [0, 2])
def test_a_user_vector_does_not_depend_on_the_padding_before_it(layers):
    found = trained(layers)
    asked = contexts([[], [4], [1, 2, 3], list(range(8)), list(range(10))])
    gaps = gap_buckets(asked.history_times, asked.history_items, asked.times)
    valid = torch.from_numpy(asked.history_items >= 0)
    with torch.inference_mode():
        whole = found.encoder(
            torch.from_numpy(found.tower.items.values[asked.history_items, :-1])
            * valid[:, :, None],
            valid,
            torch.from_numpy(asked.history_types.astype(np.int64)),
            torch.from_numpy(gaps.astype(np.int64)),
            torch.full((5, 1), LENGTH - 1),
        )
    np.testing.assert_allclose(found.encode(asked)[:, :-1], whole[:, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("layers", [0, 2])
def test_an_earlier_position_does_not_see_what_came_later(layers):
    found = trained(layers)
    torch.manual_seed(0)
    items, valid = torch.randn(1, LENGTH, 8), torch.ones(1, LENGTH, dtype=torch.bool)
    kinds, gaps = torch.ones(1, LENGTH, dtype=torch.long), torch.ones(1, LENGTH, dtype=torch.long)
    at = torch.arange(LENGTH)[None]
    with torch.inference_mode():
        before = found.encoder(items, valid, kinds, gaps, at)
        for column in range(1, LENGTH):
            other = [tensor.clone() for tensor in (items, kinds, gaps)]
            other[0][0, column:] += 1.0
            other[1][0, column:] = 2
            other[2][0, column:] = 9
            after = found.encoder(other[0], valid, other[1], other[2], at)
            assert torch.equal(after[0, :column], before[0, :column])
            assert (after[0, column:] - before[0, column:]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("layers", [0, 2])
def test_an_empty_history_has_a_finite_score_of_every_item(layers):
    found = trained(layers)
    users = found.encode(contexts([[]]))
    assert users.tolist() == [[0.0] * 8 + [1.0]]
    np.testing.assert_array_equal(
        found.scores(users, every()[None])[0], found.tower.items.values[:, -1]
    )


def test_the_deep_path_knows_order_type_and_time():
    found = trained()
    base = contexts([[1, 2, 3]])
    vectors = [found.encode(base), found.encode(contexts([[3, 1, 2]]))]
    vectors.append(found.encode(contexts([[1, 2, 3]], types=[[1, 2, 1]])))
    base.history_times[0, -2] -= 599.0
    vectors.append(found.encode(base))
    for one, other in zip(vectors[:1] * 3, vectors[1:], strict=True):
        assert np.abs(one - other).max() > 1e-5


def test_a_gap_lasts_until_the_next_event_and_the_last_one_until_now():
    asked = contexts([[1, 2, 3]], now=1e9)
    asked.history_times[0, -3:] = 1e9 - np.array([3600.0 * 24, 100.0, 40.0])
    found = gap_buckets(asked.history_times, asked.history_items, asked.times)
    seconds = np.array([86_300.0, 60.0, 40.0])
    expected = np.floor(np.log(1.0 + seconds) / np.log(3.0) + 0.5)
    assert found[0].tolist() == [0] * 7 + expected.tolist()
    backwards = gap_buckets(asked.history_times, asked.history_items, asked.times - 1e6)
    assert backwards[0, -1] == 0, "a clock that ran ahead is no error"


@pytest.mark.parametrize("bucket", range(1, 15))
def test_a_bucket_starts_where_its_docstring_says(bucket):
    start = 3.0 ** (bucket - 0.5) - 1.0
    for seconds, expected in ((start * 0.999, bucket - 1), (start * 1.001, bucket)):
        times, now = np.array([[1e6]]), np.array([1e6 + seconds])
        assert gap_buckets(times, np.array([[0]], np.int32), now).tolist() == [[expected]]


# --- lists ---------------------------------------------------------------------------------------


def test_candidates_are_the_best_of_an_exact_scan():
    found = trained()
    asked = contexts([[1, 2], [], [9, 9, 8]], excluded=[[3, 4], [], [10, 10, 12]])
    withheld = np.zeros(ITEMS, np.bool_)
    withheld[[0, 11]] = True
    users = found.encode(asked)
    scores = found.scores(users, np.tile(every(), (3, 1)))
    rows, best = found.candidates(users, asked, withheld, 6)
    for b, barred in enumerate([{3, 4}, set(), {10, 12}]):
        allowed = [i for i in range(ITEMS) if i not in barred | {0, 11}]
        expected = sorted(allowed, key=lambda i: -scores[b, i])[:6]
        assert rows[b].tolist() == expected
        np.testing.assert_allclose(best[b], scores[b, expected], atol=1e-6)


def test_a_list_longer_than_what_may_be_shown_ends_in_nothing():
    found = expert(items=4)
    withheld = np.array([True, False, False, False])
    asked = contexts([[1], []], excluded=[[2], []])
    rows, scores = found.candidates(found.encode(asked), asked, withheld, 9)
    assert rows.shape == scores.shape == (2, 9)
    assert set(rows[0, :2]) == {1, 3}
    assert set(rows[1, :3]) == {1, 2, 3}
    assert rows[0, 2:].tolist() == [-1] * 7
    assert (scores[rows == -1] == -np.inf).all()


def test_a_source_is_the_behaviour_whose_weighted_vector_is_nearest():
    found = trained()
    asked = contexts([[5], [1, 2, 3, 4]])
    weights = found.history_weights(asked)[1, -4:]
    vectors = found.tower.items.values[[1, 2, 3, 4], :-1]
    nearest = np.argmax(found.tower.items.values[:, :-1] @ (weights[:, None] * vectors).T, axis=1)
    sources = found.sources(asked, np.tile(every(), (2, 1)))
    assert sources.tolist() == [[5] * ITEMS, (1 + nearest).tolist()]
    assert len(set(nearest)) > 1
    assert found.sources(contexts([[]]), every()[None, :2]).tolist() == [[-1, -1]]


def test_asking_changes_nothing():
    found = trained()
    before = state_digest(found.state())
    asked = contexts([[1, 2], []])
    users = found.encode(asked)
    found.candidates(users, asked, np.zeros(ITEMS, np.bool_), 5)
    found.scores(users, np.zeros((2, 3), np.int32))
    found.sources(asked, np.zeros((2, 3), np.int32))
    assert state_digest(found.state()) == before


# --- the state -----------------------------------------------------------------------------------


def test_equal_seeds_make_equal_experts_whatever_else_draws_random_numbers():
    one = expert(seed=3)
    torch.manual_seed(99)
    other = expert(seed=3)
    drawn = torch.rand(1)
    torch.manual_seed(99)
    assert torch.rand(1) == drawn, "making an expert doesn't disturb others' random numbers"
    assert state_digest(one.state()) == state_digest(other.state())
    assert state_digest(one.state()) != state_digest(expert(seed=4).state())


def test_a_loaded_state_goes_on_bit_for_bit():
    one, other = trained(), expert(layers=2, learning_rate=0.05, seed=9)
    other.load(copied(one.state()))
    assert state_digest(other.state()) == state_digest(one.state())
    for step in range(3):
        losses = [e.step(cycle(20, seed=step), every(), None, 1.5).take() for e in (one, other)]
        assert losses[0] == losses[1]
    assert state_digest(other.state()) == state_digest(one.state())


def test_a_state_without_the_optimizer_goes_on_otherwise():
    one, other = trained(), expert(layers=2, learning_rate=0.05)
    state = {k: v for k, v in copied(one.state()).items() if not k.startswith("dense.exp_avg")}
    other.load(state | {k: v * 0 for k, v in one.state().items() if k.startswith("dense.exp_avg")})
    for found in (one, other):
        found.step(cycle(20), every(), None, 1.0).take()
    assert state_digest(other.state()) != state_digest(one.state())
