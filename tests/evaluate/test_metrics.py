from __future__ import annotations

from math import log2, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.evaluate import (
    HISTORY_BUCKETS,
    ITEM_AGE_BUCKETS,
    RANK_METRICS,
    SEGMENTS,
    hits,
    ndcg_gains,
    reciprocal_ranks,
)
from headwater.evaluate._metrics import (
    RANK_BINS,
    from_histogram,
    history_buckets,
    item_age_buckets,
    rank_bins,
    rank_histograms,
)
from headwater.intervals import normal, wilson
from tests.evaluate.streams import in_bucket

RANKS = st.lists(st.integers(-1, 120), min_size=1, max_size=60)


def measured(ranks):
    return from_histogram(np.bincount(rank_bins(np.array(ranks)), minlength=RANK_BINS))


def test_every_rank_by_hand():
    ranks = np.array([0, 1, 9, 10, 19, 20, 99, -1])
    assert hits(ranks, 10).tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert hits(ranks, 20).tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert ndcg_gains(ranks, 10).tolist() == pytest.approx(
        [1, 1 / log2(3), 1 / log2(11), 0, 0, 0, 0, 0]
    )
    assert reciprocal_ranks(ranks, 20).tolist() == pytest.approx(
        [1, 1 / 2, 1 / 10, 1 / 11, 1 / 20, 0, 0, 0]
    )


def test_figures_of_four_predictions_by_hand():
    found = {name: metric.value for name, metric in measured([0, 2, 14, -1]).items()}
    assert found == pytest.approx(
        {
            "hit_rate@10": 0.5,
            "ndcg@10": (1 + 0.5) / 4,
            "mrr@10": (1 + 1 / 3) / 4,
            "precision@10": 0.05,
            "f1@10": 2 * 0.05 * 0.5 / 0.55,
            "accuracy@1": 0.25,
            "recall@20": 0.75,
            "mrr@20": (1 + 1 / 3 + 1 / 15) / 4,
        }
    )


@given(RANKS)
def test_counts_of_ranks_give_the_means_over_predictions(ranks):
    found = measured(ranks)
    assert found.keys() == RANK_METRICS.keys()
    for name, value in RANK_METRICS.items():
        values = value(np.array(ranks))
        assert found[name].value == pytest.approx(values.mean())
        assert found[name].n == len(ranks)
        assert found[name].low <= found[name].value <= found[name].high
        assert found[name].low >= 0
        assert found[name].high <= 1


@given(RANKS)
def test_the_normal_interval_is_that_of_the_mean(ranks):
    values = ndcg_gains(np.array(ranks), 10)
    metric = measured(ranks)["ndcg@10"]
    spread = 1.959964 * values.std(ddof=1) / sqrt(len(values)) if len(values) > 1 else 0.0
    assert metric.low == pytest.approx(max(0.0, values.mean() - spread), abs=1e-6)
    assert metric.high == pytest.approx(min(1.0, values.mean() + spread), abs=1e-6)


# Agresti and Coull's formula (The American Statistician 1998, eq. 2), worked out to four places.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 29, 0.0061, 0.1718),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_wilson_has_its_published_values(successes, n, low, high):
    metric = wilson(successes, n)
    assert (metric.low, metric.high) == pytest.approx((low, high), abs=5e-5)
    assert metric.value == successes / n


def test_a_scaled_proportion_has_a_scaled_interval():
    found = measured([0] * 30 + [-1] * 70)
    rate, precision = found["hit_rate@10"], found["precision@10"]
    for end in ("value", "low", "high"):
        assert getattr(precision, end) == pytest.approx(getattr(rate, end) / 10)
        assert getattr(found["f1@10"], end) == pytest.approx(getattr(rate, end) * 2 / 11)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    chances = np.full(RANK_BINS, 0.02)
    chances[-1] = 1 - chances[:-1].sum()
    truth = {
        name: float(chances @ value(np.append(np.arange(20), -1)))
        for name, value in RANK_METRICS.items()
    }
    trials = 1_000
    covered = dict.fromkeys(RANK_METRICS, 0)
    for _ in range(trials):
        for name, metric in from_histogram(rng.multinomial(300, chances)).items():
            covered[name] += metric.low <= truth[name] <= metric.high
    for name, times in covered.items():
        assert 0.92 <= times / trials <= 0.98, name


def test_a_single_value_has_an_interval_without_width():
    metric = normal(2.5, 6.25, 1)
    assert (metric.value, metric.low, metric.high, metric.n) == (2.5, 2.5, 2.5, 1)


@pytest.mark.parametrize(
    ("buckets", "codes"), [(HISTORY_BUCKETS, history_buckets), (ITEM_AGE_BUCKETS, item_age_buckets)]
)
def test_every_number_is_in_the_bucket_that_names_it(buckets, codes):
    numbers = np.arange(300)
    for number, code in zip(numbers.tolist(), codes(numbers), strict=True):
        assert [in_bucket(number, bucket) for bucket in buckets].index(True) == code


def test_histograms_count_each_prediction_in_its_three_segments():
    bins = np.array([[0, 20], [3, 0]], np.uint8)
    counts = rank_histograms(bins, np.array([0, 3], np.uint8), np.array([2, 0], np.uint8))
    assert counts.shape == (len(SEGMENTS), 2, RANK_BINS)
    assert counts.sum() == 2 * 2 * 3
    found = {
        (SEGMENTS[segment], int(model), int(rank)): int(counts[segment, model, rank])
        for segment, model, rank in np.argwhere(counts)
    }
    assert found == {
        ("all", 0, 0): 1,
        ("all", 0, 3): 1,
        ("all", 1, 20): 1,
        ("all", 1, 0): 1,
        ("history:0", 0, 0): 1,
        ("history:0", 1, 20): 1,
        ("history:20+", 0, 3): 1,
        ("history:20+", 1, 0): 1,
        ("item_age:100+", 0, 0): 1,
        ("item_age:100+", 1, 20): 1,
        ("item_age:0-9", 0, 3): 1,
        ("item_age:0-9", 1, 0): 1,
    }
