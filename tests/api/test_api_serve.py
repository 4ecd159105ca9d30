"""The API as a process: its address, its answers, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from headwater.api import Address, running
from headwater.api._admission import MOST
from headwater.log.served import ServedLog
from headwater.log.sqlite import SqliteEventsLog

# A process that serves with the follower of the tests, whose import is quick.
SERVE = """
    import sys, types
    from pathlib import Path
    from time import sleep

    from headwater import api
    from headwater.config import Config, Recommend
    from tests.api.serving import CountingFollower

    loop = types.ModuleType("headwater.loop")
    loop.CanaryFollower = {follower}
    sys.modules["headwater.loop"] = loop
    api.serve(Config(recommend=Recommend(wait_seconds=30.0)), Path(sys.argv[1]), {host!r}, 0)
"""
COUNTING = "lambda config, events, *folders: CountingFollower(events)"
BROKEN = "lambda *_: 1 / 0"


@contextmanager
def process(
    data: Path, follower: str = COUNTING, host: str = "127.0.0.1"
) -> Iterator[subprocess.Popen[str]]:
    code = textwrap.dedent(SERVE).format(follower=follower, host=host)
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def address(data: Path, process: subprocess.Popen[str]) -> Address:
    deadline = time.monotonic() + 30
    while (found := running(data)) is None:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_too_much_is_refused_before_it_is_routed(tmp_path: Path) -> None:
    slow = "lambda config, events, *_: CountingFollower(events, before_answer=lambda _: sleep(0.5))"
    with process(tmp_path, slow) as server, ExitStack() as stack:
        at = address(tmp_path, server)
        with httpx.Client(base_url=at.url) as client:
            until_ready(client)
        clients = [
            stack.enter_context(socket.create_connection((at.host, at.port), 30))
            for _ in range(MOST + 20)
        ]
        for one in clients:
            one.sendall(b"GET /v1/users/u/recommendations HTTP/1.1\r\nHost: h\r\n\r\n")
        answers = [one.recv(65_536) for one in clients]
        refused = [answer for answer in answers if b"are in work already" in answer]
        assert 0 < len(refused) <= 20
        assert all(b"\r\nretry-after: 1\r\n" in answer for answer in refused)
        assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) >= MOST


def test_it_serves_and_stops_in_order(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        at = address(tmp_path, server)
        assert at.pid == server.pid
        written = json.loads((tmp_path / "api.json").read_bytes())
        assert written == {"pid": server.pid, "host": "127.0.0.1", "port": at.port}
        with httpx.Client(base_url=at.url) as client:
            until_ready(client)
            event = {"type": "view", "user_id": "u", "item_id": "a/b", "event_id": "e"}
            sent = client.post("/v1/events", json=[event]).json()
            assert sent["results"] == [{"event_id": "e", "status": "accepted", "offset": 1}]
            shown = client.get("/v1/users/u%2Fv/recommendations?min_offset=1").json()
            assert [item["item_id"] for item in shown["items"]] == ["a/b"]
            # httptools hands the path over undecoded, as the routes need it.
            assert client.put("/v1/items/x%2Fy%3Fz", json={}).json()["item_id"] == "x/y?z"
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=20)
        assert server.returncode == 0, output
        assert running(tmp_path) is None
        assert not (tmp_path / "api.json").exists()
    events = SqliteEventsLog(tmp_path / "events.db")
    assert events.end() == 2
    events.close()
    served = ServedLog(tmp_path / "served.db")
    kept = served.get(shown["recommendation_id"])
    assert kept is not None
    assert kept.user_id == "u/v"
    served.close()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        with httpx.Client(base_url=address(tmp_path, server).url) as client:
            for n in range(20):
                client.post("/v1/events", json={"type": "view", "user_id": 1, "item_id": n})
            server.kill()
        server.wait()
        # The file is still there, but names a process that isn't.
        assert (tmp_path / "api.json").exists()
        assert running(tmp_path) is None
    with (
        process(tmp_path) as server,
        httpx.Client(base_url=address(tmp_path, server).url) as client,
    ):
        until_ready(client)
        status = client.get("/v1/status").json()
        assert (status["end"], status["offset"], status["lag"]) == (20, 20, 0)


def test_a_stop_lets_requests_in_work_finish(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        at = address(tmp_path, server)
        with httpx.Client(base_url=at.url) as client:
            until_ready(client)
        body = b'{"type": "view", "user_id": 1, "item_id": 1}'
        with socket.create_connection((at.host, at.port)) as slow:
            head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            slow.sendall(head.encode() + body[:10])
            time.sleep(0.2)
            server.send_signal(signal.SIGINT)
            time.sleep(0.3)
            with pytest.raises(OSError):  # noqa: PT011
                socket.create_connection((at.host, at.port), timeout=1).close()
            slow.sendall(body[10:])
            answer = slow.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 200")
        server.communicate(timeout=20)
        assert server.returncode == 0


def test_a_follower_that_cannot_start_ends_the_process_with_its_error(tmp_path: Path) -> None:
    with process(tmp_path, follower=BROKEN) as server:
        output, _ = server.communicate(timeout=30)
        assert server.returncode not in (0, None)
        assert "ZeroDivisionError" in output
        assert "the model thread died" in output
        assert not (tmp_path / "api.json").exists()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_an_address_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert Address(1, host, 80).url == url


def test_no_address_where_nothing_serves(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    (tmp_path / "api.json").write_text("{")
    assert running(tmp_path) is None
    (tmp_path / "api.json").write_text(json.dumps({"pid": os.getpid(), "host": "h", "port": 1}))
    assert running(tmp_path) == Address(os.getpid(), "h", 1)
