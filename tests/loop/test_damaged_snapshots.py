"""A snapshot that can't be read: the one before is used, to the same state, and it is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.log.memory import MemoryUpdatesLog
from headwater.loop import Follower, Learner
from tests.loop.streams import (
    all_updates,
    assert_equal,
    counted,
    events_log,
    learn_all,
    small,
    views,
)

CONFIG = small(deploy={"snapshot_events": 200, "snapshots_kept": 3})


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[-100] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("spoil", [flipped, lambda data: data[: len(data) // 2], lambda _: b""])
def test_the_one_before_a_damaged_snapshot_is_used_and_that_is_told(
    spoil: Any, tmp_path: Path
) -> None:
    events, updates = events_log(views(700)), MemoryUpdatesLog()
    learner = Learner(CONFIG, events, updates, tmp_path)
    learn_all(learner)
    newest = sorted(tmp_path.glob("*.safetensors"))[-1]
    newest.write_bytes(spoil(newest.read_bytes()))

    again = Learner(CONFIG, events, updates, tmp_path)
    told: list[tuple[str, Mapping[str, Any]]] = []
    again.on_alert = lambda what, numbers: told.append((what, numbers))
    assert (again.epoch, again.digest()) == (learner.epoch, learner.digest())
    for _ in range(3):
        again.step()
    ((what, numbers),) = told
    assert (what, numbers["snapshot"]) == ("a snapshot is damaged", newest.name)
    assert "is damaged" in numbers["reason"]
    again.publish()
    assert msgspec.json.decode(all_updates(updates)[-1].report)["damaged_snapshots"] == 1
    events.append(views(100, start=700), 2e9)
    learn_all(again)
    follower = Follower(CONFIG, events, updates, tmp_path)
    follower.catch_up()
    assert_equal(counted(follower), counted(again))
    once_more = Learner(CONFIG, events, updates, tmp_path)
    assert (once_more.epoch, once_more.digest()) == (again.epoch, again.digest())
