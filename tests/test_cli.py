"""The command line as a user meets it: real processes for what starts, quits or prints."""

from __future__ import annotations

import getpass
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

import headwater
from headwater import cli, config
from headwater.deploy import VERSIONS, Snapshots, Versions
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.roles import _folder, bulk, versions
from headwater.types import (
    DeadLetter,
    Event,
    Lineage,
    Metric,
    Promotion,
    Resume,
    Rollback,
    User,
    Version,
)

STATUS = {
    "role": "api",
    "software": "9.9.9",
    "uptime_seconds": 12.3,
    "ready": True,
    "version": 2,
    "epoch": 3,
    "sequence": 4567,
    "start": 400,
    "end": 1000,
    "offset": 1000,
    "lag": 0,
    "trained_through": 900,
    "training_lag": 100,
    "lag_seconds": 0.0,
    "training_lag_seconds": 3.2,
    "dead_letters": 5,
    "clicks": [
        {
            "version": 2,
            "served": 40,
            "clicked": 10,
            "by_id": 8,
            "by_window": 2,
            "rate": {"value": 0.25, "n": 40},
        },
    ],
    "trainer": {
        "events_per_second": 812.5,
        "rates": {"sequence": 1.5},
        "cleaned": {"duplicate": 1_200, "burst": 0, "hammered": 7},
    },
}
METRICS = [
    {
        "window": window,
        "segment": segment,
        "values": {
            "mixture.ndcg@10": {"value": value, "low": 0.2, "high": 0.22, "n": 9},
            "mixture.mrr@10": {"value": 0.77, "low": 0.2, "high": 0.22, "n": 9},
        },
    }
    for window, segment, value in (
        ("newest", "all", 0.21),
        ("newest", "history:0", 0.123),
        ("before", "all", 0.205),
    )
]


def headwater_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headwater.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of ``headwater ARGUMENTS`` run in this process."""
    monkeypatch.setattr(sys, "argv", ["headwater", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    code = caught.value.code
    assert code is None or isinstance(code, int)
    return code or 0


class Answering(BaseHTTPRequestHandler):
    """Answers as an API with a key does."""

    key: ClassVar[str] = "the-key-of-the-server"
    bodies: ClassVar[dict[str, bytes]] = {
        "/v1/status": json.dumps(STATUS).encode(),
        "/v1/metrics": json.dumps({"trained_through": 900, "metrics": METRICS}).encode(),
    }

    def do_GET(self) -> None:
        code = 200
        if self.path not in self.bodies:
            code = 404
        elif self.headers["Authorization"] != f"Bearer {self.key}":
            code = 401
        self.send_response(code)
        self.end_headers()
        if code == 200:
            self.wfile.write(self.bodies[self.path])

    def log_message(self, *_arguments: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HEADWATER_SERVE__API_KEY", Answering.key)
    with HTTPServer(("127.0.0.1", 0), Answering) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


# --- the root ------------------------------------------------------------------------------------


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"headwater {headwater.__version__}\n"


def test_help_is_light() -> None:
    """Nobody waits for torch to read the help."""
    code = (
        "import sys; from headwater import cli; sys.argv = ['headwater', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'numba', 'polars', 'litestar', 'pydantic'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_what_headwater_raises_is_one_line_and_exit_2(tmp_path: Path) -> None:
    done = headwater_command("config", "--config", "absent.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "absent.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_markup_in_a_message_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "config", "--config", "[red]absent[/red].toml") == 2
    assert "[red]absent[/red].toml" in capsys.readouterr().err


def test_no_command_reads_text_as_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = "[/b] [red] :cat:"
    with closing(SqliteEventsLog(tmp_path / "data" / "events.db")) as log:
        log.append(
            [
                Resume("ops", text),
                Rollback("r", 1, 1, 1, "ops", text),
                Promotion("p", 1, {text: text}, "ops", text),
            ],
            2e9,
        )
        log.refuse([DeadLetter(1e9, "/v1/items", "{}", text, text)])
    Path("headwater.toml").write_text(f'[events."{text}"]\nweight = 1.0\n')
    for arguments in (
        ("challenger", "add", "--set", "sequence.layers=3"),
        ("challenger", "retire", "1", "--why", text),
        ("key", "create", "--role", "serve", "--name", text),
    ):
        assert run(monkeypatch, *arguments, "--data", "data") == 0
    capsys.readouterr()
    for command, shown in {
        "dead-letters": 2,
        "versions": 5,
        "challenger list": 1,
        "key list": 1,
        "config": 4,
    }.items():
        assert run(monkeypatch, *command.split(), "--data", "data") == 0
        assert capsys.readouterr().out.count(text) == shown, command


def test_every_command_prints_by_the_console_that_reads_no_markup() -> None:
    package = Path(cli.__file__).parents[1]
    making = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\bConsole\(", path.read_text())
    }
    # The demo prints its own words alone, and formats them.
    assert making == {"cli/_options.py", "cli/_showing.py"}


# --- settings ------------------------------------------------------------------------------------


def test_init_writes_a_file_that_sets_nothing_and_never_overwrites(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "init") == 0
    written = (tmp_path / "headwater.toml").read_text()
    assert "batch_events" in written
    assert config.load(tmp_path / "headwater.toml") == config.Config()
    (tmp_path / "headwater.toml").write_text("seed = 7\n")
    assert run(monkeypatch, "init") == 2
    assert "headwater.toml exists already" in capsys.readouterr().err
    assert (tmp_path / "headwater.toml").read_text() == "seed = 7\n"
    assert run(monkeypatch, "init", "other.toml") == 0
    assert tomllib.loads((tmp_path / "other.toml").read_text()) is not None


def test_init_into_a_folder_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "init", "no/such/folder.toml") == 2
    assert "no/such/folder.toml can't be written: No such file" in capsys.readouterr().err


def test_config_shows_what_is_in_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "headwater.toml").write_text("[train]\nbatch_events = 17\n")
    monkeypatch.setenv("HEADWATER_SEED", "5")
    monkeypatch.setenv("HEADWATER_SERVE__API_KEY", "a-secret-of-sixteen")
    assert run(monkeypatch, "config", "--json") == 0
    out = capsys.readouterr().out
    values = json.loads(out)
    assert (values["seed"], values["train"]["batch_events"]) == (5, 17)
    assert run(monkeypatch, "config") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train.batch_events", "17"] in lines
    assert ["recommend.repeats", "not", "set"] in lines
    assert "a-secret-of-sixteen" not in out + str(lines)


def test_config_shows_what_promotions_brought(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headwater.toml").write_text("[sequence]\nlayers = 3\n")
    folder = tmp_path / "folder" / "snapshots"
    folder.mkdir(parents=True)
    lineage = Lineage({"sequence.layers": 2}, 7, 1)
    Versions(folder / VERSIONS).add(Version(1, 1, "gone", "live", lineage=lineage))
    assert run(monkeypatch, "config", "--data", "folder", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sequence"]["layers"] == 2
    assert run(monkeypatch, "config", "--data", "folder") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["sequence.layers", "2", "(by", "a", "promotion)"] in lines
    assert run(monkeypatch, "config", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sequence"]["layers"] == 3


# --- import --------------------------------------------------------------------------------------

EVENTS = """who,what,when,event
ann,film-1,2024-01-01T10:00:00Z,view
bob,film-2,2024-01-01T10:00:01Z,purchase
,film-3,2024-01-01T10:00:02Z,view
cid,film-3,2024-01-01T10:00:03Z,hug
"""

MAPPED = ("--map", "user_id=who", "--map", "item_id=what", "--map", "timestamp=when")


def log_of(data: Path) -> list[Any]:
    with closing(SqliteEventsLog(data / "events.db")) as log:
        return [record.entry for record in log.read(0, 100)]


def test_import_appends_once_and_says_what_became_of_the_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "events.csv").write_text(EVENTS)
    assert run(monkeypatch, "import", "events.csv", "--data", "data", *MAPPED) == 0
    out = capsys.readouterr().out
    assert "3 events appended to data" in out
    assert "1 row skipped: user_id is missing (row 3)" in out
    assert "warning: event type hug is unknown" in out
    found = [(event.user_id, event.item_id, event.type) for event in log_of(tmp_path / "data")]
    assert found == [
        ("ann", "film-1", "view"),
        ("bob", "film-2", "purchase"),
        ("cid", "film-3", "hug"),
    ]
    assert run(monkeypatch, "import", "events.csv", "--data", "data", *MAPPED) == 0
    out = capsys.readouterr().out
    assert "0 events appended" in out
    assert "3 duplicates" in out
    assert len(log_of(tmp_path / "data")) == 3


def test_backfill_leaves_a_snapshot_of_all_that_was_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [f"u{k % 7},i{(k // 7 + k % 7) % 12},{1_400_000_000 + 60 * k}" for k in range(200)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    (tmp_path / "headwater.toml").write_text("[backfill]\npasses = 2\nthreads = 1\n")
    arguments = ("import", "events.csv", "--data", "data", "--backfill")
    assert run(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert "200 events appended" in out
    assert "180 events learned in" in out
    assert "NDCG@10 of what came after them: mixture " in out
    snapshots = Snapshots(tmp_path / "data" / "snapshots", 3)
    assert snapshots.manifest(snapshots.paths()[-1]).offset == 200
    assert run(monkeypatch, *arguments) == 0
    assert "200 duplicates" in capsys.readouterr().out, "it can be done again"


def test_backfill_is_refused_while_a_system_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\na,1,1400000000\n")
    with _folder.claim(tmp_path / "data"):
        assert run(monkeypatch, "import", "events.csv", "--data", "data", "--backfill") == 2
    assert "in use by another" in capsys.readouterr().err
    with closing(SqliteUpdatesLog(tmp_path / "data" / "updates.db")) as of_a_role:
        assert of_a_role.end() == 0
        assert run(monkeypatch, "import", "events.csv", "--data", "data", "--backfill") == 2
    assert "stop every process that uses it" in capsys.readouterr().err


def test_import_knows_the_configured_event_types(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "headwater.toml").write_text("[events.hug]\nweight = 2.0\n")
    assert run(monkeypatch, "import", "events.csv", *MAPPED) == 0
    assert "warning" not in capsys.readouterr().out
    assert len(log_of(tmp_path / "headwater-data")) == 3


def test_import_of_items(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "films.csv").write_text("item_id,title,genres\n1,Alien,Horror|Sci-Fi\n,None,\n")
    assert run(monkeypatch, "import", "films.csv", "--items", "--data", "data") == 0
    out = capsys.readouterr().out
    assert "1 item appended to data" in out
    assert "1 row skipped: item_id is missing (row 2)" in out
    [item] = log_of(tmp_path / "data")
    assert (item.title, item.categories) == ("Alien", ("Horror", "Sci-Fi"))


def test_import_skips_what_the_log_may_have_dropped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = [f"u{n},i{n},{1_700_000_000 + 1_000 * n}" for n in range(5)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    assert run(monkeypatch, "import", "events.csv", "--data", "data") == 0
    with closing(SqliteEventsLog(tmp_path / "data" / "events.db")) as log:
        log.drop(2)
    assert run(monkeypatch, "import", "events.csv", "--data", "data") == 0
    out = capsys.readouterr().out
    assert "0 events appended to data\n3 duplicates" in out
    assert "2 rows skipped: timestamp is older than what the log still holds" in out


def test_import_of_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "people.csv").write_text("who,plan,age\nann,gold,41\n,none,7\nbob,,5\n,,1\n")
    mapped = ("--map", "user_id=who")
    assert run(monkeypatch, "import", "people.csv", "--users", "--data", "data", *mapped) == 0
    out = capsys.readouterr().out
    assert "2 users appended to data" in out
    assert "2 rows skipped: user_id is missing (first in row 2)" in out
    assert log_of(tmp_path / "data") == [
        User("ann", {"plan": "gold", "age": 41.0}),
        User("bob", {"age": 5.0}),
    ]


def test_import_of_users_that_were_exported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "people.csv").write_text("user_id,plan\nann,gold\nbob,none\n")
    assert run(monkeypatch, "import", "people.csv", "--users", "--data", "one") == 0
    assert run(monkeypatch, "export", "out.parquet", "--what", "users", "--data", "one") == 0
    capsys.readouterr()
    assert run(monkeypatch, "import", "out.parquet", "--data", "two") == 0
    assert "out.parquet: 2 users appended to two" in capsys.readouterr().out, "it knows itself"
    assert run(monkeypatch, "import", "out.parquet", "--users", "--data", "three") == 0
    assert log_of(tmp_path / "three") == log_of(tmp_path / "two") == log_of(tmp_path / "one")


def test_import_in_several_commits_keeps_the_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 7)
    lines = [f"u{n},i{n},{1_700_000_000 + n}" for n in range(50)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    seen: list[tuple[int, int]] = []
    done = bulk.import_events(
        tmp_path / "events.csv",
        tmp_path / "data",
        config.Config(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (done.appended, done.duplicate) == (50, 0)
    assert seen == [(n, 50) for n in (7, 14, 21, 28, 35, 42, 49, 50)]
    assert [event.user_id for event in log_of(tmp_path / "data")] == [f"u{n}" for n in range(50)]


REFUSED = {
    "events.csv": EVENTS,
    "films.item": "item_id:token\tmovie_title:token_seq\n1\tAlien\n",
    "people.user": "user_id:token\tage:token\n1\t41\n",
    "a.inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t9\n",
    "a.jsonl": '{"user_id": 1, "item_id": 2, "timestamp": 9}\n',
    "semicolons.csv": "user_id;item_id;timestamp\n1;2;9\n",
    "commas.tsv": "user_id,item_id,timestamp\n1,2,9\n",
    "headless.csv": "1,2,9\n3,4,9\n",
    "spaces.csv": "user_id, item_id, timestamp\n1, 2, 9\n",
    "array.jsonl": '[{"user_id": 1, "item_id": 2, "timestamp": 9}]\n',
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.csv",), "there is no file absent.csv"),
        (("events.csv",), "say which one it is with --map user_id="),
        (("events.csv", "--map", "user_id"), "write --map FIELD=COLUMN"),
        (("events.csv", "--map", "user=who"), "there is no field user"),
        (("events.csv", "--users"), "say which one it is with --map user_id="),
        (("events.csv", "--users", "--map", "item_id=who"), "there is no field item_id"),
        (("events.csv", "--items", "--users"), "a file holds one of the two"),
        ((".",), "there is no file .; it is a folder"),
        (("films.item",), "a file of items goes in with `headwater import --items`"),
        (("people.user",), "a file of users goes in with `headwater import --users`"),
        (("a.inter", "--items"), "it holds events: import it without --items"),
        (("a.inter", "--users"), "it holds events: import it without --items"),
        (("a.jsonl", "--items"), "it holds events: import it without --items"),
        (("semicolons.csv",), "a .csv file has its columns separated by commas, not by ';'"),
        (("commas.tsv",), "a .tsv file has its columns separated by tabs, not by ','"),
        (("headless.csv",), "columns by its first line: 1, 2, 9; say which one it is"),
        (("spaces.csv",), "--map 'item_id= item_id' --map 'timestamp= timestamp'"),
        (("array.jsonl",), "has no line that is a JSON object"),
    ],
)
def test_import_refuses_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    for name, text in REFUSED.items():
        (tmp_path / name).write_text(text)
    assert run(monkeypatch, "import", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "headwater-data").exists()


# --- serve: what is refused before anything starts ----------------------------------------------


def test_serve_refuses_another_host_without_a_key(tmp_path: Path) -> None:
    done = headwater_command("serve", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "HEADWATER_SERVE__API_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_refuses_a_port_in_use(server: str, tmp_path: Path) -> None:
    port = server.rpartition(":")[2]
    done = headwater_command("serve", "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert f"serve.port {port} on 127.0.0.1 is in use" in done.stderr


def test_serve_refuses_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    done = headwater_command("serve", "--data", "data", "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "can't be used" in done.stderr
    assert "--data" in done.stderr


def test_serve_refuses_a_log_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "events.db").write_bytes(b"no database" * 1000)
    done = headwater_command("serve", "--data", "data", "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "events.db" in done.stderr
    assert "role started" not in done.stderr


def test_a_single_role_logs_its_refusal_and_exits_with_the_reserved_code(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text("[train]\nbatch_evnts = 17\n")
    done = headwater_command("serve", "--role", "trainer", cwd=tmp_path)
    assert done.returncode == 78
    record = json.loads(done.stderr)
    assert (record["role"], record["level"]) == ("trainer", "error")
    assert "batch_evnts" in record["reason"]


# --- dead letters --------------------------------------------------------------------------------


def test_dead_letters_are_listed_newest_first_and_a_pipe_has_a_line_of_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run(monkeypatch, "dead-letters", "--data", "nowhere") == 2
    assert "there is no events log in nowhere" in capsys.readouterr().err
    reason = "is not a known field; did you mean another one that has a long name?"
    with closing(SqliteEventsLog(tmp_path / "data" / "events.db")) as log:
        log.refuse([DeadLetter(1e9 + n, "/v1/items", f"[{n}]", f"f{n}", reason) for n in range(5)])
    assert run(monkeypatch, "dead-letters", "-n", "2", "--data", "data") == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["5", "4"]
    assert lines[0].endswith(f"2001-09-09 01:46:44  /v1/items  f4 {reason}")
    assert run(monkeypatch, "dead-letters", "--json", "--data", "data") == 0
    letters = json.loads(capsys.readouterr().out)
    assert [(one["number"], one["body"]) for one in letters][:2] == [(5, "[4]"), (4, "[3]")]


# --- status --------------------------------------------------------------------------------------


def test_status_as_a_table(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--url", server) == 0
    out = capsys.readouterr().out
    for part in (
        f"{server} (ready)",
        "version 2, epoch 3, sequence 4,567",
        "900 (100 and 3 s behind)",
        "1,000 (up to date)",
        "10 of 40 lists (25.0%), 2 of them by window",
        "0.2100 (0.2000 to 0.2200, newest 9)",
        "NDCG@10, version before",
        "0.2050 (0.2000 to 0.2200, its newest 9)",
        "812 events/s",
        "1.50 of the configured one",
        "1,200 duplicate, 7 hammered",
    ):
        assert part in out
    assert "burst" not in out, "reasons that took nothing aren't named"
    assert "0.123" not in out, "the segments are in the JSON"


def test_status_as_json(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_URL", server)
    assert run(monkeypatch, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"url": server, **STATUS, "metrics": METRICS}


def test_status_with_a_wrong_key(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_SERVE__API_KEY", "another-key-altogether")
    assert run(monkeypatch, "status", "--url", server) == 2
    assert "refuses the key" in capsys.readouterr().err
    monkeypatch.delenv("HEADWATER_SERVE__API_KEY")
    assert run(monkeypatch, "status", "--url", server) == 2
    assert "without a key; set HEADWATER_SERVE__API_KEY to an admin's" in capsys.readouterr().err


def test_status_of_something_else(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--url", f"{server}/elsewhere") == 2
    assert "answers 404; is it a Headwater server?" in capsys.readouterr().err
    monkeypatch.setattr(Answering, "bodies", {"/v1/status": b"<html>"})
    assert run(monkeypatch, "status", "--url", server) == 2
    assert "doesn't answer in JSON" in capsys.readouterr().err


def test_status_where_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--url", "http://127.0.0.1:9") == 2
    assert "http://127.0.0.1:9 doesn't answer" in capsys.readouterr().err
    assert run(monkeypatch, "status", "--data", "nowhere") == 2
    assert "no server runs on nowhere" in capsys.readouterr().err


# --- versions, rollback, resume -------------------------------------------------------------------


def test_versions_are_listed_and_returned_to_without_a_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "versions", "--data", str(tmp_path / "none")) == 2
    data = tmp_path / "data"
    (data / "snapshots").mkdir(parents=True)
    with closing(SqliteEventsLog(data / "events.db")) as log:
        log.append([User(f"u{n}") for n in range(28)], 2e9)
        log.append([Event(f"e{n}", "view", "u1", 1e9, f"i{n}") for n in range(2)], 2e9)
    assert run(monkeypatch, "rollback", "--data", str(data)) == 2
    assert "--to can't be met: no version is kept yet" in capsys.readouterr().err
    assert run(monkeypatch, "undo", "--data", str(data)) == 2
    assert "there is no such rollback" in capsys.readouterr().err
    (data / "snapshots" / "s").touch()
    kept = Versions(data / "snapshots" / VERSIONS)
    figures = {"mixture.ndcg@10": Metric(0.25, 0.2, 0.3, 900)}
    kept.add(Version(1, 1, "s", "live", figures, 20, 2e9))
    monkeypatch.setattr(versions, "WAIT_SECONDS", 0.0)
    assert run(monkeypatch, "rollback", "--why", "bot", "--data", str(data)) == 0
    assert "back to number 1, 10 entries set aside" in capsys.readouterr().out
    assert run(monkeypatch, "resume", "--why", "sale", "--data", str(data)) == 0
    assert "from offset 32" in capsys.readouterr().out
    entry = log_of(data)[-1]
    assert isinstance(entry, Resume)
    assert (entry.why, entry.by) == ("sale", getpass.getuser())
    assert run(monkeypatch, "versions", "--json", "--data", str(data)) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["number"] for one in found["versions"]] == [1]
    assert [(one["first"], one["through"]) for one in found["rollbacks"]] == [(21, 30)]
    assert run(monkeypatch, "versions", "--data", str(data)) == 0
    shown = capsys.readouterr().out
    for again in ("2 events from 21 to 30", "0 events from 21 to 30"):
        assert run(monkeypatch, "undo", "--data", str(data)) == 0
        assert again in capsys.readouterr().out
    assert run(monkeypatch, "undo", "none-such", "--data", str(data)) == 2
    for part in ("0.2500 (0.2000 to 0.3000)", "live", "21 to 30", "bot"):
        assert part in shown
