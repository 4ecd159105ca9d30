"""The quality benchmark's page and chart: of figures that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.quality import page
from benchmarks.quality.drawing import draw


def model(value: float, ahead: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"ndcg@10": value, "ndcg@10_interval": [value - 0.01, value + 0.01]}
    if ahead is not None:
        found |= {"ours_ahead": ahead, "ours_ahead_interval": [ahead - 0.02, ahead + 0.02]}
    return found


def streams() -> dict[str, dict[str, Any]]:
    models = {
        "headwater": model(0.12),
        "habits": model(0.1, 0.2),
        "content": model(0.0),
        "peer isgd": model(0.03, 3.0),
        "peer ease": model(0.08, 0.5),
    }
    return {
        "ml-100k": {
            "models": models,
            "experts": ["habits", "content"],
            "peers": {"peer isgd": {}, "peer ease": {}},
            "not_run": ["vsknn"],
            "repeats": False,
            "ties": "order",
        }
    }


def test_the_page_names_the_best_and_what_was_not_run() -> None:
    lines = page.table(streams()).splitlines()
    assert lines[2] == (
        "| ml-100k | no | in order | **.120**; the goal, .140, isn't reached | .100 habits "
        "| .080 ease | +50% (+48% to +52%) |"
    )
    assert lines[-1] == "Not run: vsknn on ml-100k."


def test_every_peer_has_a_column() -> None:
    head, _, line = page.peers(streams()).splitlines()
    cells = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert cells["headwater"] == "**.120**"
    assert cells["isgd"] == ".030"
    assert cells["vsknn"] == cells["transitions"] == "not run"


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    other = {**streams()["ml-100k"], "not_run": []}
    draw(tmp_path / "chart.png", streams() | {"online-retail": other})
    assert (tmp_path / "chart.png").stat().st_size > 10_000
