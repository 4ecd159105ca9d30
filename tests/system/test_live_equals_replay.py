"""What the running system learned is what its logs say, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pytest

from headwater.deploy import Manifest, Snapshots, decode
from headwater.log import StoredUpdate
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner
from headwater.types import ItemRemoval, Record
from tests.system.running import System, ratings

EVENTS = 5_000


@dataclass
class Lived:
    """A system that has learned and stopped, and what its logs held."""

    system: System
    records: list[Record]
    updates: list[StoredUpdate]
    manifest: Manifest


# Published often, so that a fast machine has many updates to compare as well.
SETTINGS = """
[deploy]
snapshot_events = 1_000_000
[train]
publish_milliseconds = 20
"""


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    system = System(tmp_path_factory.mktemp("live"), SETTINGS)
    try:
        system.start().wait_until_ready()
        events = ratings(EVENTS)
        for start in range(0, EVENTS, 130):
            system.post(events[start : start + 130])
            if start == 1_300:
                item_id = events[0]["item_id"]
                system.request("PUT", f"/v1/items/{item_id}", json={"title": "The first"})
            if start == 2_600:
                system.request("DELETE", f"/v1/items/{events[7]['item_id']}")
        assert system.wait_until_learned() == EVENTS + 2
        # Before the end: the snapshot that is written then makes them dispensable.
        updates = system.updates()
        assert system.interrupt() == 0
        snapshots = Snapshots(system.data / "snapshots", keep=1)
        [path] = snapshots.paths()
        yield Lived(system, system.records(), updates, snapshots.manifest(path))
    finally:
        system.end()


def relived(lived: Lived, updates: Sequence[StoredUpdate], publishing: MemoryUpdatesLog) -> Learner:
    """A learner in this process that learns what the live one did, cut where it was cut."""
    events = MemoryEventsLog()
    for received_at, group in groupby(lived.records, lambda record: record.received_at):
        events.append([record.entry for record in group], received_at)
    assert events.read(0, len(lived.records)) == lived.records
    learner = Learner(lived.system.config, events, publishing, None)
    for stored in updates:
        update = decode(stored.payload)
        paces = {pace.through: pace for pace in update.paces}
        for end in update.batch_ends:
            records = events.read(learner.trained_through, end - learner.trained_through)
            learner.learn(records, pace=paces.get(end))
        learner.publish()
    return learner


def test_every_update_has_the_digest_that_learning_it_again_gives(lived: Lived) -> None:
    publishing = MemoryUpdatesLog()
    learner = relived(lived, lived.updates, publishing)
    again = publishing.read(0, len(lived.updates))
    assert len(again) == len(lived.updates) > 5
    assert [stored.digest for stored in again] == [stored.digest for stored in lived.updates]
    assert learner.digest() == lived.manifest.digest


def test_the_logs_are_complete_and_in_order(lived: Lived) -> None:
    assert [stored.sequence for stored in lived.updates] == list(range(1, len(lived.updates) + 1))
    assert {stored.epoch for stored in lived.updates} == {1}
    ends = [end for stored in lived.updates for end in decode(stored.payload).batch_ends]
    assert ends == sorted(set(ends))
    assert ends[-1] == EVENTS + 2
    starts = [0, *ends]
    # The most that may be in one where the trainer is behind.
    assert all(0 < end - start <= 500 for start, end in zip(starts, ends, strict=False))
    removal = next(r.offset for r in lived.records if isinstance(r.entry, ItemRemoval))
    assert removal in ends
    assert any(
        end - start != 100 and end not in (removal, ends[-1])
        for start, end in zip(starts, ends, strict=False)
    ), "some cuts came from the clock or the load, or the test shows less than it says"
    manifest = lived.manifest
    assert (manifest.epoch, manifest.sequence) == (1, len(lived.updates))
    assert manifest.offset == EVENTS + 2


def test_cut_elsewhere_the_digests_differ(lived: Lived) -> None:
    """That the digests agree says something: they see where a micro-batch ended."""
    publishing = MemoryUpdatesLog()
    first = decode(lived.updates[0].payload).batch_ends[0]
    events = MemoryEventsLog()
    events.append([record.entry for record in lived.records[:first]], lived.records[0].received_at)
    learner = Learner(lived.system.config, events, publishing, None)
    for end in (first // 2, first):
        learner.learn(events.read(learner.trained_through, end - learner.trained_through))
    learner.publish()
    assert publishing.read(0, 1)[0].digest != lived.updates[0].digest
