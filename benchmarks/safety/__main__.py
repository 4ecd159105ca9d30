"""``python -m benchmarks.safety [PART …]``: gate, poison, drift, tuner and rollback."""

from __future__ import annotations

import json
import logging
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from benchmarks import reporting
from benchmarks.safety import drift, figures, gate, poison, swaps, tuning

PARTS = {"gate": gate, "poison": poison, "drift": drift, "tuner": tuning, "rollback": swaps}

QUICK: dict[str, tuple[int, ...]] = {
    "gate": (20, 10),
    "poison": (1_000,),
    "drift": (3_000,),
    "tuner": (24_000,),
    "rollback": (20,),
}
"""Arguments with which all parts together take minutes, and say little."""

ROOT = Path(__file__).parents[2]


def main(
    parts: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; all by default.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Little of each part: a trial; nothing is written, no goal judged.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Leave out parts that this very code has measured.")
    ] = False,
) -> None:
    """Measures, and writes results/safety.json; exit status 1 where a goal is missed.

    The file is written after each part; those that aren't run keep the figures that it has of them.
    """
    # What guards do is counted; a line for each would hide it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    console = reporting.console()
    names = list(parts or PARTS)
    if unknown := sorted(set(names) - set(PARTS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: name some of {', '.join(PARTS)}")
    code = _digest()
    file = reporting.RESULTS / "safety.json"
    results: dict[str, Any] = {}
    if file.exists() and not quick:
        before = json.loads(file.read_text())
        results = {name: of for name, of in before.items() if name in PARTS and "code" in of}
    told: list[figures.Figure] = []
    for name in names:
        if not (resume and results.get(name, {}).get("code") == code):
            started = time.monotonic()
            found = PARTS[name].measured(*(QUICK[name] if quick else ()))
            found |= {"seconds": round(time.monotonic() - started, 1), "code": code}
            results[name] = found
        console.print(PARTS[name].table(results[name]))
        told += PARTS[name].figures(results[name])
        if not quick:
            rows = [one.row() for part in results for one in PARTS[part].figures(results[part])]
            reporting.write("safety", {"figures": rows, **results})
    console.print(figures.table(told))
    print(" ".join(PARTS[name].sentence(results[name]) for name in names))
    print(", ".join(f"{name} took {results[name]['seconds']:,.0f} s" for name in names))
    sys.exit(bool(figures.missed(told)) and not quick)


def _digest() -> str:
    """Of all code that a figure depends on."""
    total = blake2b(digest_size=16)
    for folder in (ROOT / "headwater", ROOT / "benchmarks" / "safety"):
        for path in sorted(folder.rglob("*.py")):
            total.update(path.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    typer.run(main)
