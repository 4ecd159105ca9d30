"""Drift: what begins a change, what doesn't, and that batches and restarts don't matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headwater.config import Config
from headwater.deploy import state_digest
from headwater.evaluate import Drift
from headwater.preprocess import Preprocessor
from headwater.types import Event, Record, StreamChange

MIX = ("view", "view", "view", "like", "rating")


class Stream:
    """Events at random: what kinds, of which items and users, how fast and of what value."""

    def __init__(self, drift: Drift | None = None) -> None:
        self.random = np.random.default_rng(1)
        self.preprocess = Preprocessor(Config())
        self.drift = drift or Drift(len(self.preprocess.type_names))
        self.offset = 0
        self.time = 1e9

    def run(
        self,
        n: int,
        *,
        size: int = 100,
        mix: tuple[str, ...] = MIX,
        items: int = 0,
        users: str = "u",
        seconds: float = 1.0,
        value: float = 5.0,
        live: bool = True,
    ) -> list[StreamChange]:
        records, values = [], []
        for _ in range(n):
            self.offset += 1
            self.time += seconds
            once = users == "new" or self.random.random() < 0.5
            who = self.offset if once else self.random.integers(5)
            kind = mix[self.random.integers(len(mix))]
            item = f"i{items + self.random.zipf(1.4) % 200}"
            rated = float(self.random.integers(1, 6)) * value / 5.0 if kind == "rating" else None
            event = Event(f"e{self.offset}", kind, f"{users}{who}", self.time, item, rated)
            values.append(np.nan if rated is None else rated)
            records.append(Record(self.offset, self.time, self.time, event))
        changes = []
        for start in range(0, n, size):
            part = records[start : start + size]
            batch, _ = self.preprocess.batch(part)
            of_batch = np.array(values[start : start + size], np.float32)
            changes += self.drift.observe(batch, of_batch, np.full(len(part), live))
        return changes


@pytest.mark.parametrize("size", [100, 7, 1_500])
def test_a_stream_as_usual_has_no_timeline(size: int) -> None:
    assert Stream().run(12_000, size=size) == []


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("types", {"mix": ("view", "teleported", "teleported")}),
        ("items", {"items": 1_000}),
        ("users", {"users": "new"}),
        ("rate", {"seconds": 0.04}),
        ("rate", {"seconds": 25.0}),
        ("values", {"value": 500.0}),
    ],
)
def test_a_change_is_told_once_when_it_begins_and_again_when_it_comes_again(
    what: str, changed: dict[str, Any]
) -> None:
    stream = Stream()
    assert stream.run(8_000) == []
    found = stream.run(2_000, **changed)
    assert [change.what for change in found if change.what == what] == [what]
    first = next(change for change in found if change.what == what)
    assert 8_000 < first.offset <= 9_000
    assert first.size > 0
    assert first.reason
    assert stream.drift.counts[what] == 1
    back = [change.what for change in stream.run(40_000, size=1_000)]
    assert back.count(what) <= 1, "what was usual before may be told as a change"


def test_what_stays_becomes_usual() -> None:
    stream = Stream()
    stream.run(6_000)
    assert stream.run(1_000, users="new")[0].what == "users"
    assert stream.run(20_000, users="new", size=1_000) == []


def test_of_history_there_is_no_rate() -> None:
    stream = Stream()
    stream.run(6_000, live=False)
    assert stream.run(2_000, seconds=0.0, live=False) == []


def test_nothing_is_a_change_before_there_is_something_usual() -> None:
    stream = Stream()
    stream.run(1_000)
    assert stream.run(1_000, mix=("like",), items=1_000, users="new", seconds=90.0) == []


def test_where_batches_end_and_a_restart_make_no_difference() -> None:
    one, other = Stream(), Stream()
    parts: list[dict[str, Any]] = [{}, {"users": "new"}, {"mix": ("like",), "value": 5_000.0}]
    for part in parts:
        found = one.run(4_500, size=100, **part)
        loaded = Drift(len(other.preprocess.type_names))
        loaded.load({name: array.copy() for name, array in other.drift.state().items()})
        other.drift = loaded
        assert other.run(4_500, size=313, **part) == found
        assert state_digest(one.drift.state()) == state_digest(other.drift.state())
    assert one.drift.counts["users"] == 1
    assert one.drift.counts["types"] == 1
