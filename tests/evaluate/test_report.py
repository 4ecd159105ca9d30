from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import polars as pl
import pytest

from headwater.config import Config
from headwater.errors import ConfigError
from headwater.evaluate import HISTORY_BUCKETS, ITEM_AGE_BUCKETS, Evaluator, Report
from tests.evaluate.streams import (
    EXPERTS,
    batch,
    in_bucket,
    plain_figures,
    plain_novelty,
    plain_predictions,
    plain_shown,
    ranking,
    stream,
)

KEYS = [
    "n",
    "hit_rate@10",
    "ndcg@10",
    "mrr@10",
    "precision@10",
    "f1@10",
    "accuracy@1",
    "recall@20",
    "mrr@20",
    "coverage@10",
    "novelty@10",
]


def collected(steps):
    evaluator, report = Evaluator(Config(), EXPERTS), Report(EXPERTS)
    for step in steps:
        report.add(evaluator.observe(step.batch, step.ranking, step.item_counts, step.total_events))
    return report


def figures(records, model, eligible):
    return {
        "n": len(records),
        **plain_figures(records, model),
        "coverage@10": plain_shown(records, model) / eligible,
        "novelty@10": pytest.approx(plain_novelty(records, model), rel=1e-6),
    }


@pytest.mark.parametrize("batches", [1, 2, 17])
def test_results_are_those_of_a_plain_reading(batches):
    steps = stream(batches)
    records = plain_predictions(steps)
    half = records[-(len(records) // 2) :]
    results = collected(steps).results(eligible=40)
    assert list(results) == ["all", "second_half", "experts", "segments", "calibration"]
    assert list(results["all"]) == KEYS
    assert results["all"] == pytest.approx(figures(records, "mixture", 40))
    assert results["second_half"] == pytest.approx(figures(half, "mixture", 40))
    assert list(results["experts"]) == list(EXPERTS)
    for name in EXPERTS:
        assert results["experts"][name] == pytest.approx(figures(half, name, 40))
    assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_segments_are_of_the_second_half_and_add_up_to_it():
    steps = stream(9)
    records = plain_predictions(steps)
    half = [record for k, record in enumerate(records) if k >= len(records) / 2]
    results = collected(steps).results(eligible=40)
    assert list(results["segments"]) == ["history", "item_age"]
    for kind, buckets in (("history", HISTORY_BUCKETS), ("item_age", ITEM_AGE_BUCKETS)):
        assert tuple(results["segments"][kind]) == buckets
        for bucket, found in results["segments"][kind].items():
            chosen = [record for record in half if in_bucket(record[kind], bucket)]
            assert found["n"] == len(chosen)
            for model, values in (("mixture", found), *found["experts"].items()):
                expected = plain_figures(chosen, model)
                assert values["ndcg@10"] == pytest.approx(expected["ndcg@10"])
                assert values["hit_rate@10"] == pytest.approx(expected["hit_rate@10"])
        total = sum(found["n"] for found in results["segments"][kind].values())
        assert total == results["second_half"]["n"] == len(half)


def test_the_middle_prediction_of_an_odd_number_is_in_the_first_half():
    report = Report(())
    evaluator = Evaluator(Config(), ())
    lists = ranking([[1]] * 5)
    outcomes = evaluator.observe(batch([2, 2, 1, 2, 1]), lists, np.ones(3, np.int64), 3)
    report.add(outcomes)
    results = report.results(eligible=2)
    assert results["second_half"]["n"] == 2
    assert results["second_half"]["hit_rate@10"] == 0.5
    assert report.results(2, second_half_from=2)["second_half"]["hit_rate@10"] == pytest.approx(
        2 / 3
    )


def test_coverage_of_a_half_leaves_out_what_only_the_other_showed():
    report, evaluator = Report(()), Evaluator(Config(), ())
    for shown in ([[0, 1], [0, 2]], [[0, 3], [3, 0]]):
        lists = ranking(shown)
        report.add(evaluator.observe(batch([9, 9]), lists, np.ones(8, np.int64), 8))
    results = report.results(eligible=8)
    assert results["all"]["coverage@10"] == 4 / 8
    assert results["second_half"]["coverage@10"] == 2 / 8


def test_a_replay_without_targets_has_empty_figures(tmp_path):
    report = Report(EXPERTS)
    results = report.results(eligible=0)
    assert results["all"] == {**dict.fromkeys(KEYS), "n": 0}
    assert results["segments"]["history"]["0"]["ndcg@10"] is None
    assert report.ranks_table([], [], []).height == 0
    report.plot(tmp_path / "empty.png")


def test_ranks_table_has_a_line_per_target_in_stream_order(tmp_path):
    steps = stream(7)
    records = plain_predictions(steps)
    n = len(records)
    index = np.random.default_rng(0).permutation(n)
    users, items = [f"u{k % 9}" for k in range(n)], [f"i{k % 7}" for k in range(n)]
    table = collected(steps).ranks_table(index, users, items)
    assert table.schema == {
        "index": pl.Int64,
        "user_id": pl.String,
        "item_id": pl.String,
        "history_length": pl.Int64,
        "item_events_before": pl.Int64,
        "rank": pl.Int8,
        "rank_popularity": pl.Int8,
        "rank_sequence": pl.Int8,
    }
    assert table["index"].to_list() == index.tolist()
    assert table["user_id"].to_list() == users
    assert table["item_id"].to_list() == items
    assert table["history_length"].to_list() == [record["history"] for record in records]
    assert table["item_events_before"].to_list() == [record["item_age"] for record in records]
    for column, model in (("rank", "mixture"), *((f"rank_{name}", name) for name in EXPERTS)):
        assert table[column].to_list() == [record["ranks"][model] for record in records]
    table.write_parquet(tmp_path / "ranks.parquet")
    assert pl.read_parquet(tmp_path / "ranks.parquet").equals(table)


def test_ranks_table_refuses_columns_of_another_length():
    report = collected(stream(1))
    n = len(report)
    with pytest.raises(ValueError, match=f"user_ids has {n - 1} entries for {n} targets"):
        report.ranks_table(range(n), ["u"] * (n - 1), ["i"] * n)


def test_plot_draws_a_labelled_line_per_model(tmp_path):
    report = collected(stream(12))
    report.plot(tmp_path / "chart.svg")
    report.plot(tmp_path / "chart.PNG")
    image = matplotlib.image.imread(tmp_path / "chart.PNG", format="png")
    assert image.shape[0] > 500
    assert image[..., :3].std() > 0.01
    drawing = ElementTree.parse(tmp_path / "chart.svg").getroot()
    text = ElementTree.tostring(drawing, encoding="unicode")
    for label in ("mixture", *EXPERTS, "NDCG@10", "Predictions", "Prequential quality"):
        assert label in text
    first = (tmp_path / "chart.svg").read_bytes()
    report.plot(tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == first


def test_plot_names_the_ending_and_the_extra_that_are_missing(tmp_path, monkeypatch):
    report = collected(stream(1))
    with pytest.raises(ConfigError, match=r"chart\.gif must end in \.png or \.svg"):
        report.plot(tmp_path / "chart.gif")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'headwater\[plot\]'"):
        report.plot(tmp_path / "chart.png")


def test_the_live_roles_load_neither_charts_nor_data_frames():
    code = (
        "import sys, headwater.evaluate;"
        "print(sorted({'matplotlib', 'polars', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
