"""What each poison does to a live learner: with guards, without any, and after a rollback."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.safety.measuring import recovery, run
from benchmarks.safety.trials import TRIALS

BEFORE = 5_000
"""Clean events before the poison."""
GOAL = 0.9
"""Share of the clean run's NDCG@10 that is to be left after any poison: with guards, or, where
they aren't enough, after a rollback."""
SHOWN = 0.05
"""Share of clean users' lists that a pushed item may be in, with guards."""


def measured(before: int = BEFORE) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for trial in TRIALS:
        found[trial.name] = {
            "guarded": run(trial, True, before),
            "unguarded": run(trial, False, before),
        }
        clean = found["nothing"]
        left = found[trial.name]["guarded"]["ndcg@10"] / clean["guarded"]["ndcg@10"]
        if left < GOAL:
            found[trial.name]["rolled back"] = run(trial, True, before, roll_back=True)
        for name, one in found[trial.name].items():
            other = clean["unguarded" if name == "unguarded" else "guarded"]
            one["left"] = one["ndcg@10"] / other["ndcg@10"]
            one["recovered_after"] = recovery(one["stretches"], other["stretches"])
        print(f"{trial.name}: {found[trial.name]['guarded']['left']:.0%} left", flush=True)
    return {"before": before, "goal": GOAL, "shown_goal": SHOWN, "trials": found}


def missed(found: dict[str, Any]) -> bool:
    trials = found["trials"].values()
    return any(_best(one)["left"] < GOAL or _best(one)["shown"] > SHOWN for one in trials)


def sentence(found: dict[str, Any]) -> str:
    trials = found["trials"]
    on = min(trials, key=lambda name: _best(trials[name])["left"])
    off = min(trials, key=lambda name: trials[name]["unguarded"]["left"])
    left, without = _best(trials[on])["left"], trials[off]["unguarded"]["left"]
    shown = max(_best(one)["shown"] for one in trials.values())
    lifted = max(one["unguarded"]["shown"] for one in trials.values())
    return (
        f"After {len(trials) - 1} poisons at least {left:.0%} of NDCG@10 is left with guards and "
        f"rollback ({on}; goal {GOAL:.0%}), and {without:.0%} without ({off}); a pushed item is in "
        f"at most {shown:.1%} of the lists, and in {lifted:.0%} without."
    )


def table(found: dict[str, Any]) -> Table:
    made = Table(title="NDCG@10 of clean users after the poison", title_justify="left")
    headers = ("poison", "guards on", "left", "off", "left", "recovered after", "off", "pushed in")
    for header in (*headers, "off", "what"):
        made.add_column(header, justify="left" if header in ("poison", "what") else "right")
    for name, one in found["trials"].items():
        on, off = one["guarded"], one["unguarded"]
        if "rolled back" in one:
            name = f"{name} (rolled back: {_left(one['rolled back'])})"
        cells = [f(of) for of in (on, off) for f in (_figure, _left)]
        what = {**on["tripped"], **on["cleaned"]}
        made.add_row(
            name,
            *cells,
            _after(on),
            _after(off),
            *(f"{of['shown']:.1%}" if of["shown"] else "" for of in (on, off)),
            ", ".join(f"{n} {guard}" for guard, n in what.items()),
        )
    return made


def _best(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one.get("rolled back", one["guarded"])
    return found


def _figure(one: dict[str, Any]) -> str:
    return "stopped" if one["failed"] else f"{one['ndcg@10']:.4f}"


def _left(one: dict[str, Any]) -> str:
    return f"{one['left']:.0%}"


def _after(one: dict[str, Any]) -> str:
    return "never" if one["recovered_after"] is None else f"{one['recovered_after']:,}"
