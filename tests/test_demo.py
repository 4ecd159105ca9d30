"""The demo: its parts beside a server that is easy to see through, and as a newcomer runs it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest
from rich.console import Console

from headwater import data
from headwater.demo import _finale, _stream
from headwater.demo._finale import follow_one_event, pick
from headwater.demo._ratings import Ratings
from headwater.demo._server import Server
from headwater.demo._stream import Stream, ndcg
from headwater.demo._view import line, shown, summary, view

TITLES = {name: f"Film {name.upper()}" for name in "abcdefghij"}


def made(*rows: tuple[int, str]) -> Ratings:
    return Ratings(
        rows=[(user, item, 8, 1_000_000 + k) for k, (user, item) in enumerate(rows)],
        titles=TITLES,
        items_file=Path("items.parquet"),
    )


class Serving:
    """A server that learns some events with every look at its status."""

    def __init__(self, per_look: int = 60, start: int = 40) -> None:
        self.end = self.trained_through = start
        self.sent: list[dict[str, Any]] = []
        self.most_waiting = 0
        self._per_look = per_look

    def status(self) -> dict[str, Any]:
        self.trained_through = min(self.end, self.trained_through + self._per_look)
        return {
            "end": self.end,
            "trained_through": self.trained_through,
            "version": 1,
            "sequence": self.trained_through // 10,
        }

    def metrics(self) -> list[dict[str, Any]]:
        values = {"mixture.ndcg@10": {"value": 0.25}, "popularity.ndcg@10": {"value": 0.2}}
        values["mixture.mrr@10"] = {"value": 0.9}
        return [{"segment": "history:0", "values": {}}, {"segment": "all", "values": values}]

    def send(self, events: list[dict[str, Any]]) -> int:
        self.sent += events
        self.end += len(events)
        self.most_waiting = max(self.most_waiting, self.end - self.trained_through)
        return self.end

    def recommend(self, user: str, n: int = 10) -> dict[str, Any]:
        mine = [event["item_id"] for event in self.sent if event["user_id"] == user]
        order = sorted(set(TITLES) - set(mine), key=lambda item: (item != "j") if mine else item)
        return {
            "items": [
                {
                    "item_id": item,
                    "title": TITLES[item],
                    "reasons": [
                        {"expert": "popularity", "contribution": 0.4},
                        {"expert": "transitions", "contribution": 1.26, "because_of": "a"},
                        {"expert": "sequence", "contribution": -0.01},
                    ],
                }
                for item in order[:3]
            ]
        }


def served(server: Serving) -> Server:
    return cast(Server, server)


def plain() -> Console:
    return Console(record=True, width=100, file=io.StringIO())


# --- the stream ----------------------------------------------------------------------------------


def test_streams_in_order_with_a_bounded_number_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "POLL_SECONDS", 0.0)
    ratings = made(*((k % 7, "abcdefghij"[k % 10]) for k in range(1234)))
    server = Serving()
    stream = Stream(served(server), ratings)
    stream.run(60.0)
    assert [event["event_id"] for event in server.sent] == [f"rating-{k}" for k in range(1234)]
    assert server.sent[0]["user_id"] == "0"
    assert stream.progress.acknowledged == stream.progress.learned == 1234
    assert len(stream.progress.delays) == 13, "one for each array of a hundred"
    assert server.most_waiting <= _stream.MOST_WAITING + _stream.ARRAY
    assert stream.progress.ndcg == {"mixture": 0.25, "popularity": 0.2}


def test_a_slow_trainer_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "POLL_SECONDS", 0.001)
    server = Serving(per_look=1)
    stream = Stream(served(server), made(*((1, "a") for _ in range(5000))))
    stream.run(0.3)
    assert 0 < stream.progress.acknowledged < 5000
    assert server.most_waiting <= _stream.FEWEST_WAITING + _stream.ARRAY


def test_a_fast_trainer_is_kept_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may wait grows with the speed, to a third of a second's work."""
    monkeypatch.setattr(_stream, "POLL_SECONDS", 0.01)
    server = Serving(per_look=30)
    stream = Stream(served(server), made(*((1, "a") for _ in range(9000))))
    stream.run(2.0)
    assert stream.progress.speed > 1_000
    assert server.most_waiting > _stream.FEWEST_WAITING + _stream.ARRAY


def test_ends_by_time_and_by_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "DRAIN_SECONDS", 0.1)
    never = Serving(per_look=0)
    started = time.monotonic()
    Stream(served(never), made(*((1, "a") for _ in range(5000)))).run(0.2)
    assert time.monotonic() - started < 2.0
    limited = Serving()
    stream = Stream(served(limited), made(*((1, "a") for _ in range(5000))), limit=150)
    stream.run(60.0)
    assert len(limited.sent) == stream.progress.total == 150


def test_metrics_of_nothing_are_none() -> None:
    assert ndcg([]) == {}


# --- what is shown -------------------------------------------------------------------------------


@pytest.fixture
def streamed() -> Stream:
    stream = Stream(served(Serving()), made(*((1, "a") for _ in range(300))))
    stream.run(60.0)
    return stream


def test_the_live_view_and_the_line_say_the_same(streamed: Stream) -> None:
    console = plain()
    console.print(view(streamed.progress))
    live, text = console.export_text(), line(streamed.progress)
    for part in ("300", "mixture", "0.250", "popularity", "0.200", "p99"):
        assert part in live
        assert part in text
    summary(console, streamed.progress)
    assert "300 of 300 ratings" in console.export_text()


def test_a_view_of_nothing_can_be_drawn() -> None:
    stream = Stream(served(Serving()), made((1, "a")))
    console = plain()
    console.print(view(stream.progress))
    console.print(line(stream.progress))
    summary(console, stream.progress)
    assert "0 of 1 ratings" in console.export_text()


def test_without_a_terminal_a_line_comes_now_and_then(
    streamed: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("headwater.demo._view.time.monotonic", lambda: now)
    console = plain()
    with shown(console, streamed.progress) as refresh:
        for _ in range(100):
            now += 0.11
            refresh()
    assert len(console.export_text().strip().split("acknowledged, ")) - 1 == 2


# --- one event -----------------------------------------------------------------------------------


def followers(times: int) -> list[tuple[int, str]]:
    """So many users who rate ``a`` and then ``b``, and one with some history of other films."""
    pairs = [(user, item) for user in range(times) for item in "ab"]
    return [*pairs, *((900, item) for item in "cdefghij"), (901, "a"), (902, "c")]


def test_picks_a_film_that_another_follows_and_a_user_new_to_both() -> None:
    ratings = made(*followers(6))
    assert ratings.connected(len(ratings)) == [("a", "b")]
    assert pick(ratings, len(ratings)) == ("900", "a")
    assert ratings.history("900", len(ratings)) == list("cdefghij")


def test_too_little_history_to_pick_is_said() -> None:
    ratings = made(*followers(2))
    assert pick(ratings, len(ratings)) is None
    console = plain()
    follow_one_event(console, served(Serving()), ratings, len(ratings))
    assert "Too few ratings" in console.export_text()


def test_one_event_is_followed_to_the_changed_list_and_into_the_model() -> None:
    ratings = made(*followers(6))
    console = plain()
    server = Serving(per_look=1)
    follow_one_event(console, served(server), ratings, len(ratings))
    text = " ".join(console.export_text().split())
    [event] = server.sent
    assert (event["user_id"], event["item_id"]) == ("900", "a")
    assert event["timestamp"] > ratings.rows[-1][3]
    assert "Now this user rates Film A" in text
    assert "1 new Film J" in text
    assert "gone: Film A" in text
    assert "transitions +1.3 (Film A); popularity +0.4" in text
    assert "sequence" not in text, "a share of zero isn't shown"
    assert "the model had learned the event" in text


def test_a_list_that_does_not_change_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_finale, "WAIT_SECONDS", 0.1)
    server = Serving()
    monkeypatch.setattr(server, "recommend", lambda user, n=10: {"items": []})
    followed = _finale.follow(served(server), "900", {"user_id": "900", "item_id": "a"})
    assert followed.changed_ms is None
    assert followed.learned_ms is not None


# --- the shipped ratings -------------------------------------------------------------------------


def test_the_shipped_ratings_hold_what_the_end_needs() -> None:
    ratings = Ratings.read(data.path("movietweetings-100k"))
    assert len(ratings) == 100_000
    for n in (10_000, 30_000, 60_000):
        picked = pick(ratings, n)
        assert picked is not None
        user, film = picked
        assert film in ratings.titles
        assert 8 <= len(ratings.history(user, n)) <= 40


# --- as a newcomer runs it -----------------------------------------------------------------------

DEMO = """
import signal, sys
from rich.console import Console
from headwater import demo
signal.signal(signal.SIGINT, signal.default_int_handler)
demo.run(Console(width=120), keep=True, seconds=20.0, limit=9_000)
"""


def started(out: Path, temporary: Path) -> subprocess.Popen[bytes]:
    with out.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-u", "-c", DEMO],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            # A key of the user's own must not lock the demo out.
            env={
                **os.environ,
                "TMPDIR": str(temporary),
                "HEADWATER_SERVE__API_KEY": "the-key-of-another-server",
            },
        )


def until(condition: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_the_whole_demo_kept_until_ctrl_c(tmp_path: Path) -> None:
    out = tmp_path / "out"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = started(out, temporary)
    try:
        until(lambda: "until Ctrl-C" in out.read_text() or process.poll() is not None, 150)
        text = out.read_text()
        assert process.poll() is None, text
        until(lambda: "serve.log" in out.read_text(), 30)
        text = out.read_text()
        assert "the list before" in text
        assert "the list after" in text
        assert "new  " in text
        assert "NDCG@10 of the newest predictions" in text
        [url] = {word for word in text.split() if word.endswith("/docs")}
        assert httpx.get(url, timeout=10).status_code == 200
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 3, "a supervisor and two roles"
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0, out.read_text()
        assert "Done after" in out.read_text()
        assert all(gone(child) for child in children)
        assert list(temporary.glob("headwater-demo-*")) == []
    finally:
        process.kill()
        process.wait()


def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    process = started(tmp_path / "out", tmp_path)
    try:
        until(lambda: len(psutil.Process(process.pid).children(recursive=True)) == 3, 120)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    until(lambda: all(gone(child) for child in children), 60)
