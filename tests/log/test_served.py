"""Served lists, and the clicks that are joined to them in any order."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import msgspec
import pytest

from headwater.errors import LogError
from headwater.log import _joining
from headwater.log import served as module
from headwater.log.served import ServedLog, VersionClicks
from headwater.log.sqlite import SqliteEventsLog
from headwater.types import ServedList


def shown(recommendation_id: str, *items: str, version: int = 1) -> ServedList:
    return ServedList(
        recommendation_id=recommendation_id,
        user_id="u1",
        version=version,
        sequence=7,
        served_at=1000.5,
        items=items or ("a", "b", "c"),
        scores=(0.5, 0.25, -0.125)[: len(items) or 3],
    )


@pytest.fixture(params=["memory", "file"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedLog]:
    path = None if request.param == "memory" else tmp_path / "served.db"
    with contextlib.closing(ServedLog(path, keep=10)) as opened:
        yield opened


def test_a_list_comes_back_as_it_was_served(log: ServedLog) -> None:
    anonymous = ServedList("r2", None, 2, 0, 1.0, (), ())
    log.served([shown("r1"), anonymous])
    log.flush()
    assert log.get("r1") == shown("r1")
    assert log.get("r2") == anonymous
    assert log.get("r3") is None
    assert log.dropped == 0


def test_lists_and_clicked_lists_are_counted_per_version(log: ServedLog) -> None:
    assert log.clicks() == []
    log.served([shown("r1"), shown("r2"), shown("r3", version=2), shown("r4", version=2)])
    log.attribute([("r1", "a", 1), ("r3", "c", 2), ("r4", "b", 3)], through=0)
    log.flush()
    assert log.clicks() == [VersionClicks(1, 2, 1), VersionClicks(2, 2, 2)]


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["list", "click", "wrong"])), ids="-".join
)
def test_the_order_of_arrival_is_of_no_consequence(order: tuple[str, ...], log: ServedLog) -> None:
    for step in order:
        if step == "list":
            log.served([shown("r1")])
        elif step == "click":
            log.attribute([("r1", "b", 5)], through=0)
        else:
            log.attribute([("r1", "z", 4), ("unknown", "a", 6)], through=0)
        log.flush()
    assert log.clicks() == [VersionClicks(1, 1, 1)]


def test_an_item_that_was_not_in_the_list_does_not_count(log: ServedLog) -> None:
    log.attribute([("r1", "z", 1)], through=0)
    log.served([shown("r1")])
    log.attribute([("r1", "y", 2)], through=0)
    log.flush()
    assert log.clicks() == [VersionClicks(1, 1, 0)]


def test_counting_again_changes_nothing(log: ServedLog) -> None:
    for _ in range(3):
        log.attribute([("r1", "a", 1), ("r1", "b", 2), ("r1", "a", 3)], through=0)
        log.served([shown("r1"), shown("r1", "x", version=2)])
        log.flush()
    assert log.clicks() == [VersionClicks(1, 1, 1)]
    assert log.get("r1") == shown("r1")


def test_old_lists_make_place_and_stay_counted(log: ServedLog) -> None:
    log.attribute([("never shown", f"i{n}", n) for n in range(50)], through=0)
    for n in range(25):
        log.served([shown(f"r{n}")])
        log.attribute([(f"r{n}", "a", n)], through=0)
        log.flush()
    assert [log.get(f"r{n}") is not None for n in (0, 14, 15, 24)] == [False, False, True, True]
    assert log.clicks() == [VersionClicks(1, 25, 25)]
    # Refolding the events log finds lists gone; they aren't counted a second time.
    log.attribute([(f"r{n}", "a", n) for n in range(25)], through=0)
    log.flush()
    assert log.clicks() == [VersionClicks(1, 25, 25)]
    early = log._connection.execute("SELECT count(*) FROM early_clicks").get
    assert early <= 10


def test_what_is_counted_of_users_is_what_was_shown_to_them_in_time(log: ServedLog) -> None:
    nobody = msgspec.structs.replace(shown("r4"), user_id=None)
    late = msgspec.structs.replace(shown("r5"), served_at=2000.0)
    log.served([shown("r1"), shown("r2", version=2), shown("r3", version=2), nobody, late])
    log.attribute([("r2", "a", 1)], 2, acts=[("u1", "c", 1000.0, 1001.0)])
    log.flush()
    assert log.clicks_of_users(1000.5, 2000.0) == [
        VersionClicks(1, 1, 0),
        VersionClicks(2, 2, 1, 1),
    ]
    assert log.clicks_of_users(0.0, 1000.5) == []


def test_counting_what_users_clicked_waits_for_nobody_and_nobody_for_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, contextlib.closing(ServedLog(tmp_path / "s.db")) as log:
        log.served([shown("r1")])
        log.flush()
        with log._using:
            counted = pool.submit(log.clicks_of_users, 0.0, 2000.0).result(20)
        assert counted == [VersionClicks(1, 1, 0)]


def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "data" / "served.db"
    with contextlib.closing(ServedLog(path)) as log:
        log.attribute([("r2", "a", 1)], through=0)
        log.served([shown("r1")])
    with contextlib.closing(ServedLog(path)) as log:
        assert log.get("r1") == shown("r1")
        log.served([shown("r2")])
        log.flush()
        assert log.clicks() == [VersionClicks(1, 2, 1)]


def test_a_file_of_the_first_format_is_upgraded_and_keeps_its_counts(tmp_path: Path) -> None:
    path = tmp_path / "served.db"
    first = msgspec.json.encode(shown("r1"))
    with contextlib.closing(apsw.Connection(str(path))) as old:
        old.pragma("journal_mode", "WAL")
        for statement in module._SERVED.statements:
            old.execute(statement)
        old.execute("INSERT INTO lists VALUES(1, 'r1', 0, ?)", (first,))
        old.execute("INSERT INTO totals VALUES(1, 5, 2)")
        old.pragma("application_id", module._SERVED.application_id)
        old.pragma("user_version", 1)
    for _ in range(2):
        with contextlib.closing(ServedLog(path)) as log:
            log.served([shown("r2")])
            log.attribute([("r1", "a", 1)], 1, acts=[("u1", "a", 0.0, 2000.0)])
            log.flush()
            assert log.clicks() == [VersionClicks(1, 6, 3, 1)]
            assert log.get("r1") == shown("r1")


def test_an_act_reads_the_newest_lists_of_its_window_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_joining, "_LISTS_OF_WINDOW", 3)
    with contextlib.closing(ServedLog(None)) as log:
        lists = [shown(f"r{n}", "a" if n < 2 else "b") for n in range(5)]
        log.served([msgspec.structs.replace(one, served_at=n) for n, one in enumerate(lists)])
        log.attribute([], 1, acts=[("u1", "a", 0.0, 10.0)])
        log.flush()
        assert log.clicks() == [VersionClicks(1, 5, 0, 0)]
        log.attribute([], 1, acts=[("u1", "a", 0.0, 2.5)])
        log.flush()
        assert log.clicks() == [VersionClicks(1, 5, 0, 1)]


def test_a_full_queue_drops_the_oldest_and_never_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUEUE_LIMIT", 5)
    with contextlib.closing(ServedLog(None)) as log:
        # The writer can't commit while this holds the connection.
        with log._using:
            log.served([shown("first")])
            wait_until_taken(log)
            log.served([shown(f"r{n}") for n in range(6)])
            log.attribute([("r5", "a", 1)], through=0)
            assert log.dropped == 3
        log.flush()
        found = [log.get(name) is not None for name in ("first", "r2", "r3", "r5")]
        assert found == [True, False, True, True]
        assert log.clicks() == [VersionClicks(1, 4, 1)]


def test_a_write_that_fails_is_counted_and_the_next_one_succeeds(
    log: ServedLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ServedList("bad", "u1", 1, 1, 1.0, (object(),), (0.0,))  # type: ignore[arg-type]
    log.served([shown("r1"), broken])
    log.flush()
    assert log.dropped == 2
    assert "2 entries were not written" in caplog.text
    log.served([shown("r2")])
    log.flush()
    assert log.clicks() == [VersionClicks(1, 1, 0)]
    assert log.get("r1") is None


def test_recording_from_many_threads(log: ServedLog) -> None:
    def client(name: int) -> None:
        for n in range(30):
            log.served([shown(f"{name}-{n}", version=name)])
            log.attribute([(f"{name}-{n}", "b", n)], through=0)

    threads = [threading.Thread(target=client, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    assert log.clicks() == [VersionClicks(name, 30, 30) for name in range(4)]


def test_a_file_of_another_kind_and_a_closed_log_are_refused(tmp_path: Path) -> None:
    SqliteEventsLog(tmp_path / "events.db").close()
    with pytest.raises(LogError, match="is not a log of served lists"):
        ServedLog(tmp_path / "events.db")
    log = ServedLog(tmp_path / "served.db")
    log.close()
    log.close()
    for record in (lambda: log.served([shown("r1")]), log.clicks):
        with pytest.raises(LogError, match="closed"):
            record()


def wait_until_taken(log: ServedLog) -> None:
    """Until the writer holds what was recorded, and the queue is empty."""
    deadline = time.monotonic() + 20
    while log._waiting:
        assert time.monotonic() < deadline
        time.sleep(0.002)
