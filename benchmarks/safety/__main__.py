"""``python -m benchmarks.safety [PART …]``: gate, poison, drift and rollback."""

from __future__ import annotations

import json
import logging
import sys
from typing import Annotated

import structlog
import typer

from benchmarks import reporting
from benchmarks.safety import drift, gate, poison, swaps

PARTS = {"gate": gate, "poison": poison, "drift": drift, "rollback": swaps}


def main(
    parts: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; all by default.")
    ] = None,
    before: Annotated[
        int, typer.Option(min=500, help="Clean events before the poison.")
    ] = poison.BEFORE,
    swapped: Annotated[int, typer.Option("--swaps", min=1, help="Rollbacks.")] = swaps.SWAPS,
) -> None:
    """Measures, and writes results/safety.json; exit status 1 where a goal is missed.

    Parts that aren't run keep the figures that the file has of them.
    """
    # What guards do is counted; a line for each would hide it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    console = reporting.console()
    names = list(parts or PARTS)
    if unknown := sorted(set(names) - set(PARTS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: name some of {', '.join(PARTS)}")
    file = reporting.RESULTS / "safety.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    results = {name: of for name, of in results.items() if name in PARTS}
    arguments = {"poison": (before,), "rollback": (swapped,)}
    for name in names:
        results[name] = PARTS[name].measured(*arguments.get(name, ()))
        console.print(PARTS[name].table(results[name]))
        reporting.write("safety", results)
    print(" ".join(PARTS[name].sentence(results[name]) for name in names))
    sys.exit(any(PARTS[name].missed(results[name]) for name in names))


if __name__ == "__main__":
    typer.run(main)
