"""``headwater replay``: small files whose right answer can be worked out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from headwater import data
from headwater.cli import app
from headwater.errors import ConfigError
from headwater.ingest import read_interactions
from headwater.replay import _ends

SETTINGS = """
[preprocess]
history_length = 10
[popularity]
half_lives_hours = [1.0, 24.0]
[transitions]
width = 8
[sequence]
dim = 8
layers = 1
heads = 1
negatives = 24
earlier_positions = 2
replay_buffer = 300
[mixture]
candidates = 20
hidden = 8
replay_buffer = 200
"""
ONE_BY_ONE = SETTINGS + "[train]\nbatch_events = 1\n"
"""Counts never lag, so that a list can be worked out by hand."""

EXPERTS = ["popularity", "transitions", "neighbours", "precedents", "habits", "content", "sequence"]
FIGURES = {
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
}


@dataclass
class Done:
    results: dict[str, Any]
    ranks: pl.DataFrame
    output: str


@dataclass
class Folder:
    """Where a test's files are."""

    path: Path

    def file(self, name: str, rows: Sequence[Sequence[Any]], *columns: str) -> Path:
        """A CSV file."""
        path = self.path / name
        lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return path

    def arguments(self, file: Path, *flags: str, settings: str = SETTINGS) -> list[str]:
        (self.path / "settings.toml").write_text(settings)
        written = {"config": "settings.toml", "json": "out.json", "ranks": "ranks.parquet"}
        named = [word for flag, name in written.items() for word in (f"--{flag}", self.path / name)]
        return [str(word) for word in ("replay", file, *named, *flags)]

    def replay(self, file: Path, *flags: str, settings: str = SETTINGS) -> Done:
        result = CliRunner().invoke(
            app, self.arguments(file, *flags, settings=settings), catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return Done(
            json.loads((self.path / "out.json").read_text()),
            pl.read_parquet(self.path / "ranks.parquet"),
            " ".join(result.output.split()),
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


VIEW = ("user_id", "item_id", "timestamp")


def random_views(n: int, users: int = 15, items: int = 40) -> list[tuple[str, str, int]]:
    random = np.random.default_rng(8)
    return [
        (
            f"u{random.integers(users)}",
            f"i{int(items * random.random() ** 2)}",
            1_400_000_000 + 60 * k,
        )
        for k in range(n)
    ]


# --- the figures ---------------------------------------------------------------------------------


def test_results_have_the_keys_of_the_contract_and_no_others(folder: Folder) -> None:
    done = folder.replay(folder.file("views.csv", random_views(300), *VIEW))
    results = done.results
    assert results.keys() == {
        *("events", "seconds", "events_per_second", "peak_rss_mb", "config"),
        *("all", "second_half", "experts", "segments", "calibration"),
    }
    assert results["events"] == 300
    assert results["seconds"] > 0
    assert results["events_per_second"] == pytest.approx(300 / results["seconds"], rel=0.05)
    assert 50 < results["peak_rss_mb"] < 100_000
    assert results["config"]["sequence"]["dim"] == 8
    assert results["all"].keys() == results["second_half"].keys() == FIGURES
    assert list(results["experts"]) == EXPERTS
    assert all(figures.keys() == FIGURES for figures in results["experts"].values())
    assert {kind: list(buckets) for kind, buckets in results["segments"].items()} == {
        "history": ["0", "1-4", "5-19", "20+"],
        "item_age": ["0-9", "10-99", "100+"],
    }
    for buckets in results["segments"].values():
        for figures in buckets.values():
            assert figures.keys() == {"n", "ndcg@10", "hit_rate@10", "experts"}
            assert list(figures["experts"]) == EXPERTS
            assert all(
                values.keys() == {"ndcg@10", "hit_rate@10"}
                for values in figures["experts"].values()
            )


def test_calibration_is_of_the_lists_of_the_second_half_that_held_the_item(folder: Folder) -> None:
    found = folder.replay(folder.file("views.csv", random_views(300), *VIEW)).results["calibration"]
    assert found.keys() == {"n", "ece@10", "low", "high", "bins"}
    assert 0 < found["n"] <= 10 * 150
    assert found["low"] <= found["ece@10"] <= found["high"]
    assert found["n"] == sum(one["n"] for one in found["bins"])


def gain(rank: int | None) -> float:
    return 1.0 / log2(rank + 2) if rank is not None and rank < 10 else 0.0


def test_figures_are_those_of_the_written_ranks(folder: Folder) -> None:
    done = folder.replay(folder.file("views.csv", random_views(401), *VIEW))
    ranks, results = done.ranks, done.results
    assert len(ranks) == results["all"]["n"] == 401
    half = ranks[201:]
    assert results["second_half"]["n"] == len(half) == 200
    columns = {"second_half": "rank", **{name: f"rank_{name}" for name in EXPERTS}}
    for name, column in columns.items():
        figures = results[name] if name == "second_half" else results["experts"][name]
        listed = half[column].to_list()
        expected = {
            "ndcg@10": [gain(rank) for rank in listed],
            "hit_rate@10": [rank is not None and rank < 10 for rank in listed],
            "mrr@10": [0 if rank is None or rank > 9 else 1 / (rank + 1) for rank in listed],
            "precision@10": [0.1 * (rank is not None and rank < 10) for rank in listed],
            "f1@10": [2 / 11 * (rank is not None and rank < 10) for rank in listed],
            "accuracy@1": [rank == 0 for rank in listed],
            "recall@20": [rank is not None and rank < 20 for rank in listed],
            "mrr@20": [0 if rank is None or rank > 19 else 1 / (rank + 1) for rank in listed],
        }
        for metric, values in expected.items():
            assert figures[metric] == pytest.approx(float(np.mean(values))), (name, metric)
        if name == "content":
            assert (figures["coverage@10"], figures["novelty@10"]) == (0, None), "no items file"
        else:
            assert 0 < figures["coverage@10"] <= 1
            assert figures["novelty@10"] > 0
    assert results["all"]["ndcg@10"] == pytest.approx(
        float(np.mean([gain(rank) for rank in ranks["rank"].to_list()]))
    )


def test_segments_add_up_to_the_second_half(folder: Folder) -> None:
    done = folder.replay(folder.file("views.csv", random_views(600), *VIEW))
    half = done.results["second_half"]
    for kind, buckets in done.results["segments"].items():
        assert sum(figures["n"] for figures in buckets.values()) == half["n"] == 300, kind
        filled = [figures for figures in buckets.values() if figures["n"]]
        assert len(filled) > 1
        total = sum(figures["n"] * figures["ndcg@10"] for figures in filled)
        assert total / half["n"] == pytest.approx(half["ndcg@10"])
        for name in EXPERTS:
            total = sum(figures["n"] * figures["experts"][name]["ndcg@10"] for figures in filled)
            assert total / half["n"] == pytest.approx(done.results["experts"][name]["ndcg@10"])
    lengths = done.ranks[300:]["history_length"]
    assert (
        done.results["segments"]["history"]["5-19"]["n"] == ((lengths >= 5) & (lengths < 20)).sum()
    )


def test_popularity_ranks_by_count_and_its_figures_are_exact(folder: Folder) -> None:
    """At one time nothing decays: the list is the items by count, the earlier seen first."""
    items = "aabacbdabbcaebbdacba"
    rows = [(f"u{k}", item, 1_400_000_000) for k, item in enumerate(items)]
    done = folder.replay(folder.file("views.csv", rows, *VIEW), settings=ONE_BY_ONE)
    counts: Counter[str] = Counter()
    expected: list[int | None] = []
    for item in items:
        order = sorted(counts, key=lambda seen: -counts[seen])  # stable: by first sight
        expected.append(order.index(item) if item in order else None)
        counts[item] += 1
    assert expected[:8] == [None, 0, None, 0, None, 1, None, 0]
    assert done.ranks["rank_popularity"].to_list() == expected
    gains = [gain(rank) for rank in expected[10:]]
    popularity = done.results["experts"]["popularity"]
    assert popularity["ndcg@10"] == pytest.approx(sum(gains) / 10)
    assert popularity["n"] == 10
    assert popularity["hit_rate@10"] == pytest.approx(0.9), "the first `e` can't be hit"
    assert popularity["coverage@10"] == 1.0


def test_counts_lag_by_ten_predictions_and_histories_by_nothing(folder: Folder) -> None:
    rows = [("u", "abc"[k % 3], 1_400_000_000 + k) for k in range(100)]
    done = folder.replay(folder.file("views.csv", rows, *VIEW))
    assert done.ranks["rank"].is_null().to_list() == [True] * 10 + [False] * 90
    assert done.ranks["history_length"].to_list() == list(range(100))
    assert done.ranks["item_events_before"].to_list() == [k // 3 for k in range(100)]
    one_by_one = folder.replay(folder.path / "views.csv", settings=ONE_BY_ONE)
    assert one_by_one.ranks["rank"][50:].to_list() == [0] * 50, "the cycle is learned"


# --- the table of ranks --------------------------------------------------------------------------


def test_ranks_say_which_row_of_the_file_each_is_of(folder: Folder) -> None:
    rows = random_views(250)
    order = np.random.default_rng(2).permutation(len(rows))
    shuffled = [rows[k] for k in order]
    done = folder.replay(folder.file("shuffled.csv", shuffled, *VIEW))
    ranks = done.ranks
    assert ranks.columns == [
        *("index", "user_id", "item_id", "history_length", "item_events_before", "rank"),
        *(f"rank_{name}" for name in EXPERTS),
    ]
    assert ranks.schema["user_id"] == ranks.schema["item_id"] == pl.String
    assert ranks["index"].to_list() == np.argsort(order).tolist()
    named = [(user, item) for user, item, _ in rows]
    assert list(zip(ranks["user_id"], ranks["item_id"], strict=True)) == named
    users: Counter[str] = Counter()
    items: Counter[str] = Counter()
    for (user, item), line in zip(named, ranks.iter_rows(named=True), strict=True):
        assert (line["history_length"], line["item_events_before"]) == (users[user], items[item])
        if items[item] == 0:
            assert line["rank"] is None, "an item's first appearance can't be hit"
        users[user] += 1
        items[item] += 1
    assert ranks["rank"].min() == 0
    unsorted = folder.replay(folder.file("sorted.csv", rows, *VIEW))
    assert unsorted.ranks.drop("index").equals(ranks.drop("index"))


def test_ids_are_text_whatever_they_are_in_the_file(folder: Folder) -> None:
    numbers = [(k % 3, 5 + k % 2, 1_400_000_000 + k) for k in range(12)]
    pl.DataFrame(numbers, schema=VIEW, orient="row").write_parquet(folder.path / "n.parquet")
    done = folder.replay(folder.path / "n.parquet")
    assert set(done.ranks["item_id"]) == {"5", "6"}
    assert set(done.ranks["user_id"]) == {"0", "1", "2"}


def test_a_place_beyond_the_list_is_null(folder: Folder) -> None:
    """Of 150 items that are alike but for their number of events, a list holds 100."""
    rows = [(f"u{k}", f"i{i}", 1_400_000_000) for k in range(3) for i in range(k, 150)]
    rows += [("last", f"i{i}", 1_400_000_000) for i in (149, 0, 1)]
    settings = SETTINGS.replace("candidates = 20", "candidates = 150")
    done = folder.replay(folder.file("views.csv", rows, *VIEW), settings=settings)
    ranks = done.ranks.tail(3)
    assert ranks["item_events_before"].to_list() == [3, 1, 2]
    assert ranks["rank_popularity"].to_list()[1:] == [None, None]
    assert max(done.ranks["rank"].drop_nulls().to_list()) <= 99
    assert done.ranks["rank_popularity"].max() == 99


def test_the_limit_applies_after_sorting(folder: Folder) -> None:
    rows = random_views(120)
    backwards = folder.file("backwards.csv", rows[::-1], *VIEW)
    done = folder.replay(backwards, "--limit", "50")
    assert done.results["events"] == len(done.ranks) == 50
    assert done.ranks["index"].to_list() == [119 - k for k in range(50)]
    start = folder.replay(folder.file("start.csv", rows[:50], *VIEW))
    assert done.ranks.drop("index").equals(start.ranks.drop("index"))


# --- what is predicted, and for whom -------------------------------------------------------------


def baskets(n: int, pairs: int = 25) -> list[tuple[str, str, int]]:
    """Each user comes once and takes a pair of items that always go together, at one time."""
    random = np.random.default_rng(4)
    rows = []
    for k in range(n):
        pair = random.integers(pairs)
        rows += [(f"u{k}", f"{side}{pair}", 1_400_000_000 + 60 * k) for side in ("left", "right")]
    return rows


def test_grouped_ties_read_nothing_of_the_rest_of_the_basket(folder: Folder) -> None:
    file = folder.file("baskets.csv", baskets(400), *VIEW)
    in_order, grouped = folder.replay(file), folder.replay(file, "--ties", "grouped")
    assert in_order.ranks["history_length"].to_list() == [0, 1] * 400
    assert grouped.ranks["history_length"].to_list() == [0, 0] * 400
    right = pl.col("item_id").str.starts_with("right")
    ordered = in_order.ranks[400:].filter(right)["rank_transitions"]
    sure = int((ordered == 0).sum()) / len(ordered)
    assert sure > 0.95, "in file order the left one gives the right one away"
    assert grouped.ranks["rank_transitions"].is_null().all()
    assert in_order.results["second_half"]["ndcg@10"] > 0.4
    assert grouped.results["second_half"]["ndcg@10"] < 0.3


def test_rows_of_one_item_in_a_basket_are_one_target(folder: Folder) -> None:
    rows = [
        *(("u", item, 1_400_000_000) for item in ("a", "b", "a", "a")),
        *(("v", item, 1_400_000_000) for item in ("a", "c")),
        *(("u", item, 1_400_000_060) for item in ("a", "d")),
    ]
    file = folder.file("baskets.csv", rows, *VIEW)
    assert folder.replay(file).ranks["index"].to_list() == list(range(8))
    grouped = folder.replay(file, "--ties", "grouped")
    assert grouped.ranks["index"].to_list() == [0, 1, 4, 5, 6, 7]
    assert grouped.ranks["history_length"].to_list() == [0, 0, 0, 0, 4, 4]
    assert grouped.results["events"] == 8


def again(n: int) -> list[tuple[str, str, int]]:
    """Five users, each with one item that they take again and again."""
    return [(f"u{k % 5}", f"i{k % 5}", 1_400_000_000 + 60 * k) for k in range(n)]


def test_no_repeats_means_that_what_was_had_is_not_in_the_list(folder: Folder) -> None:
    views = folder.file("views.csv", again(60), *VIEW)
    rated = [(*row, 4) for row in again(60)]
    ratings = folder.file("ratings.csv", rated, *VIEW, "rating")
    had = pl.col("item_events_before") > 0
    for file, flags, repeats in (
        (views, (), True),
        (views, ("--no-repeats",), False),
        (ratings, (), False),
        (ratings, ("--repeats",), True),
    ):
        done = folder.replay(file, *flags, settings=ONE_BY_ONE)
        listed = done.ranks.filter(had)["rank"]
        assert len(listed) == 55
        assert listed.is_not_null().all() if repeats else listed.is_null().all(), (file, flags)


def test_with_all_of_the_catalogue_a_first_appearance_can_be_hit(folder: Folder) -> None:
    rows = [(f"u{k}", f"i{k}", 1_400_000_000 + 60 * k) for k in range(30)]
    file = folder.file("views.csv", rows, *VIEW)
    listed = [(f"i{k}", f"Title {k}") for k in range(30)] + [("never", "Never seen")]
    items = folder.file("items.csv", listed, "item_id", "title")
    seen = folder.replay(file, "--items", str(items), settings=ONE_BY_ONE)
    assert seen.ranks["rank"].is_null().all()
    assert seen.results["config"]["recommend"]["catalogue"] == "seen"
    configured = f'{ONE_BY_ONE}\n[recommend]\ncatalogue = "all"\n'
    named = folder.replay(file, "--items", str(items), settings=configured)
    assert named.results["config"]["recommend"]["catalogue"] == "all"
    whole = folder.replay(file, "--items", str(items), "--catalogue", "all", settings=ONE_BY_ONE)
    assert whole.ranks["rank"].is_not_null().sum() > 15
    assert whole.ranks.equals(named.ranks)
    assert whole.ranks["rank_popularity"].is_null().all(), "counts know nothing of it"
    assert whole.ranks["index"].to_list() == list(range(30)), "items aren't rows of the file"
    assert whole.results["second_half"]["coverage@10"] <= 1.0


def test_only_wanted_events_are_targets_and_others_are_learned(folder: Folder) -> None:
    kinds = ["view", "dislike", "purchase", "impression", "return", "waved at", "rating"]
    rows = [(f"u{k % 4}", f"i{k % 9}", 1_400_000_000 + 60 * k, kinds[k % 7]) for k in range(140)]
    file = folder.file("events.csv", rows, *VIEW, "event")
    done = folder.replay(file)
    wanted = [k for k in range(140) if kinds[k % 7] in ("view", "purchase", "rating")]
    assert done.ranks["index"].to_list() == wanted
    assert (done.results["events"], done.results["all"]["n"]) == (140, len(wanted))
    assert "event type waved at is unknown: 20 events are kept with weight 0" in done.output
    assert "20 events taught nothing: unknown_type" in done.output
    only = folder.replay(folder.file("wanted.csv", [rows[k] for k in wanted], *VIEW, "event"))
    assert only.results["all"]["n"] == len(wanted)
    assert done.ranks["history_length"].to_list()[-1] > only.ranks["history_length"].to_list()[-1]


def test_rows_that_cannot_be_used_are_skipped_and_counted(folder: Folder) -> None:
    rows: list[tuple[Any, ...]] = list(random_views(20))
    rows[3] = ("", "i1", 1_400_000_000)
    rows[7] = ("u1", "", 1_400_000_000)
    rows[9] = ("u1", "", 1_400_000_000)
    rows[11] = ("u1", "i1", "soon")
    done = folder.replay(folder.file("views.csv", rows, *VIEW))
    assert done.results["events"] == len(done.ranks) == 16
    assert "skipped 1 rows: user_id is missing" in done.output
    assert "skipped 2 rows: item_id is missing" in done.output
    assert "skipped 1 rows: timestamp is not a time" in done.output
    assert set(done.ranks["index"]) == set(range(20)) - {3, 7, 9, 11}


# --- the command ---------------------------------------------------------------------------------


def test_types_and_reasons_are_printed_as_they_are(folder: Folder) -> None:
    rows = [(*row, "[/b]") for row in random_views(30)]
    done = folder.replay(folder.file("x.csv", rows, *VIEW, "event"))
    assert "event type [/b] is unknown" in done.output
    assert "[events.[/b]]" in done.output


def test_columns_are_mapped_and_the_chart_is_drawn(folder: Folder) -> None:
    file = folder.file("other.csv", random_views(120), "who", "what", "when")
    chart = folder.path / "chart.png"
    done = folder.replay(
        file,
        *("--map", "user_id=who", "--map", "item_id=what", "--map", "timestamp=when"),
        *("--plot", str(chart)),
    )
    assert len(done.ranks) == 120
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert "120 events, 15 users" in done.output
    assert "Second half, 60 predictions" in done.output


@pytest.mark.parametrize(
    ("flag", "name", "message"),
    [
        ("--json", "none/out.json", "there is no folder"),
        ("--ranks", "none/ranks.parquet", "there is no folder"),
        ("--ranks", ".", "it is a folder"),
        ("--plot", "none/chart.png", "there is no folder"),
        ("--plot", "chart.gif", "must end in .png or .svg"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, flag: str, name: str, message: str
) -> None:
    monkeypatch.setattr("headwater.replay.read_interactions", None)
    arguments = ["replay", "no.csv", flag, str(folder.path / name)]
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    if flag == "--json":
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(app, ["evaluate", *arguments[1:]], catch_exceptions=False)


def test_the_shipped_stream_is_foretold_better_than_by_chance(folder: Folder) -> None:
    file = data.path("movietweetings-100k") / "interactions.parquet"
    done = folder.replay(file, "--limit", "2000")
    half = done.results["second_half"]
    assert half["n"] == 1_000
    assert half["ndcg@10"] > 0.1
    assert half["ndcg@10"] > 0.9 * max(
        figures["ndcg@10"] for figures in done.results["experts"].values()
    )


def test_another_process_with_another_hash_seed_gives_the_same_ranks(folder: Folder) -> None:
    """Nothing may depend on the order of a set of strings, nor on what a process did before."""
    file = folder.file("views.csv", random_views(300), *VIEW)
    here = folder.replay(file, "--seed", "5")
    subprocess.run(
        [sys.executable, "-m", "headwater.cli", *folder.arguments(file, "--seed", "5")],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert pl.read_parquet(folder.path / "ranks.parquet").equals(here.ranks)
    assert not folder.replay(file, "--seed", "6").ranks.equals(here.ranks)


def test_grouped_batches_do_not_cut_a_moment(folder: Folder) -> None:
    times = [1.0] * 3 + [2.0] * 250 + [3.0] * 60 + [4.0] * 60
    rows = [(f"u{n}", f"i{n % 7}", f"{time:.0f}") for n, time in enumerate(times)]
    file = folder.file("moments.csv", rows, "user_id", "item_id", "timestamp")
    interactions = read_interactions(file)
    assert _ends(interactions, 100, grouped=True) == [0, 3, 253, 313, 373]
    assert _ends(interactions, 100, grouped=False) == [0, 100, 200, 300, 373]
