"""Alerts by HTTP: delivered as JSON, and never waited for."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from structlog.testing import capture_logs

from headwater.roles._webhook import WAITING, Webhook


def test_an_address_that_is_a_secret_is_in_no_log() -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refusing) as server, capture_logs() as logged:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for port in (server.server_port, 1):  # one answers, nobody listens on the other
            Webhook(f"http://127.0.0.1:{port}/the-secret").send("guard tripped", {})
        deadline = time.monotonic() + 30
        while len(logged) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        server.shutdown()
    assert {one["event"] for one in logged} == {"an alert wasn't delivered"}
    assert "answered 404" in [one["reason"] for one in logged]
    assert "the-secret" not in repr(logged)


def test_an_alert_arrives_and_nobody_waits_for_a_listener_that_hangs() -> None:
    got: list[dict[str, Any]] = []
    going_on = threading.Event()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            going_on.wait(30)
            self.send_response(500 if len(got) == 1 else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        webhook = Webhook(f"http://127.0.0.1:{server.server_port}/alerts")
        started = time.monotonic()
        for through in range(2 * WAITING):
            webhook.send("guard tripped", {"guard": "loss", "through": through})
        assert time.monotonic() - started < 5.0
        going_on.set()
        deadline = time.monotonic() + 120
        while len(got) < WAITING and time.monotonic() < deadline:
            time.sleep(0.01)
        server.shutdown()
    assert WAITING <= len(got) <= WAITING + 1, "what didn't find room was dropped"
    assert [alert["through"] for alert in got] == list(range(len(got)))
    assert (got[0]["alert"], got[0]["guard"]) == ("guard tripped", "loss")
    assert abs(got[0]["at"] - time.time()) < 60
