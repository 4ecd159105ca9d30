"""Same logs, same settings, same seed: the same ranks and the same updates, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from headwater import data
from headwater import replay as replaying
from headwater.config import Config
from headwater.ingest import Interactions, read_interactions
from headwater.log import StoredUpdate
from headwater.log.memory import MemoryUpdatesLog
from tests.loop.streams import small

EVENTS = 1_200


@dataclass
class Run:
    ranks: pl.DataFrame
    digests: list[str]


def run(interactions: Interactions, config: Config, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A replay, with the digest of every update that it publishes."""
    digests: list[str] = []

    class Recording(MemoryUpdatesLog):
        def append(self, update: StoredUpdate, token: int) -> None:
            super().append(update, token)
            digests.append(update.digest)

    monkeypatch.setattr(replaying, "MemoryUpdatesLog", Recording)
    replayed = replaying.replay(interactions, [], config)
    at = replayed.positions
    table = replayed.report.ranks_table(
        interactions.index[at],
        [interactions.user_ids[code] for code in interactions.user_codes[at]],
        [interactions.item_ids[code] for code in interactions.item_codes[at]],
    )
    return Run(table, digests)


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    file = data.path("movietweetings-100k") / "interactions.parquet"
    return read_interactions(file, limit=EVENTS)


@pytest.fixture(scope="module")
def first(interactions: Interactions) -> Run:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return run(interactions, small(seed=3), monkeypatch)


def test_one_seed_gives_the_same_ranks_and_the_same_updates(
    interactions: Interactions, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What other code draws from the global generators must not matter.
    np.random.seed(99)
    torch.manual_seed(99)
    again = run(interactions, small(seed=3), monkeypatch)
    assert len(first.digests) == EVENTS // 100
    assert again.digests == first.digests
    assert again.ranks.equals(first.ranks)


def test_another_seed_gives_others(
    interactions: Interactions, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = run(interactions, small(seed=4), monkeypatch)
    assert not set(other.digests) & set(first.digests)
    assert not other.ranks["rank"].equals(first.ranks["rank"])
    assert not other.ranks["rank_sequence"].equals(first.ranks["rank_sequence"])
    for counting in ("rank_popularity", "rank_transitions"):
        assert other.ranks[counting].equals(first.ranks[counting]), "they draw nothing"


def test_a_file_in_another_order_is_the_same_stream(
    interactions: Interactions, first: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Apart from ties of the clock, which are taken in file order."""
    file = data.path("movietweetings-100k") / "interactions.parquet"
    rows = pl.read_parquet(file).sort("timestamp", maintain_order=True).head(EVENTS)
    rows = rows.unique("timestamp", keep="first", maintain_order=True)
    runs = []
    for name, table in (
        ("sorted", rows),
        ("shuffled", rows.sample(fraction=1.0, shuffle=True, seed=1)),
    ):
        table.write_parquet(tmp_path / f"{name}.parquet")
        read = read_interactions(tmp_path / f"{name}.parquet")
        runs.append(run(read, small(seed=3), monkeypatch))
    ordered, shuffled = runs
    assert shuffled.digests == ordered.digests
    assert shuffled.ranks.drop("index").equals(ordered.ranks.drop("index"))
    assert sorted(shuffled.ranks["index"]) == ordered.ranks["index"].to_list()
    assert not shuffled.ranks["index"].equals(ordered.ranks["index"])
