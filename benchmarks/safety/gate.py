"""How often the gate errs: comparisons of models that are alike, and of one that is better.

The gains are those of two learners on the stream that ships with the software. Which of the two
an event counts for is drawn, so that on average neither is better (A/A), or one is by ``LIFT``
(A/B): how large the gains are, and how alike in the two, stays as it was.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.safety.figures import Figure
from headwater import data
from headwater.config import Config
from headwater.evaluate import ALPHA, Outcomes, compared, lift, ndcg_gains, verdict
from headwater.ingest import read_interactions
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner
from headwater.types import Batch, Comparison, Doubles

PAIR = (
    {"seed": 0, "train": {"pace": "full"}},
    {
        "seed": 1,
        "train": {"pace": "full"},
        "sequence": {"layers": 0},
        "mixture": {"learning_rate": 0.002},
    },
)
"""Settings of the two learners, which learn all of what waits for them."""
STREAM = 8_000
"""Events that both learn."""
COLD = 2_000
"""The first of them, whose gains aren't used."""
LIFT = 0.05
EVENTS = 20_000
"""Of one comparison, and how many there are of each kind."""
ALIKE, BETTER = 1_000, 200
_BLOCK = 100
"""Events that are drawn together, in their order, and after which the gate looks."""

WRONG, FOUND = 0.01, 0.9
"""Goals: wrong promotions at most, right ones at least."""


def measured(alike_runs: int = ALIKE, better_runs: int = BETTER) -> dict[str, Any]:
    """Shares of comparisons that were promoted, and after how many events."""
    one, other = (gains(settings) for settings in PAIR)
    random = np.random.default_rng(0)
    alike = [_judged(*drawn(one, other, 0.0, random)) for _ in range(alike_runs)]
    better = [_judged(*drawn(one, other, LIFT, random)) for _ in range(better_runs)]
    needed = sorted(n for n, _ in better if n is not None)
    sums = compared(Comparison(), *drawn(one, other, LIFT, random))
    found = lift(sums)
    return {
        "ndcg@10": [float(one.mean()), float(other.mean())],
        "correlation": float(np.corrcoef(one, other)[0, 1]),
        "alike": {
            "runs": alike_runs,
            "promoted": sum(n is not None for n, _ in alike),
            "by_z": sum(wrong for _, wrong in alike),
        },
        "better": {
            "runs": better_runs,
            "promoted": len(needed),
            "by_z": sum(right for _, right in better),
            "lift": LIFT,
            "median_events": needed[len(needed) // 2] if needed else None,
            "interval": [found.low, found.high],
        },
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    alike, better = found["alike"], found["better"]
    return [
        Figure(
            "share of challengers promoted that are no better",
            *(alike["promoted"] / alike["runs"], "at most", WRONG),
            *(alike["by_z"] / alike["runs"], "a z-test, looked at as often"),
        ),
        Figure(
            f"share of challengers promoted that are better by {LIFT:.0%}",
            *(better["promoted"] / better["runs"], "at least", FOUND),
            *(better["by_z"] / better["runs"], "a z-test, looked at as often"),
        ),
    ]


def sentence(found: dict[str, Any]) -> str:
    alike, better = found["alike"], found["better"]
    return (
        f"Of {alike['runs']:,} challengers that are no better the gate promotes "
        f"{alike['promoted']} within {EVENTS:,} events (goal: at most {WRONG:.0%}), of "
        f"{better['runs']} that are better by {LIFT:.0%} it promotes {better['promoted']} "
        f"(goal: {FOUND:.0%}), half of them within {better['median_events']:,} events."
    )


def table(found: dict[str, Any]) -> Table:
    made = Table(title="Comparisons at the gate", title_justify="left")
    made.add_column("challenger")
    for header in ("runs", "promoted", "goal", "by a z-test", "median events"):
        made.add_column(header, justify="right")
    alike, better = found["alike"], found["better"]
    for name, one, goal in (
        ("no better", alike, f"at most {WRONG:.0%}"),
        (f"better by {LIFT:.0%}", better, f"at least {FOUND:.0%}"),
    ):
        cells = (one["runs"], one["promoted"], goal, one["by_z"], one.get("median_events", ""))
        made.add_row(name, *map(str, cells))
    return made


def gains(settings: dict[str, Any]) -> Doubles:
    """NDCG@10 of the mixture for every event, once it is warm."""
    stream = read_interactions(
        data.path("movietweetings-100k") / "interactions.parquet", limit=STREAM
    )
    events = MemoryEventsLog()
    events.append(stream.events(0, STREAM), 2e9)
    learner = Learner(Config.model_validate(settings), events, MemoryUpdatesLog(), None)
    found: list[Doubles] = []

    def observed(_: Batch, outcomes: Outcomes) -> None:
        found.append(ndcg_gains(outcomes.ranks[:, 0], 10))

    learner.on_outcomes = observed
    while learner.step():
        learner.publish_due()
    return np.concatenate(found)[COLD:]


def drawn(
    one: Doubles, other: Doubles, lift: float, random: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Gains of a challenger, and of a live model that it is better than by ``lift``."""
    starts = random.integers(0, len(one) - _BLOCK, EVENTS // _BLOCK)
    places = (starts[:, None] + np.arange(_BLOCK)).ravel()
    high, low = np.maximum(one, other)[places], np.minimum(one, other)[places]
    # With a share p of the higher gains the challenger's mean is p high + (1 - p) low.
    share = (1.0 + lift) / (2.0 + lift) * (one + other).mean()
    apart = np.abs(one - other).mean()
    p = (share - np.minimum(one, other).mean()) / apart
    wins = random.random(EVENTS) < p
    return np.where(wins, high, low), np.where(wins, low, high)


def promoted(challenger: Doubles, live: Doubles) -> int | None:
    """Events after which the gate promotes, looking after every block; ``None`` if it doesn't."""
    sums = Comparison()
    for end in range(_BLOCK, EVENTS + 1, _BLOCK):
        block = slice(end - _BLOCK, end)
        sums = compared(sums, challenger[block], live[block])
        if verdict(sums, 0.0) == "better":
            return end
    return None


def _judged(challenger: Doubles, live: Doubles) -> tuple[int | None, bool]:
    return promoted(challenger, live), by_z(challenger, live)


def by_z(challenger: Doubles, live: Doubles) -> bool:
    """Whether a one-sided z-test of the paired differences, at the gate's level and looked at
    after every block as if each look were the only one, ever promotes.
    """
    x = challenger - live
    ends = np.arange(_BLOCK, EVENTS + 1, _BLOCK)
    sums, squares = np.cumsum(x)[ends - 1], np.cumsum(x * x)[ends - 1]
    errors = np.sqrt(np.maximum(squares - sums**2 / ends, 1e-12))
    return bool((sums / errors > NormalDist().inv_cdf(1.0 - ALPHA)).any())
