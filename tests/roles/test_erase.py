"""After an erasure no file holds the user, and the others are as if its entries were blank."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from headwater import cli
from headwater.deploy import Snapshots, state_digest
from headwater.errors import InvalidInput, LogError
from headwater.log.erasing import claim, scrub
from headwater.log.memory import MemoryUpdatesLog
from headwater.log.served import ServedLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Follower, Learner
from headwater.roles.erase import Erased, _names, erase
from headwater.types import (
    Appended,
    Blank,
    DeadLetter,
    Entry,
    Event,
    Item,
    Request,
    ServedList,
    User,
    UserRemoval,
)
from tests.loop.streams import NOW, events_log, learn_all, small, views

GONE = "jürgen.müller-1@example.org"
CONFIG = small(deploy={"snapshot_events": 200, "snapshots_kept": 2}, train={"pace": "load"})
IN_FULL = small(deploy={"snapshot_events": 200, "snapshots_kept": 2}, train={"pace": "full"})


def entries(n: int = 700) -> list[Entry]:
    """A stream in which every fifth event, and more, is of the user to be erased."""
    stream: list[Entry] = [
        Item("i1", "One"),
        User(GONE, {"email": GONE}),
        User("u1", {"age": 41.0}),
    ]
    for k, event in enumerate(views(n)):
        assert isinstance(event, Event)
        of_user = {"user_id": GONE, "event_id": f"{GONE} {k}", "context": {"mail": GONE}}
        stream.append(msgspec.structs.replace(event, **of_user) if k % 5 == 2 else event)
    return [*stream[:300], UserRemoval(GONE), *stream[300:], UserRemoval("u2")]


def places(stream: list[Entry]) -> list[int]:
    return [k for k, entry in enumerate(stream, 1) if getattr(entry, "user_id", "") == GONE]


def letter(body: str, reason: str = "is missing") -> DeadLetter:
    return DeadLetter(NOW, "/v1/events", body, "item_id", reason)


LETTERS = [
    letter(json.dumps({"type": "view", "user_id": GONE})),
    letter(json.dumps({"type": "view", "user_id": GONE}, ensure_ascii=False)),
    letter(f'{{"type": "view", "anonymous_id": "{GONE}"'),
    letter('{"type": "view"}', f"{GONE} is not known"),
    letter('{"type": "view", "user_id": "u1"}'),
]


@contextmanager
def logs(data: Path) -> Iterator[tuple[SqliteEventsLog, SqliteUpdatesLog]]:
    with ExitStack() as stack:
        yield (
            stack.enter_context(closing(SqliteEventsLog(data / "events.db"))),
            stack.enter_context(closing(SqliteUpdatesLog(data / "updates.db"))),
        )


def lived(data: Path, drop: int = 0) -> Path:
    """A data folder as a system leaves it that has served, and learned all."""
    with logs(data) as (events, updates):
        events.append(entries(), NOW)
        events.refuse(LETTERS)
        learner = Learner(CONFIG, events, updates, data / "snapshots")
        learn_all(learner)
        learner.snapshot()
        learner.snapshot()
        events.drop(drop)
    with closing(ServedLog(data / "served.db")) as served:
        served.served(
            [
                ServedList(f"r{n}", GONE if n % 2 else "u1", 1, 1, NOW, ("i1",), (1.0,))
                for n in range(40)
            ]
        )
        served.attribute([("r1", "i1", 5), ("lost", "i1", 5)], 5)
    return data


def holding(data: Path, text: str) -> list[str]:
    """Files that hold the text, however it is escaped or where it only begins to be overwritten."""
    forms = {text.encode(), json.dumps(text)[1:-1].encode(), text.encode("utf-16-le")}
    return sorted(
        path.name
        for path in data.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in forms)
    )


def test_no_file_holds_the_user_any_more(tmp_path: Path) -> None:
    data = lived(tmp_path / "data")
    assert {"events.db", "served.db"} <= set(holding(data, GONE))
    assert len([name for name in holding(data, GONE) if name.startswith("snapshot")]) == 2
    erased = erase([GONE], data, CONFIG)
    assert holding(data, GONE) == []
    assert holding(data, "müller") == holding(data, "example.org") == []
    assert (erased.entries, erased.lists, erased.start) == (len(places(entries())), 20, 0)
    assert erased.unnamed == ()
    assert not list(data.glob("*-wal"))
    assert erased.letters == 4
    with logs(data) as (events, _):
        assert [letter.body for letter in events.dead_letters(9)] == [LETTERS[4].body]
    with closing(ServedLog(data / "served.db")) as served:
        assert [served.get("r0"), served.get("r1")] != [None, None] == [served.get("r3")] * 2
        assert [(row.served, row.by_id) for row in served.clicks()] == [(40, 1)]


def test_the_others_are_as_in_a_log_where_those_events_are_blank(tmp_path: Path) -> None:
    data = lived(tmp_path / "data")
    seen: list[tuple[str, int, int]] = []
    erased = erase([GONE, "nobody"], data, CONFIG, lambda *done: seen.append(done))
    stream = entries()
    blank = events_log(stream)
    blank.blank(places(stream))
    expected = Learner(IN_FULL, blank, MemoryUpdatesLog(), None)
    learn_all(expected)
    with logs(data) as (events, updates):
        assert [record.entry for record in events.read(0, 9999)] == [
            Blank() if k in places(stream) else entry for k, entry in enumerate(stream, 1)
        ]
        learner = Learner(CONFIG, events, updates, data / "snapshots")
        assert (learner.epoch, erased.epoch, erased.trained_through) == (2, 2, len(stream))
        assert erased.unnamed == ("nobody",)
        assert learner.digest() == expected.digest()
        follower = Follower(CONFIG, events, updates, data / "snapshots")
        follower.catch_up()
        assert follower.explain(GONE, 5, NOW).events == 0
        assert follower.recommend([Request(5, "u1")], NOW)[0].items
        # An event that is sent again is still known, and a new one of the same user is new.
        answers = events.append([stream[5], stream[6], Event("new", "view", GONE, NOW, "i1")], NOW)
        assert answers[:2] == [Appended(6, True), Appended(7, True)]
        assert answers[2].offset == len(stream) + 1
    assert {doing for doing, _, _ in seen} >= {"searching the events log", "learning again"}
    assert all(done <= total for _, done, total in seen)


def test_where_the_head_is_gone_the_user_is_taken_out_of_the_state(tmp_path: Path) -> None:
    data = lived(tmp_path / "data", drop=400)
    newest = Snapshots(data / "snapshots", 1).newest()
    assert newest is not None
    before = newest[0]
    erased = erase([GONE], data, CONFIG)
    assert (erased.start, erased.epoch) == (400, 2)
    assert holding(data, GONE) == []
    with logs(data) as (events, updates):
        learner = Learner(CONFIG, events, updates, data / "snapshots")
        state = learner.state()
        of_users = "model.precedents."  # the only part of the model with a place for each user
        learned = [n for n in state if n.startswith("model.") and not n.startswith(of_users)]
        assert state_digest({name: state[name] for name in learned}) == state_digest(
            {name: before[name] for name in learned}
        )
        counts = before["preprocess.histories.counts"].copy()
        assert counts[0] > 0  # the first user that the log named
        counts[0] = 0
        follower = Follower(CONFIG, events, updates, data / "snapshots")
        follower.catch_up()
        assert follower.explain(GONE, 5, NOW).events == 0
        assert np.array_equal(follower.fold.state()["preprocess.histories.counts"], counts)
        assert follower.directory.user("u1") == User("u1", {"age": 41.0})
        events.append([Event("new", "view", GONE, NOW, "i1")], NOW)
        follower.catch_up()
        assert follower.explain(GONE, 5, NOW).events == 1
    assert len(Snapshots(data / "snapshots", 9).paths()) == 1


@pytest.mark.parametrize(
    ("user_id", "named"),
    [("u1", False), ("u12", True), ("2", False), ("5", True), ("anon:dev", True), ("dev", True)],
)
def test_letters_hold_an_id_as_a_word_of_its_own(user_id: str, named: bool) -> None:
    body = '{"user_id": "u12", "value": 5, "anonymous_id": "dev"}'
    assert _names(letter(body), [user_id]) is named


@pytest.mark.parametrize("empty", ["", "anon:"])
def test_an_empty_id_erases_nothing(tmp_path: Path, empty: str) -> None:
    with logs(tmp_path / "data") as (events, _):
        events.refuse(LETTERS)
    with pytest.raises(InvalidInput, match=r"^user_id is empty$"):
        erase([GONE, empty], tmp_path / "data", CONFIG)
    with logs(tmp_path / "data") as (events, _):
        assert len(events.dead_letters(9)) == len(LETTERS)


def test_an_erasure_that_was_interrupted_is_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lived(tmp_path / "data")
    monkeypatch.setattr("headwater.loop.Learner.step", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        erase([GONE], data, CONFIG)
    monkeypatch.undo()
    assert holding(data, GONE) == []
    again = erase([GONE], data, CONFIG)
    assert (again.entries, again.lists, again.trained_through) == (0, 0, len(entries()))
    assert erase([GONE], data, CONFIG) == again


def test_nothing_is_erased_under_a_running_system(tmp_path: Path) -> None:
    data = lived(tmp_path / "data")
    with logs(data) as (events, _):
        assert events.end()
        with pytest.raises(LogError, match=r"events\.db: can't .*stop every process that uses it"):
            erase([GONE], data, CONFIG)
        assert events.read(4, 1)[0].entry != Blank()
        with pytest.raises(LogError):
            scrub(data / "events.db")
    claim(data / "events.db")
    with pytest.raises(LogError, match="no events log"):
        erase([GONE], tmp_path / "nowhere", CONFIG)
    assert not (tmp_path / "nowhere").exists()


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Erased(1200, 3, 4, start=5000, trained_through=9000, epoch=2, unnamed=("b",))
    monkeypatch.setattr("headwater.roles.erase.erase", lambda *_: done)
    monkeypatch.setattr("headwater.roles.logs.configure", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["headwater", "erase", "a", "b", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    out = capsys.readouterr().out
    assert "1,200 entries blanked, 3 dead letters and 4 served lists deleted" in out
    assert "through offset 5,000" in out
    assert "no entry of the log names b: is it written as in the events?" in out
