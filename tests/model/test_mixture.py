from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from headwater.config import Mixture as Settings
from headwater.deploy import state_digest
from headwater.model import EXPERTS, FirstLists, Mixture
from headwater.recommend import Features
from tests.model.arrays import copied, small

A, B, SWITCH, FIRST = 0, 1, 2, 3
"""Feature columns: what two experts say of a candidate, and two of the request."""

SILENCE = np.array([-1.0, -2.0, 0.0, 0.0], np.float32)


def mixture(seed=0, learning_rate=0.01, linear=(1.0, 1.0, 0.0, 0.0), members=1):
    return Mixture(
        Settings(hidden=16, learning_rate=learning_rate, members=members),
        np.array(linear, np.float32),
        FirstLists(flag=FIRST, popularity=B),
        {"a": np.array([A], np.int32), "b": np.array([B], np.int32)},
        SILENCE,
        seed,
    )


def lists(m, seed, right):
    """M lists of 10 candidates in which one expert rates the answer highest, the other anything.

    Args:
        right: (M,) the column of the expert that is right in each list.
    """
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(m, 10, 4)).astype(np.float32)
    features[:, :, FIRST] = 0.0
    targets = rng.integers(0, 10, m)
    features[np.arange(m), targets, right] = 3.0
    features[:, :, SWITCH] = np.where(right == A, 1.0, -1.0)[:, None]
    weights = np.ones((m, 1), np.float32)
    return features, np.ones((m, 10), np.bool_), targets.astype(np.int32), weights


def hit_rate(found, lesson):
    features, _, targets, _ = lesson
    return float((found.scores(features).argmax(axis=1) == targets).mean())


def always(column, m=50):
    return np.full(m, column)


def either(seed, m=50):
    return np.random.default_rng(seed).choice([A, B], m)


# --- learning ------------------------------------------------------------------------------------


def test_an_untrained_mixture_is_the_linear_part():
    features = np.random.default_rng(0).normal(size=(4, 10, 4)).astype(np.float32)
    features[:, :, FIRST] = 0.0
    found = mixture(linear=(1.0, 0.5, -2.0, 0.0)).scores(features)
    np.testing.assert_allclose(found, features @ np.array([1.0, 0.5, -2.0, 0.0]), atol=1e-6)


def test_untrained_what_every_expert_says_more_of_stands_higher():
    config = small()
    layout = Features(config)
    found = layout.mixture(config)
    features = np.random.default_rng(0).normal(size=(1, 2, len(layout))).astype(np.float32)
    features[:, 1] = features[:, 0]
    said = np.concatenate([found.groups[expert] for expert in EXPERTS])
    features[:, 1, said] += 0.5
    assert found.scores(features)[0, 1] > found.scores(features)[0, 0]


@pytest.mark.parametrize("better", [A, B])
def test_it_learns_to_trust_the_better_expert(better):
    found = mixture()
    test = lists(500, 1000, always(better, 500))
    before = hit_rate(found, test)
    losses = [found.step(*lists(50, step, always(better)), 1.0).take() for step in range(150)]
    assert np.mean(losses[-10:]) < 0.6 * losses[0]
    assert hit_rate(found, test) > max(0.85, before + 0.1)
    features, _, targets, _ = test
    answers = features[np.arange(500), targets]
    shares = found.contributions(answers)
    trusted, other = ("a", "b") if better == A else ("b", "a")
    assert shares[trusted].mean() > 2 * abs(shares[other].mean())


def test_whom_it_trusts_depends_on_the_request():
    found = mixture()
    test = lists(500, 1000, either(0, 500))
    for step in range(300):
        found.step(*lists(50, step, either(step)), 1.0).take()
    assert hit_rate(found, test) > 0.8, "no fixed weights reach that"
    fixed = [
        ((test[0] @ np.array([w, 1 - w, 0.0, 0.0])).argmax(axis=1) == test[2]).mean()
        for w in np.linspace(0, 1, 21)
    ]
    assert hit_rate(found, test) > max(fixed) + 0.1


def test_answers_at_random_teach_nothing():
    found = mixture()
    rng = np.random.default_rng(0)
    losses = []
    for step in range(150):
        features, valid, _, weights = lists(50, step, always(A))
        losses.append(found.step(features, valid, rng.integers(0, 10, 50), weights, 1.0).take())
    assert np.mean(losses[-10:]) > 0.95 * np.log(10)


def test_what_stands_past_the_end_of_a_list_does_not_matter():
    one, other = mixture(), mixture()
    features, valid, targets, weights = lists(50, 0, always(A))
    valid[:, 6:] = False
    targets = targets % 6
    losses = [one.step(features, valid, targets, weights, 1.0).take()]
    features[:, 6:] = 1000.0
    losses.append(other.step(features, valid, targets, weights, 1.0).take())
    assert losses[0] == losses[1]
    assert state_digest(one.state()) == state_digest(other.state())


def test_a_list_without_weight_teaches_nothing():
    one, other = mixture(), mixture()
    features, valid, targets, weights = lists(50, 0, always(A))
    weights[30:] = 0.0
    loss = one.step(features, valid, targets, weights, 1.0).take()
    first = [part[:30] for part in (features, valid, targets, weights)]
    assert loss == pytest.approx(other.step(*first, 1.0).take(), rel=1e-5)
    said, expected = (e.scores(features) - e.scores(features)[:, :1] for e in (one, other))
    np.testing.assert_allclose(said, expected, atol=1e-4)


def test_a_rate_of_nothing_changes_nothing():
    found = mixture()
    before = found.dense.values()
    found.step(*lists(50, 0, always(A)), 0.0).take()
    for name, value in found.dense.values().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_wild_list_moves_the_weights_no_further_than_a_step():
    found = mixture(learning_rate=0.01)
    before = found.dense.values()
    features, valid, targets, weights = lists(50, 0, always(A))
    found.step(features * 1e6, valid, targets, weights, 1.0).take()
    moved = [np.abs(value - before[name]).max() for name, value in found.dense.values().items()]
    assert max(moved) < 0.011


def test_what_sampling_added_is_not_learned():
    """Answers are as likely as one expert says, and half of its log odds are by sampling."""
    one, other = mixture(), mixture()
    for step in range(300):
        features, valid, _, weights = lists(50, step, always(A))
        said = np.random.default_rng(step).normal(size=(50, 10)).astype(np.float32)
        features[:, :, A] = said
        odds = np.exp(said)
        drawn = np.random.default_rng(1000 + step).random((50, 1))
        targets = ((odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1) < drawn).sum(axis=1)
        lesson = (features, valid, np.minimum(targets, 9), weights)
        one.step(*lesson, 1.0, np.zeros((50, 10), np.float32)).take()
        other.step(*lesson, 1.0, -0.5 * said).take()
    slope = [
        np.polyfit(said.ravel(), found.scores(features).ravel(), 1)[0] for found in (one, other)
    ]
    assert slope == pytest.approx([1.0, 0.5], abs=0.15)


# --- first lists -------------------------------------------------------------------------------


def first_lists(seed, right, m=50):
    """(features, answers, valid) of users without a history."""
    features, valid, targets, _ = lists(m, seed, always(right, m))
    features[:, :, FIRST] = 1.0
    return features, np.arange(10) == targets[:, None], valid


def test_a_first_list_is_by_popularity_until_the_networks_foretell_better():
    found = mixture(linear=(1.0, 0.0, 0.0, 0.0))
    features, answers, valid = first_lists(0, A)
    np.testing.assert_array_equal(found.scores(features), features[:, :, B])
    found.note_first(found.judge_first(features, answers, valid))
    np.testing.assert_allclose(found.scores(features), features[:, :, A], atol=1e-6)
    for seed in range(10):
        found.note_first(found.judge_first(*first_lists(seed, B)))
    np.testing.assert_array_equal(found.scores(features), features[:, :, B])
    known = features.copy()
    known[:, :, FIRST] = 0.0
    np.testing.assert_allclose(found.scores(known), features[:, :, A], atol=1e-6)


def test_first_lists_are_judged_as_lists_are():
    found = mixture(linear=(1.0, 0.0, 0.0, 0.0))
    features = np.zeros((4, 12, 4), np.float32)
    features[:, :, A] = -np.arange(12)
    answers, valid = np.zeros((4, 12), np.bool_), np.ones((4, 12), np.bool_)
    answers[[0, 1, 2], [0, 2, 10]] = True
    valid[1, 1] = False
    gains = found.judge_first(features, answers, valid)
    # By the networks: first, second of those that are there, eleventh, not in it.
    assert gains[:, 1] == pytest.approx([1.0, 1 / np.log2(3), 0.0, 0.0])
    # By popularity all are alike, and share the mean of the places.
    assert gains[:, 0] == pytest.approx([1 / np.log2(7.5), 1 / np.log2(7), 1 / np.log2(7.5), 0.0])


def test_what_was_noted_of_first_lists_is_kept_and_travels():
    found, loaded, told = mixture(), mixture(), mixture()
    found.note_first(found.judge_first(*first_lists(0, A)))
    loaded.load(copied(found.state()))
    told.dense.put(found.dense.values())
    features = first_lists(1, A)[0]
    for other in (loaded, told):
        np.testing.assert_array_equal(other.scores(features), found.scores(features))
    assert not np.array_equal(mixture().scores(features), found.scores(features))


# --- members -------------------------------------------------------------------------------------


def drawn(step, members=3, m=50):
    """Lists of which each member gets another half."""
    features, valid, targets, _ = lists(m, step, either(step, m))
    weights = np.random.default_rng(step).integers(0, 2, (m, members)).astype(np.float32)
    return features, valid, targets, weights


def ensemble():
    found = mixture(members=3)
    for step in range(40):
        found.step(*drawn(step), 1.0).take()
    return found


def test_a_score_is_the_mean_of_the_members_scores():
    found, features = ensemble(), candidates()
    own = [member(torch.from_numpy(features)).detach().numpy() for member in found.members]
    np.testing.assert_allclose(found.scores(features), np.mean(own, axis=0), atol=1e-5)
    assert np.abs(own[0] - own[1]).max() > 0.01


def test_what_an_item_scores_depends_on_nothing_beside_it():
    found, features = ensemble(), np.concatenate([candidates(n) for n in (1, 70, 129)])
    scores, shares = found.scores(features), found.contributions(features)
    for n in range(len(features)):
        alone = features[n : n + 1]
        assert found.scores(alone)[0] == scores[n]
        assert {name: share[0] for name, share in found.contributions(alone).items()} == {
            name: share[n] for name, share in shares.items()
        }


def test_only_what_is_wanted_is_scored():
    found, features = ensemble(), candidates(300).reshape(2, 150, 4)
    wanted = np.random.default_rng(4).random((2, 150)) < 0.4
    np.testing.assert_array_equal(
        found.scores(features, wanted), np.where(wanted, found.scores(features), 0.0)
    )


def test_the_contributions_of_several_members_add_up_too():
    found, features = ensemble(), candidates()
    total = sum(found.contributions(features).values())
    expected = found.scores(features) - found.scores(said_by(features, ""))
    np.testing.assert_allclose(total, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_a_member_learns_its_own_draw_only():
    one, other = mixture(members=2), mixture(members=2)
    features, valid, targets, weights = drawn(0, members=2)
    one.step(features, valid, targets, weights, 1.0).take()
    weights[:, 1] = 0.0
    other.step(features, valid, targets, weights, 1.0).take()
    before = mixture(members=2).dense.values()
    for name, value in other.dense.values().items():
        if name.startswith("mixture.1."):
            np.testing.assert_array_equal(value, before[name])
    moved = [name for name, v in one.dense.values().items() if (v != before[name]).any()]
    assert {name.split(".")[1] for name in moved} == {"0", "1"}


def test_several_members_that_are_loaded_go_on_bit_for_bit():
    one, other = ensemble(), mixture(seed=5, members=3)
    other.load(copied(one.state()))
    for step in range(3):
        assert one.step(*drawn(step), 1.5).take() == other.step(*drawn(step), 1.5).take()
    assert state_digest(one.state()) == state_digest(other.state())


# --- contributions -------------------------------------------------------------------------------


def trained():
    found = mixture()
    for step in range(40):
        found.step(*lists(50, step, either(step)), 1.0).take()
    return found


def said_by(features, experts):
    """Features in which all but the given experts are silent."""
    out = features.copy()
    for name, column in (("a", A), ("b", B)):
        if name not in experts:
            out[:, column] = SILENCE[column]
    return out


def candidates(n=20):
    features = np.random.default_rng(3).normal(size=(n, 4)).astype(np.float32)
    features[:, FIRST] = 0.0
    return features


def test_contributions_add_up_to_the_score_less_that_of_silence():
    found, features = trained(), candidates()
    total = sum(found.contributions(features).values())
    expected = found.scores(features) - found.scores(said_by(features, ""))
    np.testing.assert_allclose(total, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_contributions_are_the_mean_gain_over_all_orders_of_joining():
    found, features = trained(), candidates()
    expected = {"a": np.zeros(20), "b": np.zeros(20)}
    for order in permutations("ab"):
        for k, name in enumerate(order):
            gain = found.scores(said_by(features, order[: k + 1]))
            expected[name] += (gain - found.scores(said_by(features, order[:k]))) / 2
    for name, shares in found.contributions(features).items():
        np.testing.assert_allclose(shares, expected[name], atol=1e-5)


def test_an_expert_that_says_nothing_contributes_nothing():
    found = trained()
    shares = found.contributions(said_by(candidates(), "a"))
    assert shares["b"].tolist() == [0.0] * 20
    assert np.abs(shares["a"]).max() > 0.1


def test_contributions_to_a_linear_score_have_a_closed_form():
    linear = np.array([0.7, -1.3, 5.0, 0.0])
    found, features = mixture(linear=linear), candidates()
    shares = found.contributions(features)
    for name, column in (("a", A), ("b", B)):
        expected = linear[column] * (features[:, column] - SILENCE[column])
        np.testing.assert_allclose(shares[name], expected, atol=1e-5)


def test_contributions_of_the_real_layout_add_up():
    config = small()
    layout = Features(config)
    found = layout.mixture(config)
    rng = np.random.default_rng(0)
    for _ in range(20):
        features = rng.normal(size=(20, 10, len(layout))).astype(np.float32)
        _, valid, targets, weights = lists(20, 0, always(A, 20))
        found.step(features, valid, targets, weights, 5.0).take()
    features = rng.normal(size=(7, len(layout))).astype(np.float32)
    shares = found.contributions(features)
    assert list(shares) == list(EXPERTS)
    silent = features.copy()
    for columns in found.groups.values():
        silent[:, columns] = found.silence[columns]
    expected = found.scores(features) - found.scores(silent)
    np.testing.assert_allclose(sum(shares.values()), expected, atol=1e-4)


def test_no_candidates_have_no_contributions():
    shares = mixture().contributions(np.zeros((0, 4), np.float32))
    assert {name: share.shape for name, share in shares.items()} == {"a": (0,), "b": (0,)}


# --- the state -----------------------------------------------------------------------------------


def test_a_loaded_state_goes_on_bit_for_bit():
    one, other = trained(), mixture(seed=5)
    other.load(copied(one.state()))
    for step in range(3):
        lesson = lists(50, step, either(step))
        assert one.step(*lesson, 1.5).take() == other.step(*lesson, 1.5).take()
    assert state_digest(one.state()) == state_digest(other.state())


def test_a_follower_that_puts_the_weights_gives_the_same_scores():
    one, other = trained(), mixture(seed=5)
    assert (one.scores(candidates()) != other.scores(candidates())).any()
    other.dense.put({**one.dense.values(), "sequence.recency": np.zeros(3, np.float32)})
    assert one.scores(candidates()).tolist() == other.scores(candidates()).tolist()
