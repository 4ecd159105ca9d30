"""What a user's list is made from, over HTTP: the JSON, the page, the command."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from headwater.api import _explanation
from headwater.cli import app
from headwater.config import Config, Serve
from headwater.types import Item
from tests.api.serving import Served, is_problem, make, until, view

HOSTILE = "<img src=x onerror=\"document.title='taken over'\">"


@contextmanager
def listening(served: Served) -> Iterator[str]:
    """The application on a port of this machine."""
    server = uvicorn.Server(uvicorn.Config(served.app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        until(lambda: served.engine.ready)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def filled(config: Config | None = None) -> Served:
    served = make(config)
    served.events.append([Item("mug", HOSTILE), view("mug"), view("pot"), view("pot", 1)], 1.0)
    return served


# --- JSON ----------------------------------------------------------------------------------------


def test_an_explanation_is_answered_and_not_kept_as_shown() -> None:
    served = filled()
    with served.client() as client:
        found = client.get("/v1/users/u/explanation?n=1").json()
        assert found["user_id"] == "u"
        assert (found["offset"], found["version"], found["sequence"]) == (4, 1, 7)
        assert {event["item_id"] for event in found["history"]} == {"mug", "pot"}
        assert [item["item_id"] for item in found["items"]] == ["pot"]
        assert client.get("/v1/status").json()["clicks"] == []
        client.get("/v1/users/u/recommendations")
        until(lambda: client.get("/v1/status").json()["clicks"])


def test_it_runs_on_the_model_thread() -> None:
    served = filled()
    with served.client() as client:
        client.get("/v1/users/u/explanation")
        assert len(served.follower.threads) == 1


def test_an_id_may_hold_a_slash_and_n_has_its_limits() -> None:
    with filled().client() as client:
        assert client.get("/v1/users/a%2Fb/explanation").json()["user_id"] == "a/b"
        is_problem(client.get("/v1/users/u/explanation?n=0"), 400, "n")
        is_problem(client.get(f"/v1/users/{'x' * 257}/explanation"), 400, "user_id")


def test_a_model_that_fails_is_said() -> None:
    served = filled()

    def failing(user_id: str, n: int, now: float) -> None:
        raise ZeroDivisionError

    served.follower.explain = failing  # type: ignore[method-assign, assignment]
    with served.client() as client:
        is_problem(client.get("/v1/users/u/explanation"), 500)
        assert client.get("/v1/popular").status_code == 200


# --- the page ------------------------------------------------------------------------------------


def test_the_page_is_the_same_for_everybody_and_asks_nobody_else() -> None:
    locked = Config(serve=Serve(api_key="a-long-enough-key"))
    with filled(locked).client() as client:
        page = client.get("/users/u")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert page.content == client.get("/users/a%2Fb").content
        assert "mug" not in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        is_problem(client.get("/v1/users/u/explanation"), 401, "Authorization")
        for path in ("/users/u/more", "/users", "/users/../v1/status"):
            assert client.get(path).status_code == 401, path


def test_the_page_puts_text_in_as_text() -> None:
    page = _explanation._PAGE.decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def opened(url: str, folder: Path) -> str:
    """The page as a browser has it once its script has run."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
    done = subprocess.run(
        [
            str(CHROMIUM),
            *options,
            f"--user-data-dir={folder}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")
def test_the_page_shows_history_and_list_in_a_browser(tmp_path: Path) -> None:
    with listening(filled()) as url:
        page = opened(f"{url}/users/u", tmp_path)
    assert "<h1>User u</h1>" in page
    assert "The newest 2 of 2 events" in page
    assert "50.0 %" in page
    assert page.count("popularity") >= 2
    assert page.count('class="track"') == 2, "a bar for each event of the history"
    assert page.count('class="track middle"') == 4, "and for each share, and each feature"
    assert page.count('class="bar below"') == page.count("<span>item.log_events</span>") == 2
    assert "<title>Headwater: a user</title>" in page
    assert "<img" not in page
    assert "&lt;img src=x" in page


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")
@pytest.mark.parametrize(("status", "asked"), [(401, True), (403, True), (404, False)])
def test_the_page_asks_for_another_key_where_one_may_not_see_it(
    status: int, asked: bool, tmp_path: Path
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_page = self.path == "/users/u"
            self.send_response(200 if is_page else status)
            self.end_headers()
            self.wfile.write(_explanation._PAGE if is_page else b'{"detail": "it takes admin"}')

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = opened(f"http://127.0.0.1:{server.server_port}/users/u", tmp_path)
        server.shutdown()
    assert ("<form>" in page) is asked
    assert ('<form hidden="">' in page) is not asked
    assert ("it takes admin" in page) is (status != 401)


# --- the command ---------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def test_show_prints_what_the_page_shows() -> None:
    served = filled()
    with listening(served) as url:
        code, said = run("show", "u", "--url", url, "-n", "2")
        assert code == 0, said
        assert "User u: 2 events. Version 1, sequence 7" in said
        assert "<img src=x" in said
        assert "50.0%" in said
        assert re.search(r"1 +pot +2\.000 +popularity +\+1\.00 █+ +item.log_events -0\.50\n", said)
        code, said = run("show", "nobody", "--url", url)
        assert "Nothing is known of this user" in said
        code, said = run("show", "u", "--url", url, "--json")
        assert code == 0
        assert httpx.get(f"{url}/v1/users/u/explanation").json().items() == json_of(said).items()


def json_of(text: str) -> dict[str, object]:
    import json

    found: dict[str, object] = json.loads(text)
    return found


def test_show_says_that_nothing_answers() -> None:
    started = time.monotonic()
    done = CliRunner().invoke(app, ["show", "u", "--url", "http://127.0.0.1:9"])
    assert done.exit_code != 0
    assert "doesn't answer" in str(done.exception)
    assert time.monotonic() - started < 10
