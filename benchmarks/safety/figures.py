"""What is told of a part: a figure, the goal that it is held to, and what a peer comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """``value`` is to be ``bound`` ``goal``; ``None`` stands for what never came."""

    name: str
    value: float | None
    bound: Literal["at most", "at least"]
    goal: float
    peer: float | None = None
    peer_name: str = ""

    @property
    def met(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.goal if self.bound == "at most" else self.value >= self.goal

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def missed(figures: Iterable[Figure]) -> list[str]:
    """Names of those that don't meet their goals."""
    return [figure.name for figure in figures if not figure.met]


def table(figures: Iterable[Figure]) -> Table:
    made = Table(title="Figures and goals", title_justify="left")
    for header in ("figure", "value", "goal", "met", "peer"):
        made.add_column(header, justify="right" if header == "value" else "left")
    for one in figures:
        made.add_row(
            one.name,
            _said(one.value),
            f"{one.bound} {one.goal:g}",
            "yes" if one.met else "NO",
            f"{_said(one.peer)} ({one.peer_name})" if one.peer_name else "",
        )
    return made


def _said(value: float | None) -> str:
    return "never" if value is None else f"{value:.4g}"
