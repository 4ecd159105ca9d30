"""What is exported comes back by import as it was, marked: same entries, same order."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from headwater import cli
from headwater.config import Config
from headwater.errors import HeadwaterError, LogError, UnreadableFile
from headwater.ingest import read_interactions, read_items
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Fold, Learner
from headwater.roles import bulk
from headwater.roles.export import What, export
from headwater.types import Entry, Event, Item, ItemRemoval, Rollback, User, UserRemoval
from tests.loop.streams import NOW, events_log, learn_all, small, views

FULL = Event(
    "é\0", "rating", "u,1", 1_700_000_000.123456, "i|1", -0.1, "s", "r", 3, "home", "app",
    {"deep": [{"list": [1, "two", None, 3.5, True]}]}, False, "web", False, ("a|b", "7"),
)  # fmt: skip
EVENTS = [
    FULL,
    Event("late", "view", "anon:x", 1_600_000_000.0, "i", anonymous=True),
    Event("search", "search", "u", 1_700_000_001.0),
    *(Event(f"e{n}", "view", f"u{n % 7}", 1_700_000_002.0 + n, f"i{n}") for n in range(2_500)),
]
ITEM = Item(
    "i1", "Ünï", ("a", "b"), ("t",), 9.99, "long " * 99,
    {"color": "red", "size": 4.0, "new": True, "in": ["x", "y"]}, {"image": [0.1, -2.0]}, 5.0,
    False,
)  # fmt: skip
USER = User("u1", {"plan": "gold", "age": 41.0})
REST: list[Entry] = [
    Item("i1"), ITEM, Item("gone"), Item("back"), ItemRemoval("gone"), ItemRemoval("back"),
    Item("back", "Back"), USER, User("gone"), UserRemoval("gone"), User("u2"),
]  # fmt: skip
NEWEST: dict[What, list[Entry]] = {
    "events": [*EVENTS],
    "items": [ITEM, ItemRemoval("gone"), Item("back", "Back")],
    "users": [USER, User("u2")],
}
IMPORTED: dict[What, list[Entry]] = {
    **NEWEST,
    "events": [msgspec.structs.replace(event, imported=True) for event in EVENTS],
}

FORMATS = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    entries: list[Entry] = [*EVENTS[:10], *REST, *EVENTS[10:]]
    with closing(SqliteEventsLog(folder / "events.db")) as log:
        log.append(entries, 1_800_000_000.0)
    return folder


def content(data: Path) -> list[Entry]:
    with closing(SqliteEventsLog(data / "events.db")) as log:
        return [record.entry for record in log.read(0, 10_000)]


@FORMATS
@pytest.mark.parametrize("what", ["events", "items", "users"])
def test_a_round_trip(what: What, suffix: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / f"all{suffix}"
    seen: list[tuple[int, int]] = []
    written = export(path, data, what, lambda done, total: seen.append((done, total)))
    assert written == len(NEWEST[what]) - (what == "items")
    assert seen[-1][0] == seen[-1][1]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    done = bulk.import_events(path, tmp_path / "copy", Config())
    assert (done.appended, done.skipped) == (len(NEWEST[what]), {})
    assert content(tmp_path / "copy") == IMPORTED[what]
    if what == "events":
        again = bulk.import_events(path, tmp_path / "copy", Config())
        assert (again.appended, again.duplicate) == (0, written)
        export(tmp_path / f"again{suffix}", tmp_path / "copy", what)
        bulk.import_events(tmp_path / f"again{suffix}", tmp_path / "third", Config())
        assert content(tmp_path / "third") == IMPORTED[what]


@FORMATS
def test_what_was_set_aside_hidden_or_removed_does_not_come_back(
    suffix: str, tmp_path: Path
) -> None:
    def view(event_id: str, user: str, **more: Any) -> Event:
        return Event(event_id, "view", user, 1_700_000_000.0, "i1", **more)

    again = view("3", "u1", source="rollback r", imported=True)
    with closing(SqliteEventsLog(tmp_path / "events.db")) as log:
        log.append([view("hidden", "u2"), view("kept", "u1")], NOW)
        log.append([view("aside", "u1"), Rollback("r", 0, 3, 3, "ops", "")], NOW)
        log.append([view("late", "u1"), Rollback("s", 0, 5, 5, "ops", "")], NOW)
        log.append([again, UserRemoval("u2"), view("new", "u2"), ItemRemoval("i1")], NOW)
    for what in ("items", "events"):
        path = tmp_path / f"{what}{suffix}"
        export(path, tmp_path, what)
        bulk.import_events(path, tmp_path / "copy", Config())
    copied = content(tmp_path / "copy")
    assert copied == [
        ItemRemoval("i1"),
        view("kept", "u1", imported=True),
        again,
        view("new", "u2", imported=True),
    ]
    fold = Fold(small(recommend={"catalogue": "all"}))
    fold.batch(events_log(copied).read(0, 9))
    assert not fold.eligible().any()


def test_a_bad_line_is_skipped_and_counted(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    export(path, data, "events")
    lines = path.read_bytes().splitlines()
    lines[0] = b'{"entry": "event"'
    lines[2] = lines[2].replace(b'"user_id":"u"', b'"user_id":""')
    lines[4] = lines[4].replace(b'"event"', b'"story"')
    path.write_bytes(b"\n".join(lines))
    done = bulk.import_events(path, tmp_path / "copy", Config())
    assert done.appended == len(EVENTS) - 3
    assert done.skipped == {
        "line is not a JSON object": 1,
        "user_id is empty": 1,
        "entry must be one of event, item, item_removal, user": 1,
    }
    assert list(done.first_skipped.values()) == [1, 3, 5]


@FORMATS
def test_other_tools_read_it(suffix: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / f"events{suffix}"
    export(path, data, "events")
    frame = pl.read_parquet(path) if suffix == ".parquet" else pl.read_ndjson(path)
    assert frame.height == len(EVENTS)
    assert {"user_id", "item_id", "timestamp", "type"} <= set(frame.columns)
    rows = read_interactions(path)
    assert len(rows) == len(EVENTS) - 1  # a search is of no item
    assert set(rows.type_names) == {"rating", "view"}


@FORMATS
def test_a_replay_reads_no_removed_item(suffix: str, data: Path, tmp_path: Path) -> None:
    export(tmp_path / f"items{suffix}", data, "items")
    rows = read_items(tmp_path / f"items{suffix}")
    assert [item.item_id for item in rows] == ["i1", "back"]
    assert rows.skipped == {"item_id is that of a removed item": 1}


@FORMATS
@pytest.mark.parametrize("what", ["items", "users"])
def test_what_holds_no_events_is_no_stream(
    what: What, suffix: str, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"all{suffix}"
    export(path, data, what)
    with pytest.raises(UnreadableFile, match=f"a file of {what} goes in with .*import --{what}"):
        read_interactions(path)


def test_what_cannot_be_exported_says_so(data: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadwaterError, match=r"\.jsonl.*\.parquet"):
        export(tmp_path / "x.xlsx", data, "events")
    with pytest.raises(HeadwaterError, match="can't be written"):
        export(tmp_path / "nowhere" / "x.jsonl", data, "events")
    with pytest.raises(LogError, match="no events log"):
        export(tmp_path / "x.jsonl", tmp_path / "nothing", "events")
    assert not (tmp_path / "nothing").exists()


def test_the_commands(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.parquet"
    for arguments in (
        ("export", str(path), "--data", str(data), "--what", "items"),
        ("import", str(path), "--data", str(tmp_path / "copy")),
    ):
        monkeypatch.setattr(sys, "argv", ["headwater", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert not caught.value.code
    out = capsys.readouterr().out
    assert "2 items of" in out
    assert "2 items, 1 item removal appended" in out
    assert content(tmp_path / "copy") == NEWEST["items"]


def test_what_the_log_no_longer_holds_comes_from_the_snapshot(tmp_path: Path) -> None:
    config = small(deploy={"snapshots_kept": 1})
    changed: list[Entry] = [Item("i2", "Second"), ItemRemoval("i3"), User("u2", {"plan": "new"})]
    with (
        closing(SqliteEventsLog(tmp_path / "events.db")) as events,
        closing(SqliteUpdatesLog(tmp_path / "updates.db")) as updates,
    ):
        old: list[Entry] = [
            Item("i1", "One"),
            Item("i2", "Two"),
            Item("i3"),
            User("u1"),
            User("u2"),
        ]
        events.append([ItemRemoval("i4"), *old, *views(50)], NOW)
        learner = Learner(config, events, updates, tmp_path / "snapshots")
        learn_all(learner)
        learner.snapshot()
        events.append([*changed, *views(50, start=50)], NOW)
        events.drop(20)
    found: dict[What, list[Entry]] = {}
    for what in NEWEST:
        path = tmp_path / f"{what}.jsonl"
        export(path, tmp_path, what)
        found[what] = [
            msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines()
        ]
    assert found["items"] == [
        *(Item("i1", "One"), ItemRemoval("i4")),
        *(Item("i2", "Second"), ItemRemoval("i3")),
    ]
    assert found["users"] == [User("u1"), User("u2", {"plan": "new"})]
    assert found["events"] == [*views(50), *views(50, start=50)][14:]
    for path in (tmp_path / "snapshots").iterdir():
        path.unlink()
    export(tmp_path / "events.jsonl", tmp_path, "events")
    with pytest.raises(HeadwaterError, match="no snapshot that holds them"):
        export(tmp_path / "items.jsonl", tmp_path, "items")
