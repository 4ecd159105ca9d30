"""The cold-start benchmark: hit rates whose right answer can be counted by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from benchmarks.cold_start.measuring import RUNS, WITH, WITHOUT, columns, hit_rates, judged, run
from headwater.types import Item


def ranks(served, before, history):
    return pl.DataFrame(
        {
            "item_events_before": before,
            "history_length": history,
            **dict.fromkeys(columns().values(), pl.Series([None] * len(before), dtype=pl.Int32)),
            "rank": pl.Series(served, dtype=pl.Int32),
        }
    )


def test_a_hit_is_a_rank_below_ten_within_what_was_new():
    found = hit_rates(
        ranks(
            served=[0, 9, 10, None, 3, None],
            before=[0, 1, 9, 9, 10, 0],
            history=[0, 0, 4, 1, 5, 9],
        )
    )
    rates = {name: (of["n"], of["served"]["hit_rate@10"]) for name, of in found.items()}
    assert rates == {
        "all": (6, 0.5),
        "item's first event": (2, 0.5),
        "item's events 2-10": (3, pytest.approx(1 / 3, abs=1e-6)),
        "user's first event": (2, 1.0),
        "user's events 1-5": (4, 0.5),
    }
    assert found["all"]["content"]["hit_rate@10"] == 0.0


@pytest.mark.parametrize(("hits", "met"), [(3, False), (4, True)])
def test_twice_as_many_hits_on_new_items_are_asked_for(hits, met):
    def rates(n):
        return hit_rates(ranks([0] * n + [None] * (10 - n), [5] * 10, [0] * 10))

    goals = judged({WITH: rates(hits), WITHOUT: rates(2)})
    assert goals["items"]["ratio"] == pytest.approx(hits / 2)
    assert goals["items"]["met"] is met


@pytest.mark.parametrize(("served", "met"), [(0, False), (35, True)])
def test_a_first_list_must_not_be_worse_than_popularity(served, met):
    found = ranks([0] * served + [None] * (100 - served), [50] * 100, [0] * 100)
    popular = pl.Series([0] * 40 + [None] * 60, dtype=pl.Int32)
    both = hit_rates(found.with_columns(rank_popularity=popular))
    assert judged({WITH: both, WITHOUT: both})["users"]["met"] is met


def test_without_content_an_item_is_its_id():
    item = Item("1", title="Alien", categories=("Horror",), attributes={"year": 1979.0})
    assert RUNS[WITH](item) == item
    assert RUNS[WITHOUT](item) == Item("1")


def test_only_what_the_catalogue_says_brings_an_item_in_at_its_first_event(tmp_path, monkeypatch):
    folder = tmp_path / "movietweetings-100k"
    folder.mkdir()
    random = np.random.default_rng(0)
    n, items = 400, 80
    users = random.integers(8, size=n)
    pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": [f"i{2 * random.integers(items // 2) + user % 2}" for user in users],
            "rating": [8.0] * n,
            "timestamp": 1_400_000_000 + 60 * np.arange(n),
        }
    ).write_parquet(folder / "interactions.parquet")
    pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(items)],
            "genres": ["odd" if k % 2 else "even" for k in range(items)],
        }
    ).write_parquet(folder / "items.parquet")
    monkeypatch.setenv("HEADWATER_STREAMS", str(tmp_path))
    first = {name: hit_rates(run(name, n, 0))["item's first event"] for name in RUNS}
    assert first[WITH]["n"] == first[WITHOUT]["n"] > 40
    assert first[WITH]["content"]["hit_rate@10"] > 0.1
    assert first[WITHOUT]["content"]["hit_rate@10"] == 0.0
