"""What every benchmark does with its results: a console to show them, a file to keep them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parent / ".cache"


def console() -> Console:
    """As wide as the tables need, in a pipe too."""
    found = Console(highlight=False)
    found.width = max(found.width, 110)
    return found


def chosen(names: str, known: Collection[str]) -> list[str]:
    """Those named, with commas between.

    Raises:
        BadParameter: one isn't known.
    """
    found = names.split(",")
    if unknown := sorted(set(found) - set(known)):
        raise typer.BadParameter(f"{', '.join(unknown)}: name some of {', '.join(known)}")
    return found


def folder(trial: bool) -> Path:
    """Where results belong: those of a trial aren't published."""
    return CACHE if trial else RESULTS


def merged(
    name: str, key: str, done: dict[str, Any], order: Iterable[str], folder: Path
) -> dict[str, Any]:
    """What was measured now, and what ``<folder>/<name>.json`` has under ``key`` of the rest."""
    file = folder / f"{name}.json"
    before = json.loads(file.read_text()).get(key, {}) if file.exists() else {}
    both = {**before, **done}
    return {one: both[one] for one in order if one in both}


def write(name: str, results: dict[str, Any], folder: Path = RESULTS) -> None:
    """``results`` as ``<folder>/<name>.json``."""
    folder.mkdir(exist_ok=True)
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    (folder / f"{name}.json").write_text(text)
