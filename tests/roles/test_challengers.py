"""``headwater challenger`` and ``promote``, without a server."""

from __future__ import annotations

import getpass
import json
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headwater.cli import app
from headwater.deploy import Challengers, Manifest, Snapshots
from headwater.errors import HeadwaterError
from headwater.log.sqlite import SqliteEventsLog
from headwater.roles import challengers
from headwater.types import Lift, Promotion, Rollback, Trial, User


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(challengers, "WAIT_SECONDS", 0.0)
    with closing(SqliteEventsLog(tmp_path / "data" / "events.db")) as log:
        log.append([User("u")], 2e9)
    return tmp_path / "data"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_from_addition_to_promotion(data: Path) -> None:
    where = ("--data", str(data))
    assert "there is no challenger" in run("challenger", "list", *where)
    assert run("challenger", "list", "--json", *where).strip() == "[]"
    said = run("challenger", "add", "--set", "sequence.layers=3", "--by", "0.02", *where)
    assert "challenger 1 waits" in said
    refresh = ("--set", "mixture.hidden=8", "--policy", "not-worse", "--by", "0.02")
    run("challenger", "add", *refresh, *where)
    (one, two) = json.loads(run("challenger", "list", "--json", *where))
    assert (one["settings"], one["policy"], one["delta"]) == (
        {"sequence.layers": 3},
        "better",
        0.02,
    )
    assert (one["by"], two["policy"], two["trial"]["state"]) == (
        getpass.getuser(),
        "not-worse",
        "waiting",
    )
    kept = Challengers(data / "challengers")
    kept.record(1, Trial("running", lift=Lift(900, 0.12, 0.1, 0.2, 0.1, None)))
    shown = " ".join(run("challenger", "list", *where).split())
    for part in ("running", "900", "0.1200", "+20.0%"):
        assert part in shown
    assert "retired" in run("challenger", "retire", "2", "--why", "enough", *where)
    Snapshots(kept.snapshots(1), 1).write({}, Manifest(1, 1, 0, 0, {}, 0.0))
    said = " ".join(run("promote", "1", "--why", "sure", *where).split())
    assert "once the trainer has learned what it lacks, 1 entries" in said
    with closing(SqliteEventsLog(data / "events.db")) as log:
        (record,) = log.promotions(0)
    assert isinstance(record.entry, Promotion)
    assert (record.entry.challenger, record.entry.why) == (1, "sure")
    assert "sure" in " ".join(run("versions", *where).split())
    assert len(json.loads(run("versions", "--json", *where))["promotions"]) == 1
    assert "(rolled back)" not in run("versions", *where)
    with closing(SqliteEventsLog(data / "events.db")) as log:
        log.append([Rollback("r", 0, record.offset, record.offset, "ada", "worse")], 2e9)
    assert "sure (rolled back)" in " ".join(run("versions", *where).split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("challenger", "add", "--set", "sequence.layers"), "write --set KEY=VALUE"),
        (("challenger", "add", "--set", "log.keep_days=3"), "differs in how it learns"),
        (("challenger", "add", "--set", "sequence.layer=3"), "sequence.layers"),
        (("challenger", "add", "--set", "sequence.layers=1"), "those of the live model"),
        (("challenger", "add", "--set", "sequence.layers=3", "--by", "3"), "--by must be from 0"),
        (
            ("challenger", "add", "--set", "sequence.layers=3", "--policy", "not-worse"),
            "--by must be above 0 with not-worse",
        ),
        (("challenger", "retire", "4"), "there is none of that number"),
        (("promote", "4"), "there is none of that number"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    arguments: tuple[str, ...], said: str, data: Path
) -> None:
    with pytest.raises(HeadwaterError, match=said):
        CliRunner().invoke(app, [*arguments, "--data", str(data)], catch_exceptions=False)
    assert json.loads(run("challenger", "list", "--json", "--data", str(data))) == []


def test_a_folder_without_a_log_has_no_challengers_to_list(tmp_path: Path) -> None:
    with pytest.raises(HeadwaterError, match="there is no events log in"):
        challengers.listed(tmp_path)
    assert list(tmp_path.iterdir()) == [], "and asking makes none"


def test_values_are_json_or_text() -> None:
    found = challengers.settings_of(["a.b=3", "a.c=[1, 2.5]", "a.d=weight", "a.e=true"])
    assert found == {"a.b": 3, "a.c": [1, 2.5], "a.d": "weight", "a.e": True}
