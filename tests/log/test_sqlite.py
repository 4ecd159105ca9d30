"""What only the SQLite backend has: files, settings, group commits, failed commits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import LogError
from headwater.log import _append, _database, _ids, _index, sqlite
from headwater.log._append import Submission, commit
from headwater.log._blocks import MOST, parts
from headwater.log._database import connect
from headwater.log._entries import MAX_NESTING
from headwater.log._ids import Ids
from headwater.log._removal import drop
from headwater.log.erasing import scrub
from headwater.log.memory import MemoryEventsLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.types import Appended, DeadLetter, Entry, Event, Item, ItemRemoval, User, UserRemoval


def event(name: str, **fields: object) -> Event:
    return Event(name, "view", "u1", 1000.0, **fields)  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventsLog]:
    with contextlib.closing(SqliteEventsLog(tmp_path / "events.db")) as opened:
        yield opened


@contextlib.contextmanager
def held_up(path: Path) -> Iterator[apsw.Connection]:
    """Holds the write lock, as another process does that is importing."""
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        if other.in_transaction:
            other.execute("ROLLBACK")
        other.close()


class TestFiles:
    def test_folders_are_made(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "events.db"
        SqliteEventsLog(path).close()
        assert path.is_file()

    @pytest.mark.parametrize("kind", [SqliteEventsLog, SqliteUpdatesLog])
    def test_a_file_of_another_kind_is_refused_and_left_as_it_is(
        self, kind: type[SqliteEventsLog] | type[SqliteUpdatesLog], tmp_path: Path
    ) -> None:
        SqliteEventsLog(tmp_path / "events").close()
        SqliteUpdatesLog(tmp_path / "updates").close()
        own = apsw.Connection(str(tmp_path / "own"))
        own.execute("CREATE TABLE notes(text)")
        own.close()
        (tmp_path / "text").write_text("not a database at all " * 100)
        others = {"events", "updates", "own", "text"} - (
            {"events"} if kind is SqliteEventsLog else {"updates"}
        )
        for name in others:
            before = (tmp_path / name).read_bytes()
            with pytest.raises(LogError, match=f"{name}.* log"):
                kind(tmp_path / name)
            assert (tmp_path / name).read_bytes() == before

    def test_a_newer_format_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        SqliteEventsLog(path).close()
        newer = apsw.Connection(str(path))
        newer.pragma("user_version", 6)
        newer.close()
        with pytest.raises(LogError, match=r"format 6.*upgrade"):
            SqliteEventsLog(path)

    def test_an_older_format_is_refused_with_what_to_do(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        with contextlib.closing(apsw.Connection(str(path))) as older:
            older.execute("CREATE TABLE events(offset INTEGER PRIMARY KEY)")
            older.pragma("application_id", sqlite._EVENTS.application_id)
            older.pragma("user_version", 4)
        with pytest.raises(LogError, match=r"events\.db: has format 4.*export.*import"):
            SqliteEventsLog(path)

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(LogError, match=r"file.*data folder"):
            SqliteEventsLog(tmp_path / "file" / "events.db")

    def test_many_may_be_the_first_to_open(self, tmp_path: Path) -> None:
        start = threading.Barrier(8)

        def open_and_append(n: int) -> int:
            start.wait(20)
            with contextlib.closing(SqliteEventsLog(tmp_path / "events.db")) as log:
                return log.append([event(f"e{n}")], 2000.0)[0].offset

        with ThreadPoolExecutor(8) as threads:
            assert sorted(threads.map(open_and_append, range(8))) == list(range(1, 9))

    def test_settings_are_read_back(self, tmp_path: Path) -> None:
        for synchronous, number in (("FULL", 2), ("NORMAL", 1)):
            connection = connect(tmp_path / "x.db", synchronous)  # type: ignore[arg-type]
            assert connection.pragma("journal_mode") == "wal"
            assert connection.pragma("synchronous") == number
            connection.close()
        # An in-memory database keeps its own journal mode, and says nothing.
        with (
            contextlib.closing(apsw.Connection(":memory:")) as connection,
            pytest.raises(LogError, match=r"journal_mode = 'memory'.*local disk"),
        ):
            _database._set(connection, "journal_mode", "WAL", "wal")

    def test_who_only_reads_has_no_writer(self, log: SqliteEventsLog, tmp_path: Path) -> None:
        log.append([event("a")], 2000.0)
        before = threading.active_count()
        with contextlib.closing(SqliteEventsLog(tmp_path / "events.db")) as reader:
            assert len(reader.read(0, 10)) == 1
            assert not reader.wait(1, 0.01)
            assert threading.active_count() == before
            reader.append([event("b")], 2000.0)
            assert threading.active_count() == before + 1
        assert threading.active_count() == before

    def test_reading_a_closed_log_is_an_error_of_ours(self, log: SqliteEventsLog) -> None:
        log.close()
        with pytest.raises(LogError, match="closed"):
            log.read(0, 1)


class TestCommits:
    def test_everything_that_waits_is_committed_at_once(
        self, log: SqliteEventsLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []
        commit = _append.commit

        def counted(
            connection: apsw.Connection, ids: Ids, submissions: list[_append.Submission]
        ) -> Any:
            sizes.append(len(submissions))
            return commit(connection, ids, submissions)

        monkeypatch.setattr("headwater.log.sqlite.commit", counted)
        with held_up(tmp_path / "events.db"):
            futures = [log.submit([event(f"e{n}"), event("same")], 2000.0) for n in range(50)]
        answers = [future.result(20) for future in futures]
        assert [answer[0].offset for answer in answers] == [1, *range(3, 52)]
        assert [answer[1] for answer in answers] == [Appended(2, n > 0) for n in range(50)]
        assert sum(sizes) == 50
        assert len(sizes) <= 2

    def test_a_failed_commit_fails_its_callers_and_no_others(
        self, log: SqliteEventsLog, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.db"
        log.append([event("before")], 2000.0)
        with held_up(path) as other:
            # The next commit holds these three; a trigger makes one of their rows impossible.
            first = log.submit([event("first")], 2000.0)
            together = [log.submit([event(name)], 2000.0) for name in ("good", "poison", "fine")]
            other.execute(
                "CREATE TRIGGER poisoned BEFORE INSERT ON blocks"
                " WHEN instr(NEW.payload, CAST('poison' AS BLOB))"
                " BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END"
            )
            other.execute("COMMIT")
        outcomes = [future.exception(20) for future in (first, *together)]
        failed = [outcome for outcome in outcomes if outcome is not None]
        assert failed == outcomes[-len(failed) :]
        assert len(failed) >= 3
        for outcome in failed:
            assert isinstance(outcome, LogError)
            assert "the disk is on fire" in str(outcome)
            assert "events.db" in str(outcome)
        (after,) = log.append([event("good")], 2000.0)
        assert after == Appended(2 + (outcomes[0] is None), False)

    def test_a_busy_database_is_named_and_the_writer_lives(
        self, log: SqliteEventsLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_database, "BUSY_MILLISECONDS", 30)
        with held_up(tmp_path / "events.db"):
            with pytest.raises(LogError, match=r"nothing was appended.*locked"):
                log.append([event("a")], 2000.0)
            with pytest.raises(LogError, match="locked"):
                log.refuse([DeadLetter(1.0, "", "", "", "")])
        assert log.append([event("a")], 2000.0) == [Appended(1, False)]

    def test_a_waiter_that_gives_up_takes_nothing_back(
        self, log: SqliteEventsLog, tmp_path: Path
    ) -> None:
        with held_up(tmp_path / "events.db"):
            future = log.submit([event("a")], 2000.0)
            assert not future.cancel()
        assert future.result(20) == [Appended(1, False)]

    def test_old_dead_letters_make_place(
        self, log: SqliteEventsLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_append, "DEAD_LETTERS_KEPT", 3)
        for n in range(5):
            log.refuse([DeadLetter(float(n), "", str(n), "", "")])
        assert [letter.body for letter in log.dead_letters(10)] == ["4", "3", "2"]
        assert log.dead_letter_count() == 5


class TestBlocks:
    def test_what_is_committed_together_is_kept_together(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        with contextlib.closing(SqliteEventsLog(path)) as log:
            log.append([event("first")], 2000.0)
            with held_up(path):
                futures = [log.submit([event(f"{n}-{k}") for k in range(3)], n) for n in range(300)]
            for future in futures:
                future.result(20)
        with contextlib.closing(apsw.Connection(str(path))) as connection:
            sizes = [n for (n,) in connection.execute("SELECT n FROM blocks ORDER BY first")]
        assert sum(sizes) == 901
        assert max(sizes) <= MOST
        assert len(sizes) <= 2 + 900 / MOST + 2

    def test_an_event_takes_little_more_than_its_ids(self, tmp_path: Path) -> None:
        with contextlib.closing(SqliteEventsLog(tmp_path / "events.db")) as log:
            empty = log.size()
            log.append([event(f"{n:032x}", item_id=f"i{n}") for n in range(2000)], 2000.0)
            assert log.size() - empty < 2000 * 100

    def test_a_block_without_what_was_blanked_is_all_that_is_left_in_the_file(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.db"
        with contextlib.closing(SqliteEventsLog(path)) as log:
            log.append([event(f"secret-{n}", context={"secret": n}) for n in range(400)], 2000.0)
            kept = [event(f"kept-{n}") for n in range(400)]
            log.append(kept, 2000.0)
            log.blank(range(1, 401))
            assert [record.entry for record in log.read(400, 999)] == kept
        scrub(path)
        assert b"secret" not in path.read_bytes()


class TestIds:
    @pytest.fixture(autouse=True)
    def holding_few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_ids, "HELD", 50)

    def test_those_in_memory_are_bounded_and_the_rest_is_found_in_the_index(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "events.db"
        connection = self._written(path)
        ids = Ids(connection)
        for n in range(100):
            made = parts([event(f"{n}-{k}") for k in range(10)], 2000.0)
            commit(connection, ids, [Submission(made, (), Future())])
            assert len(ids._held) + len(ids._moving) <= 2 * 50 + 10
        indexed = connection.execute("SELECT sum(n) FROM runs").get
        assert indexed >= 1000 - (2 * 50 + 10)
        again = parts([event(f"{n}-{k}") for n in range(100) for k in range(10)], 2000.0)
        for reader in (ids, Ids(connection)):
            answers, _ = commit(connection, reader, [Submission(again, (), Future())])
            assert answers == [[Appended(offset, True) for offset in range(1, 1001)]]
        connection.close()

    def test_ids_that_two_processes_moved_are_found_once(self, tmp_path: Path) -> None:
        connection = self._written(tmp_path / "events.db")
        both = [Ids(connection), Ids(connection)]
        answers = []
        for n in range(60):
            made = parts([event(f"{n}-{k}") for k in range(10)], 2000.0)
            for ids in both:
                ((answer,), _) = commit(connection, ids, [Submission(made, (), Future())])
                answers.append([(place.offset, place.duplicate) for place in answer])
        assert answers[::2] == [[(10 * n + k, False) for k in range(1, 11)] for n in range(60)]
        assert answers[1::2] == [[(10 * n + k, True) for k in range(1, 11)] for n in range(60)]
        assert connection.execute("SELECT sum(n) FROM runs").get > 500
        connection.close()

    def test_dropped_entries_leave_no_ids(self, tmp_path: Path) -> None:
        path = tmp_path / "events.db"
        with contextlib.closing(SqliteEventsLog(path)) as log:
            for n in range(50):
                log.append([event(f"{n}-{k}") for k in range(10)], 2000.0)
            log.drop(490)
        with contextlib.closing(apsw.Connection(str(path))) as connection:
            newest, runs = connection.execute("SELECT min(newest), count(*) FROM runs").get
            assert newest is None or newest > 490 or runs < 256
            rows = connection.execute(
                "SELECT count(*) FROM ids WHERE run NOT IN (SELECT number FROM runs)"
            ).get
            assert rows == 0

    def test_filters_grow_with_what_is_kept_and_not_with_what_was_dropped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_index._Filter, "_LEAST", 16)
        connection = self._written(tmp_path / "events.db")
        ids, kept = Ids(connection), 500

        def add(reader: Ids, n: int) -> list[Appended]:
            """Ten events of the n-th thousand seconds."""
            events = [Event(f"{n}-{k}", "view", "u", 1000.0 * n) for k in range(10)]
            ((answer,), _) = commit(
                connection, reader, [Submission(parts(events, 1e6), (), Future())]
            )
            return answer

        for n in range(400):
            assert add(ids, n) == [Appended(10 * n + k, False) for k in range(1, 11)]
            while drop(connection, 10 * (n + 1) - kept):
                pass
            for reader in (ids, Ids(connection)) if n % 20 == 19 else ():
                answers = add(reader, n - 19)
                assert answers == [Appended(10 * (n - 19) + k, True) for k in range(1, 11)]
                assert reader._index
                bits = sum(8 * len(one._bytes) for one in reader._index._filters)
                assert bits <= 40 * min(10 * (n + 1), kept)
        connection.close()

    def _written(self, path: Path) -> apsw.Connection:
        SqliteEventsLog(path).close()
        return connect(path, "NORMAL")


def test_what_this_process_appended_is_read_as_the_file_has_it(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with contextlib.closing(SqliteEventsLog(path)) as log:
        log.append([Item("i", attributes={"pages": 5}), event("a", context={"n": 1})], 2000.0)
        with contextlib.closing(SqliteEventsLog(path)) as other:
            other.append([event("b"), event("c")], 2000.0)
            log.append([event("d")], 2000.0)
            for after in range(6):
                for limit in (0, 1, 2, 9):
                    assert repr(log.read(after, limit)) == repr(other.read(after, limit))


class TestEntries:
    def test_a_context_that_nests_too_deep_is_refused(self, log: SqliteEventsLog) -> None:
        def nested(levels: int) -> dict[str, object]:
            context: dict[str, object] = {}
            for _ in range(levels - 1):
                context = {"deeper": context}
            return context

        wide = {f"key {n}": [[n]] for n in range(MAX_NESTING * 2)}
        log.append([event("fits", context=nested(MAX_NESTING))], 2000.0)
        log.append([event("wide", context=wide)], 2000.0)
        for levels in (MAX_NESTING + 1, 100_000):
            with pytest.raises(LogError, match=r"entries\[0\]"):
                log.append([event("deep", context=nested(levels))], 2000.0)
        assert len(log.read(0, 10)) == 2

    @pytest.mark.parametrize(
        "bad",
        [
            event("a", context={"key": object()}),
            event("\ud800"),
            event("a", context={"n": 10**5000}),
        ],
        ids=["object", "surrogate", "huge"],
    )
    def test_what_json_cannot_hold_is_refused(self, bad: Event, log: SqliteEventsLog) -> None:
        with pytest.raises(LogError, match=r"entries\[1\]"):
            log.append([event("good"), bad], 2000.0)
        assert log.end() == 0

    def test_an_entry_of_a_newer_version_is_named(
        self, log: SqliteEventsLog, tmp_path: Path
    ) -> None:
        log.append([event("a"), Item("b")], 2000.0)
        newer = apsw.Connection(str(tmp_path / "events.db"))
        newer.execute(
            """UPDATE blocks SET payload = '[[null, {"entry": "dream"}]]' WHERE first = 2"""
        )
        newer.close()
        with contextlib.closing(SqliteEventsLog(tmp_path / "events.db")) as reader:
            assert len(reader.read(0, 1)) == 1
            with pytest.raises(LogError, match=r"offset 2 on can't be read.*dream"):
                reader.read(0, 10)


ids = st.sampled_from(["a", "b", "c", "d", ""])
times = st.integers(0, 50).map(float)
entries = st.one_of(
    st.builds(
        Event,
        event_id=ids,
        type=st.just("view"),
        user_id=ids,
        timestamp=times,
        source=st.sampled_from(["", "a", "web"]),
    ),
    st.builds(Item, item_id=ids),
    st.builds(ItemRemoval, item_id=ids),
    st.builds(User, user_id=ids),
    st.builds(UserRemoval, user_id=ids),
)


@settings(max_examples=40, deadline=None)
@given(calls=st.lists(st.tuples(st.lists(entries, max_size=8), times), max_size=8))
def test_both_backends_give_the_same_answers(
    calls: list[tuple[list[Entry], float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    memory = MemoryEventsLog()
    folder = tmp_path_factory.mktemp("log")
    with contextlib.closing(SqliteEventsLog(folder / "events.db")) as log:
        for batch, received_at in calls:
            assert log.append(batch, received_at) == memory.append(batch, received_at)
        assert log.read(0, 1000) == memory.read(0, 1000)
        assert log.end() == memory.end()
