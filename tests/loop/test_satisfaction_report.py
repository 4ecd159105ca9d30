"""What users think reaches those who ask the server, and survives a restart."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from headwater.log.memory import MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.types import NO_ROW, Entry, Event, Item, Metrics
from tests.loop.streams import events_log, learn_all, small, views


def ratings(n: int, start: int) -> list[Entry]:
    return [
        msgspec.structs.replace(one, value=float(k % 5))
        for k, one in enumerate(views(n, type="rating", start=start))
        if isinstance(one, Event)
    ]


CATALOGUE = [Item(f"i{k}", title="Some Words", categories=("A", f"b{k % 7}")) for k in range(60)]
ENTRIES: list[Entry] = [*CATALOGUE, *views(300), *ratings(100, 300)]


def test_the_report_has_the_proxies(tmp_path: Path) -> None:
    config, events, updates = small(), events_log(ENTRIES), MemoryUpdatesLog()
    learner = Learner(config, events, updates, tmp_path)
    learn_all(learner)
    follower = Follower(config, events, updates, tmp_path)
    follower.catch_up()
    reported = msgspec.convert(follower.report["metrics"], list[Metrics])
    found = next(one for one in reported if one.segment == "satisfaction").values
    assert found["rating_mean"].value == 2.0
    assert found["positive_share"].value == 1.0
    assert found["return_share"].n > 0
    # Every pair shares the category A, and six in seven differ in the other one.
    assert 0.4 < found["diversity@10"].value <= 2 / 3 + 1e-6
    everything = next(one for one in reported if one.segment == "all").values
    assert 0 < everything["mixture.gini@10"].value < 1
    whole = {one.segment: one.values for one in reported if one.window == "all"}
    assert {name.partition(".")[0] for name in whole["all"]} == {"mixture", "popularity"}
    assert whole["all"]["mixture.ndcg@10"].n == everything["mixture.ndcg@10"].n > 200
    assert whole["history:20+"]["popularity.ndcg@10"].n > 0

    before = learner.digest()
    learner.snapshot()
    assert Learner(config, events, updates, tmp_path).digest() == before


def test_categories_are_told_from_other_tokens() -> None:
    learner = Learner(small(), events_log(ENTRIES), MemoryUpdatesLog(), None)
    learn_all(learner)
    fold = learner.fold
    rows = np.array([[fold.preprocess.items.find("i3"), NO_ROW]], np.int32)
    found = fold.categories(rows)
    tokens = [fold.preprocess.tokens.id(token) for token in found[0, 0] if token != NO_ROW]
    assert tokens == ["category:a", "category:b3"]
    assert (found[0, 1] == NO_ROW).all()
