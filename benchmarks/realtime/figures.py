"""The shape of what a row measured: figures with their goals and what stands beside, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal

import msgspec
import numpy as np
from rich.table import Table

RUNS = 3


def runs(quick: bool) -> int:
    """Runs that a figure is the median of; a quick one is a trial."""
    return 1 if quick else RUNS


class Goal(msgspec.Struct, frozen=True):
    """``at_most`` or ``at_least`` a value of the figure's unit."""

    kind: Literal["at_most", "at_least"]
    value: float

    def met(self, value: float) -> bool:
        return value <= self.value if self.kind == "at_most" else value >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.kind == 'at_most' else '≥'} {number(self.value)}"


def at_most(value: float) -> Goal:
    return Goal("at_most", value)


def at_least(value: float) -> Goal:
    return Goal("at_least", value)


class Figure(msgspec.Struct, frozen=True):
    """One number, as each run measured it."""

    name: str
    unit: str
    values: Sequence[float]
    """A value per run, in order."""
    goal: Goal | None = None
    beside: Mapping[str, float] = {}
    """Peer or limit -> its value in the same unit, from the same run."""

    @property
    def value(self) -> float:
        """The median of the runs."""
        return float(median(self.values))

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest run."""
        return float(min(self.values)), float(max(self.values))

    @property
    def met(self) -> bool | None:
        """``None`` where no goal is set."""
        return None if self.goal is None else self.goal.met(self.value)


def table(title: str, figures: Sequence[Figure], *, judged: bool) -> Table:
    """For people: medians with the lowest and the highest run, and verdicts where they count."""
    found = Table(title=title, title_justify="left")
    for header in ("figure", "median", "runs", "unit", "goal", "", "beside"):
        right = header in ("median", "runs", "goal")
        found.add_column(header, justify="right" if right else "left")
    for figure in figures:
        low, high = figure.spread
        verdict = {None: "", True: "met", False: "MISSED"}[figure.met if judged else None]
        found.add_row(
            figure.name,
            number(figure.value),
            f"{number(low)}–{number(high)}" if len(figure.values) > 1 else "",
            figure.unit,
            str(figure.goal or ""),
            verdict,
            ", ".join(f"{peer} {number(value)}" for peer, value in figure.beside.items()),
        )
    return found


def written(figures: Sequence[Figure]) -> dict[str, dict[str, Any]]:
    """For a file: name -> value, unit, runs, goal, whether it is met, and what stands beside."""
    return {
        figure.name: {
            "value": _finite(figure.value),
            "unit": figure.unit,
            "runs": [_finite(value) for value in figure.values],
            "goal": figure.goal and {figure.goal.kind: figure.goal.value},
            "met": figure.met,
            "beside": {peer: _finite(value) for peer, value in figure.beside.items()},
        }
        for figure in figures
    }


def _finite(value: float) -> float | None:
    """``None`` where requests got no answer, so that their latency has no end."""
    return value if math.isfinite(value) else None


class Curve(msgspec.Struct, frozen=True):
    """A line of a plot."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Plot(msgspec.Struct, frozen=True):
    """What is drawn to ``results/realtime-<name>.png``."""

    name: str
    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False
    limits: Mapping[str, float] = {}
    """Name -> a horizontal line: a goal, say."""


class Measured(msgspec.Struct, frozen=True):
    """What a row of the benchmark gives back."""

    figures: Sequence[Figure]
    plots: Sequence[Plot] = ()
    notes: Mapping[str, float | str] = {}
    """What else is to be known: sizes of the run, threads per process, CPU-seconds per event."""


def percentile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least ``q`` % of all aren't above; nothing is interpolated.

    >>> percentile([3.0, 1.0, 2.0], 50), percentile([1.0, 2.0], 99)
    (2.0, 2.0)
    """
    return float(np.percentile(np.asarray(values, float), q, method="inverted_cdf"))


def percentile_curve(name: str, values: Sequence[float]) -> Curve:
    """The value at each percentile up to 99.9."""
    at = [*range(1, 100), 99.5, 99.9]
    return Curve(name, [float(q) for q in at], [percentile(values, q) for q in at])


def number(value: float) -> str:
    """Three significant digits, thousands with commas.

    >>> number(1234567.0), number(12.345), number(0.01234)
    ('1,234,567', '12.3', '0.0123')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
