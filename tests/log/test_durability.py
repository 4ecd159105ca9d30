"""Acknowledged means durable, once: through power cuts and killed processes."""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from headwater.errors import LogError
from headwater.log import StoredUpdate, _database
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.types import Appended, Event
from tests.log.lossy import Image, LossyDisk

RECEIVED_AT = 1e6


def event(name: str) -> Event:
    """One whose name begins with the number of its call; an hour lies between two calls."""
    return Event(name, "view", "u1", 3600.0 * int(name.split("-")[0]), item_id="i" * 300)


class NormalEventsLog(SqliteEventsLog):
    """Syncs the WAL at checkpoints only, as updates do: too rarely for events."""

    _synchronous = "NORMAL"


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[LossyDisk]:
    lossy = LossyDisk(request.node.name, lies=getattr(request, "param", False))
    yield lossy
    lossy.unregister()


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short run also cuts the power while pages move into the database."""
    monkeypatch.setattr(_database, "CHECKPOINT_PAGES", 12)


def power_cuts(
    disk: LossyDisk, path: Path, kind: type[SqliteEventsLog], keep: int | None = None
) -> list[tuple[Image, dict[str, int]]]:
    """Cuts the power around every sync and after every acknowledgement of a run.

    All but the newest ``keep`` events are dropped on the way.

    Returns what the disk held then, beside the events that were acknowledged by then.
    """
    acknowledged: dict[str, int] = {}
    cuts: list[tuple[Image, dict[str, int]]] = []
    seeds = itertools.count(1)

    def cut() -> None:
        # Everything unsynced lost, and, with another seed each time, some of it.
        cuts.append((disk.after_power_cut(0), dict(acknowledged)))
        cuts.append((disk.after_power_cut(next(seeds)), dict(acknowledged)))

    disk.at_sync = cut
    with contextlib.closing(kind(path, vfs=disk.name)) as log:
        for call in range(20):
            names = [[f"{call}-{part}-{n}" for n in range(3)] for part in range(2)]
            futures = [log.submit([event(name) for name in part], RECEIVED_AT) for part in names]
            for part, future in zip(names, futures, strict=True):
                offsets = [answer.offset for answer in future.result(20)]
                acknowledged.update(zip(part, offsets, strict=True))
            if keep is not None:
                log.drop(len(acknowledged) - keep)
            cut()
    return cuts


def losses(
    folder: Path, image: Image, acknowledged: dict[str, int], keep: int | None = None
) -> list[str]:
    """What is wrong with a log that is opened on what the power cut left."""
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        try:
            log = stack.enter_context(contextlib.closing(SqliteEventsLog(folder / "events.db")))
            start = log.start()
            records = log.read(start, 10_000)
        except LogError as error:
            return [f"can't be read: {error}"]
        offsets = [record.offset for record in records]
        found = {
            record.entry.event_id: record.offset
            for record in records
            if isinstance(record.entry, Event)
        }
        if start > (0 if keep is None else max(0, len(acknowledged) - keep)):
            wrong.append(f"more is dropped than was to be: through {start}")
        for name, offset in acknowledged.items():
            if offset <= start:
                if log.append([event(name)], RECEIVED_AT)[0].older_than is None:
                    wrong.append(f"{name} was dropped, and counted again")
            elif found.get(name) != offset:
                wrong.append(f"{name} was acknowledged at {offset}, is at {found.get(name)}")
        if len(found) < len(records):
            wrong.append("an event is there twice")
        if offsets != sorted(set(offsets)):
            wrong.append(f"offsets don't increase: {offsets}")
        if acknowledged and not wrong:
            name, offset = next(reversed(acknowledged.items()))
            again, new = log.append([event(name), event("99-afterwards")], RECEIVED_AT)
            if again != Appended(offset, True) or new.offset <= offsets[-1]:
                wrong.append(f"after the power cut: {again}, {new}")
    connection = apsw.Connection(str(folder / "events.db"))
    if (answer := connection.pragma("integrity_check")) != "ok":
        wrong.append(f"integrity: {answer}")
    connection.close()
    return wrong


def all_losses(
    folder: Path, cuts: list[tuple[Image, dict[str, int]]], keep: int | None = None
) -> list[str]:
    return [
        loss
        for number, (image, acknowledged) in enumerate(cuts)
        for loss in losses(folder / f"cut{number}", image, acknowledged, keep)
    ]


def test_a_power_cut_loses_nothing_that_was_acknowledged(disk: LossyDisk, tmp_path: Path) -> None:
    cuts = power_cuts(disk, tmp_path / "events.db", SqliteEventsLog)
    assert all_losses(tmp_path, cuts) == []
    # The cuts are where it can hurt: some lose pages of a checkpoint, some events not yet
    # acknowledged, and images differ.
    assert len(cuts) > 150
    assert len({tuple(sorted(image.items())) for image, _ in cuts}) > 50


def test_a_power_cut_while_events_are_dropped_loses_no_others(
    disk: LossyDisk, tmp_path: Path
) -> None:
    cuts = power_cuts(disk, tmp_path / "events.db", SqliteEventsLog, keep=30)
    assert all_losses(tmp_path, cuts, keep=30) == []
    with contextlib.closing(SqliteEventsLog(tmp_path / f"cut{len(cuts) - 1}/events.db")) as log:
        assert log.start() > 60


def test_a_log_that_syncs_too_rarely_is_caught(disk: LossyDisk, tmp_path: Path) -> None:
    cuts = power_cuts(disk, tmp_path / "events.db", NormalEventsLog)
    assert any("was acknowledged" in loss for loss in all_losses(tmp_path, cuts))


@pytest.mark.parametrize("disk", [True], indirect=True)
def test_a_disk_that_lies_is_caught(disk: LossyDisk, tmp_path: Path) -> None:
    cuts = power_cuts(disk, tmp_path / "events.db", SqliteEventsLog)
    # Every other cut loses all that was not synced: here, everything.
    assert any("was acknowledged" in loss for loss in all_losses(tmp_path, cuts[::2]))


def test_synced_updates_survive_a_power_cut(disk: LossyDisk, tmp_path: Path) -> None:
    def end_after_power_cut(folder: Path) -> int:
        folder.mkdir()
        for name, content in disk.after_power_cut(0).items():
            (folder / name).write_bytes(content)
        with contextlib.closing(SqliteUpdatesLog(folder / "updates.db")) as found:
            updates = found.read(0, 100)
            assert [update.sequence for update in updates] == list(range(1, found.end() + 1))
            return found.end()

    def append(sequences: range) -> None:
        for sequence in sequences:
            update = StoredUpdate(1, sequence, sequence, "", b"\1" * 500, b"{}")
            log.append(update, token)

    with contextlib.closing(SqliteUpdatesLog(tmp_path / "updates.db", vfs=disk.name)) as log:
        token = log.acquire()
        append(range(1, 4))
        assert end_after_power_cut(tmp_path / "unsynced") < 3
        log.sync(token)
        assert end_after_power_cut(tmp_path / "synced") == 3
        append(range(4, 6))
        log.sync(token)
        assert end_after_power_cut(tmp_path / "again") == 5


WRITER = """
import sys, itertools
from pathlib import Path
from headwater.log.sqlite import SqliteEventsLog
from headwater.types import Event

log = SqliteEventsLog(Path(sys.argv[1]))
for call in itertools.count(int(sys.argv[2])):
    names = [f"{call}-{n}" for n in range(20)]
    answers = log.append([Event(name, "view", "u1", 1000.0) for name in names], 2000.0)
    print(call, *(answer.offset for answer in answers), flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "data" / "events.db"
    chance = random.Random(7)
    acknowledged: dict[str, int] = {}
    call = 0
    for _ in range(5):
        # Each writer starts with a call that was acknowledged already, as a client does that
        # missed the answer.
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(max(call - 1, 0))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(chance.randrange(3, 30))]
        killer = threading.Timer(chance.uniform(0, 0.01), writer.kill)
        killer.start()
        lines += writer.stdout.readlines()
        assert writer.wait(20) == -9
        killer.join()
        writer.stdout.close()
        for line in lines:
            if not line.endswith("\n"):
                continue
            number, *offsets = map(int, line.split())
            for n, offset in enumerate(offsets):
                assert acknowledged.setdefault(f"{number}-{n}", offset) == offset
            call = max(call, number + 1)
    image = {
        file.name: file.read_bytes() for file in path.parent.glob("events.db*") if file.is_file()
    }
    assert losses(tmp_path / "after", image, acknowledged) == []
    assert len(acknowledged) >= 5 * 3 * 20 - 20 * 5
