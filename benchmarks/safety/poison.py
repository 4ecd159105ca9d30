"""What each poison does to a live learner: with guards, without any, and after a rollback."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.safety.figures import Figure
from benchmarks.safety.measuring import Warm, recovery, run
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
    with Warm(True, before) as guarded, Warm(False, before) as unguarded:
        for trial in TRIALS:
            one = {"guarded": run(trial, guarded), "unguarded": run(trial, unguarded)}
            found[trial.name] = one
            clean = found["nothing"]["guarded"]["ndcg@10"]
            if one["guarded"]["ndcg@10"] / clean < GOAL:
                one["rolled back"] = run(trial, guarded, roll_back=True)
    clean = found["nothing"]
    for trial in TRIALS:
        for name, one in found[trial.name].items():
            other = clean["unguarded" if name == "unguarded" else "guarded"]
            one["left"] = one["ndcg@10"] / other["ndcg@10"]
            one["recovered_after"] = recovery(one["stretches"], other["stretches"])
        print(f"{trial.name}: {found[trial.name]['guarded']['left']:.0%} left", flush=True)
    return {"before": before, "goal": GOAL, "shown_goal": SHOWN, "trials": found}


def figures(found: dict[str, Any]) -> list[Figure]:
    trials = found["trials"].values()
    without = [one["unguarded"] for one in trials]
    return [
        Figure(
            "share of NDCG@10 left after the worst poison",
            *(min(_best(one)["left"] for one in trials), "at least", GOAL),
            *(min(one["left"] for one in without), "no guards"),
        ),
        Figure(
            "share of lists that a pushed item is in",
            *(max(_best(one)["shown"] for one in trials), "at most", SHOWN),
            *(max(one["shown"] for one in without), "no guards"),
        ),
    ]


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
