"""Replays the stream with and without what the catalogue says of items, and counts hits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from headwater.config import Config
from headwater.ingest import read_interactions, read_items
from headwater.intervals import wilson
from headwater.model import EXPERTS
from headwater.replay import replay
from headwater.types import Item

STREAM = "movietweetings-100k"
WITH, WITHOUT = "with content", "without content"

K = 10

_EVENTS, _HISTORY = pl.col("item_events_before"), pl.col("history_length")
SEGMENTS: dict[str, pl.Expr] = {
    "all": pl.lit(True),
    "item's first event": _EVENTS == 0,
    "item's events 2-10": _EVENTS.is_between(1, 9),
    "user's first event": _HISTORY == 0,
    "user's events 1-5": _HISTORY <= 4,
}

RUNS: dict[str, Callable[[Item], Item]] = {
    WITH: lambda item: item,
    # The same items may be recommended from the start; nothing is known of them but their ids.
    WITHOUT: lambda item: Item(item.item_id),
}

GOALS = {
    "items": "hit rate at an item's events 2-10 with content, at least 2 times that without",
    "users": "hit rate of a user's first list, not below that of popularity (95 %, unpaired)",
}


def run(name: str, limit: int | None, seed: int) -> pl.DataFrame:
    """The targets of one replay, in log order: what was new, and the rank in every list.

    Raises:
        UnreadableFile: the stream isn't there.
    """
    folder = Path(os.environ.get("HEADWATER_STREAMS", "../shared/data")) / STREAM
    interactions = read_interactions(folder / "interactions.parquet", limit=limit)
    items = [RUNS[name](item) for item in read_items(folder / "items.parquet")]
    config = Config.model_validate({"recommend": {"catalogue": "all"}, "seed": seed})
    replayed = replay(interactions, items, config)
    at = replayed.positions
    ids = [""] * len(at)
    return replayed.report.ranks_table(interactions.index[at], ids, ids)


def hit_rates(ranks: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Segment -> n, and for what was served and each expert its hit rate with an interval."""
    found: dict[str, dict[str, Any]] = {}
    for segment, inside in SEGMENTS.items():
        part = ranks.filter(inside)
        found[segment] = {"n": len(part)}
        for name, column in columns().items():
            rate = wilson(int((part[column] < K).sum()), len(part))
            found[segment][name] = {
                "hit_rate@10": round(rate.value, 6),
                "interval": [round(rate.low, 6), round(rate.high, 6)],
            }
    return found


def columns() -> dict[str, str]:
    """Who ranked -> the column of ranks."""
    return {"served": "rank", **{name: f"rank_{name}" for name in EXPERTS}}


def judged(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The two goals, and whether they are met.

    Args:
        found: hit rates by run.
    """
    served = {
        name: of_run["item's events 2-10"]["served"]["hit_rate@10"]
        for name, of_run in found.items()
    }
    ratio = served[WITH] / served[WITHOUT] if served[WITHOUT] else None
    first = found[WITH]["user's first event"]
    popular = first["popularity"]["hit_rate@10"]
    return {
        "items": {"goal": GOALS["items"], "ratio": ratio, "met": ratio is None or ratio >= 2.0},
        "users": {
            "goal": GOALS["users"],
            "served": first["served"]["hit_rate@10"],
            "popularity": popular,
            "met": first["served"]["interval"][1] >= popular,
        },
    }
