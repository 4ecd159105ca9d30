"""``python -m benchmarks.safety``: how often the gate errs, and what each poison does."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks import reporting
from benchmarks.safety import gate
from benchmarks.safety.measuring import recovery, run
from benchmarks.safety.trials import TRIALS

GOAL = 0.9
"""Share of the clean run's NDCG@10 that is to be left after any poison: with guards, or, where
they aren't enough, after a rollback."""


def main(
    before: Annotated[int, typer.Option(min=500, help="Clean events before the poison.")] = 5_000,
) -> None:
    """Measures, and writes results/safety.json; exit status 1 where a goal is missed."""
    console = reporting.console()
    gated = gate.measured()
    print(gate.sentence(gated))
    found: dict[str, dict[str, Any]] = {}
    for trial in TRIALS:
        found[trial.name] = {
            "guarded": run(trial, True, before),
            "unguarded": run(trial, False, before),
        }
        clean = found["nothing"]["guarded"]
        if found[trial.name]["guarded"]["ndcg@10"] < GOAL * clean["ndcg@10"]:
            found[trial.name]["rolled back"] = run(trial, True, before, roll_back=True)
        for one in found[trial.name].values():
            one["left"] = one["ndcg@10"] / clean["ndcg@10"]
            one["recovered_after"] = recovery(one["stretches"], clean["stretches"])
        console.print(f"{trial.name}: {found[trial.name]['guarded']['left']:.0%} left")
    console.print(_table(found))
    results = {"before": before, "goal": GOAL, "trials": found, "gate": gated}
    reporting.write("safety", results)
    print(_sentence(found))
    sys.exit(gate.missed(gated) or any(_best(one)["left"] < GOAL for one in found.values()))


def _best(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one.get("rolled back", one["guarded"])
    return found


def _table(found: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="NDCG@10 of clean users after the poison", title_justify="left")
    for header in ("poison", "guards on", "left", "off", "left", "recovered after", "off", "what"):
        table.add_column(header, justify="left" if header in ("poison", "what") else "right")
    for name, one in found.items():
        on, off = one["guarded"], one["unguarded"]
        if "rolled back" in one:
            name = f"{name} (rolled back: {_left(one['rolled back'])})"
        cells = [f(of) for of in (on, off) for f in (_figure, _left)]
        what = ", ".join(f"{n} {guard}" for guard, n in on["tripped"].items())
        table.add_row(name, *cells, _after(on), _after(off), what)
    return table


def _figure(one: dict[str, Any]) -> str:
    return "stopped" if one["failed"] else f"{one['ndcg@10']:.4f}"


def _left(one: dict[str, Any]) -> str:
    return f"{one['left']:.0%}"


def _after(one: dict[str, Any]) -> str:
    return "never" if one["recovered_after"] is None else f"{one['recovered_after']:,}"


def _sentence(found: dict[str, dict[str, Any]]) -> str:
    on = min(found, key=lambda name: _best(found[name])["left"])
    off = min(found, key=lambda name: found[name]["unguarded"]["left"])
    left, without = _best(found[on])["left"], found[off]["unguarded"]["left"]
    return (
        f"After {len(found) - 1} poisons at least {left:.0%} of NDCG@10 is left with guards and "
        f"rollback ({on}; goal {GOAL:.0%}), and {without:.0%} without ({off})."
    )


if __name__ == "__main__":
    typer.run(main)
