"""A trial is never taken for what is published, and a part doesn't take the rest away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks import reporting
from benchmarks.imbalance import __main__ as imbalance
from benchmarks.imbalance.streams import SPECS


def test_what_is_not_run_keeps_its_figures_in_the_order_of_all(tmp_path: Path) -> None:
    reporting.write("some", {"streams": {"a": 1, "b": 2, "gone": 3}}, tmp_path)
    found = reporting.merged("some", "streams", {"c": 30, "a": 10}, ["c", "a", "b"], tmp_path)
    assert list(found.items()) == [("c", 30), ("a", 10), ("b", 2)]


def test_the_first_run_has_nothing_to_keep(tmp_path: Path) -> None:
    assert reporting.merged("some", "streams", {"a": 1}, ["a", "b"], tmp_path) == {"a": 1}


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["--limit", "100"], "cache"),
        (["--seeds", "1"], "cache"),
        ([], "results"),
    ],
)
def test_a_run_of_less_goes_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], written: str
) -> None:
    folders = {name: tmp_path / name for name in ("results", "cache")}
    monkeypatch.setattr(reporting, "RESULTS", folders["results"])
    monkeypatch.setattr(reporting, "CACHE", folders["cache"])
    monkeypatch.setattr(imbalance, "read", lambda spec, limit: [None] * limit)
    monkeypatch.setattr(imbalance, "settings", lambda spec: {})
    monkeypatch.setattr(imbalance, "compared", lambda runs: {})
    monkeypatch.setattr(imbalance, "_table", lambda name, events, found: name)
    monkeypatch.setattr(imbalance, "_sentence", lambda done, skipped: "")
    app = Typer()
    app.command()(imbalance.main)
    done = CliRunner().invoke(app, ["--streams", next(iter(SPECS)), *arguments])
    assert done.exit_code == 0, done.output
    assert [name for name, folder in folders.items() if folder.exists()] == [written]
    assert json.loads((folders[written] / "imbalance.json").read_text())["streams"]
