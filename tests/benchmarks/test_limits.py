"""The real-time benchmark's rows of ingest and memory: that they count what they say."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import apsw
import numpy as np
import pytest

from benchmarks.realtime.ingesting import ARRAY, arrays, in_file, in_sqlite
from benchmarks.realtime.memory import NOW, Stream, rows
from benchmarks.realtime.world import World
from headwater.types import Event


def test_arrays_are_of_events_that_nobody_sent_before() -> None:
    sent = arrays(World(1_000, 1_000), 5, 0) + arrays(World(1_000, 1_000), 5, 1)
    assert {len(array) for array in sent} == {ARRAY}
    assert len({event["event_id"] for array in sent for event in array}) == 10 * ARRAY


@pytest.mark.parametrize("together", [1, 3])
def test_bare_sqlite_holds_every_array_that_is_counted(tmp_path: Path, together: int) -> None:
    path = tmp_path / "bare.db"
    assert in_sqlite(path, arrays(World(1_000, 1_000), 5, 0), together, 60.0) > 0.0
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT count(*) FROM events").get == 5 * ARRAY
    connection.close()


def test_the_bare_file_holds_every_array_that_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    assert in_file(path, arrays(World(1_000, 1_000), 5, 0), 60.0) > 0.0
    assert path.read_bytes().count(b'"event_id"') == 5 * ARRAY


def test_a_made_up_log_gives_each_event_once() -> None:
    log = Stream(iter([(n, n) for n in range(10)]))
    log.newest = 7
    read = log.read(0, 4) + log.read(4, 4)
    assert [record.offset for record in read] == list(range(1, 8))
    users = [r.entry.user_id for r in read if isinstance(r.entry, Event)]
    assert users == [f"user-{n}" for n in range(7)]
    assert read[-1].stream_time == NOW + 7
    log.newest = 8
    assert [record.offset for record in log.read(7, 4)] == [8]
    assert list(islice(log.pairs, 1)) == [(8, 8)]


def test_bytes_per_row_are_of_the_arrays_with_so_many_rows() -> None:
    state: dict[str, np.ndarray] = {
        "of users": np.zeros((7, 50), np.int32),
        "of users too": np.zeros(7, np.uint8),
        "of items": np.zeros((11, 4)),
        "a number": np.array(7),
    }
    assert rows(state, 7) == 201.0
    assert rows(state, 11) == 32.0
