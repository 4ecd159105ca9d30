"""Large models in the real-time benchmark: what each way to go on learning moves, and sends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.realtime.adapting import WAYS
from benchmarks.realtime.large import Size, _run
from headwater.log.memory import MemoryUpdatesLog
from headwater.loop import Learner
from tests.loop.streams import events_log, small, views


def learned(
    way: str, **sections: Any
) -> tuple[Learner, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A learner that goes on in a way, and the sequence expert's weights before and after."""
    learner = Learner(small(**sections), events_log(views(400)), MemoryUpdatesLog(), None)
    for _ in range(3):
        learner.step()
    WAYS[way](learner.fold.model.sequence)
    before = weights(learner)
    learner.step()
    return learner, before, weights(learner)


def weights(learner: Learner) -> dict[str, np.ndarray]:
    expert = learner.fold.model.sequence
    dense = {name: p.detach().numpy().copy() for name, p in expert.encoder.named_parameters()}
    return {"rows": expert.tower.items.values.copy(), **dense}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_frozen_stays_to_the_bit(way: str) -> None:
    learner, before, after = learned(way)
    n = len(before["rows"])  # of items that came since
    moved = {name for name in before if not np.array_equal(before[name], after[name][:n])}
    if way == "full":
        assert {"rows", "out.weight", "recency"} <= moved
    else:
        assert moved == ({"rows"} if way in ("rows", "adapter") else set())
    if way == "adapter":
        adapter = learner.fold.model.sequence.dense.values()
        assert sorted(adapter) == ["sequence.adapter.down", "sequence.adapter.up"]
        assert adapter["sequence.adapter.up"].any(), "it began at nothing, and has learned"


def test_rows_that_the_stream_doesn_t_name_stay_with_an_adapter() -> None:
    few = {"sequence": {"replay": 0.0, "earlier_positions": 0}, "train": {"batch_events": 20}}
    _, before, after = learned("rows", **few)
    _, base, adapted = learned("adapter", **few)
    np.testing.assert_array_equal(before["rows"], base["rows"])
    n = len(base["rows"])
    touched = (base["rows"] != after["rows"][:n]).any(axis=1).sum()
    named = (base["rows"] != adapted["rows"][:n]).any(axis=1).sum()
    assert 0 < named < touched


def test_each_way_sends_less_than_the_one_before() -> None:
    found = _run(Size("tiny", 8, 1, 2_000, 200), seed=0)
    sizes = [found[way].bytes for way in WAYS]
    assert sizes == sorted(sizes, reverse=True)
    for one in found.values():
        assert len(one.live) == 2
        assert len(one.gains["served"]) == len(one.gains["sequence"]) > 100
        assert one.parameters > 2_000 * 9
