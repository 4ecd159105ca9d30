"""The imbalance benchmark: comparisons whose right answer can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from benchmarks.imbalance import streams
from benchmarks.imbalance.measuring import Run, compared, run, seeds_of
from benchmarks.imbalance.streams import DEFAULT, OTHER_SEEDS, SPECS, settings
from headwater.config import Config


def one(gains: list[float]) -> Run:
    return Run(np.array(gains), {"view": np.array([True, True, False, False])}, 2.0)


def test_a_change_is_the_difference_of_means_over_seeds_within_a_segment():
    found = compared(
        {
            DEFAULT: [one([0.0, 0.5, 1.0, 1.0]), one([0.0, 0.5, 0.0, 0.0])],
            "other": [one([1.0, 1.0, 1.0, 0.0]), one([1.0, 1.0, 0.0, 1.0])],
        }
    )
    segments = found["other"]["segments"]
    assert segments["view"]["n"] == 2
    assert segments["view"]["ndcg@10"] == pytest.approx(1.0)
    assert segments["view"]["change"] == pytest.approx(0.75)
    assert segments["all"]["change"] == pytest.approx(0.375)
    low, high = segments["view"]["change_interval"]
    assert 0.5 <= low < 0.75 < high <= 1.0
    assert found[DEFAULT]["segments"]["all"]["change_interval"] == [0.0, 0.0]
    assert found["other"]["cpu_seconds"] == 2.0


def test_two_sets_of_seeds_of_the_default_have_none_in_common():
    assert not set(seeds_of(DEFAULT, 3)) & set(seeds_of(OTHER_SEEDS, 3))


@pytest.mark.parametrize("name", SPECS)
def test_every_setting_is_one_and_differs_from_the_default(name):
    tried = settings(SPECS[name])
    configs = [Config.model_validate(sections) for sections in tried.values()]
    assert configs[0] == configs[1] == Config()
    assert all(config != configs[0] for config in configs[2:])


def test_a_stream_is_run_by_type_and_with_its_coupons_as_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    n = 300
    (tmp_path / "complete-journey-sample").mkdir()
    pl.DataFrame(
        {
            "user_id": rng.integers(10, size=n),
            "item_id": rng.integers(20, size=n),
            # From the newest to the oldest: the index is that of the file, not of the stream.
            "timestamp": 1_500_000_000 - 60 * np.arange(n),
            "coupon_disc": np.where(np.arange(n) < 50, 0.5, 0.0),
        }
    ).write_parquet(tmp_path / "complete-journey-sample" / "interactions.parquet")
    monkeypatch.setenv("HEADWATER_STREAMS", str(tmp_path))
    monkeypatch.setitem(
        SPECS, "complete-journey-sample", replace(SPECS["complete-journey-sample"], first_half=280)
    )
    found = run("complete-journey-sample", f"keep = {streams._KEEP} of purchase", 1_000, seed=1)
    assert len(found.gains) == 280
    assert found.segments["coupon"].sum() == 30, "the newest 20 are past the first half"
    assert (found.segments["coupon"] ^ found.segments["purchase"]).all()
    assert found.segments["coupon"][-30:].all()
    assert 0.0 < found.gains.mean() < 1.0
