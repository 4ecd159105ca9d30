"""What the tuner makes of a stream: from the settings as they come, and from bad ones.

The challenger role's own code proposes, runs and judges. It has the time that it needs: the live
model learns on whenever the challenger has nothing left to be compared on.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.safety.figures import Figure
from headwater import data
from headwater.config import Config, overridden
from headwater.deploy import Challengers
from headwater.evaluate import compared, lift
from headwater.ingest import read_interactions
from headwater.log.gains import Gains, GainsLog
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner
from headwater.roles import challenger as role
from headwater.roles.challenger import Arena
from headwater.types import Comparison, Doubles, Promotion

EVENTS = 60_000
"""Of the stream that ships with the software."""
AT_ONCE = 500
"""Events that the live model learns while a challenger waits."""
BAD: dict[str, Any] = {
    "sequence.learning_rate": 1e-6,
    "sequence.row_learning_rate": 0.001,
    "mixture.learning_rate": 1e-5,
    "popularity.half_lives_hours": [0.5, 1.0, 2.0, 40_000.0],
    "transitions.half_life_days": 0.02,
    "neighbours.half_life_days": 0.02,
    "preprocess.history_length": 3,
}
"""A start that is bad on purpose."""

NOT_BELOW, NEAR = 0.99, 0.97
"""Goals: NDCG@10 over the last quarter, as a share of the defaults' there: from the defaults, where
only what is as good may be promoted, and from the bad start."""


def measured(events: int = EVENTS) -> dict[str, Any]:
    """NDCG@10 with a tuner and without, from either start, and what it tried and promoted."""
    default = Config.model_validate({"challengers": {"share": 1.0}})
    bad = overridden(default, BAD)
    plain = run(default, events, tune=False)
    found = {
        "the defaults": run(default, events, tune=True),
        "bad settings": run(bad, events, tune=True),
        "bad settings, no tuner": run(bad, events, tune=False),
    }
    return {
        "events": events,
        "default": _means(plain.gains),
        "starts": {name: one.figures(plain) for name, one in found.items()},
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    starts = found["starts"]
    own, bad = starts["the defaults"], starts["bad settings"]
    alone = starts["bad settings, no tuner"]["end_of_default"]
    return [
        Figure(
            "NDCG@10 that a tuner ends with, of the defaults'",
            *(own["end_of_default"], "at least", NOT_BELOW, 1.0, "no tuner"),
        ),
        Figure(
            "NDCG@10 that a tuner ends with from bad settings, of the defaults'",
            *(bad["end_of_default"], "at least", NEAR, alone, "no tuner"),
        ),
    ]


def sentence(found: dict[str, Any]) -> str:
    starts = found["starts"]
    own, bad = starts["the defaults"], starts["bad settings"]
    return (
        f"With a tuner the last quarter of {found['events']:,} events has "
        f"{own['end_of_default']:.1%} of the defaults' NDCG@10 (goal {NOT_BELOW:.0%}), and from "
        f"bad settings {bad['end_of_default']:.1%} (goal {NEAR:.0%}; without a tuner "
        f"{starts['bad settings, no tuner']['end_of_default']:.1%})."
    )


def table(found: dict[str, Any]) -> Table:
    made = Table(title=f"A tuner over {found['events']:,} events", title_justify="left")
    made.add_column("start")
    headers = ("NDCG@10", "last quarter", "of the default", "lift over all", "tried", "promoted at")
    for header in headers:
        made.add_column(header, justify="right")
    default = found["default"]
    made.add_row("the defaults, no tuner", f"{default['all']:.4f}", f"{default['end']:.4f}")
    for name, one in found["starts"].items():
        low, high = ("?" if end is None else f"{end:+.1%}" for end in one["interval"])
        made.add_row(
            name,
            f"{one['all']:.4f}",
            f"{one['end']:.4f}",
            f"{one['end_of_default']:.1%}",
            f"{one['lift']:+.1%} ({low} to {high})",
            f"{one['tried']}",
            ", ".join(f"{order['offset']:,}" for order in one["promoted"]),
        )
    return made


@dataclass
class Outcome:
    """What a run came to: NDCG@10 by event, challengers tried, and those promoted."""

    gains: Doubles
    tried: int
    promoted: list[dict[str, Any]]

    def figures(self, plain: Outcome) -> dict[str, Any]:
        """Beside a run of the defaults."""
        both = ~np.isnan(self.gains) & ~np.isnan(plain.gains)
        found = lift(compared(Comparison(), self.gains[both], plain.gains[both]))
        means, others = _means(self.gains), _means(plain.gains)
        return {
            **means,
            "end_of_default": means["end"] / others["end"],
            "lift": found.value,
            "interval": [found.low, found.high],
            "tried": self.tried,
            "promoted": self.promoted,
        }


class Run:
    """A live model, and the challengers beside it."""

    def __init__(self, config: Config, folder: Path, events: int) -> None:
        self.stream = read_interactions(
            data.path("movietweetings-100k") / "interactions.parquet", limit=events
        )
        self.config, self.folder = config, folder
        self.log = MemoryEventsLog()
        self.gains: Doubles = np.full(len(self.stream), np.nan)
        self.written = GainsLog(folder / "gains.db")
        self.challengers = Challengers(folder / "challengers")
        self.live = Learner(
            config,
            self.log,
            MemoryUpdatesLog(),
            folder / "snapshots",
            challengers=self.challengers.folder,
        )
        self.live.on_gains = self._note

    def advance(self) -> bool:
        """The live model learns on; False where the stream is at its end."""
        start = self.log.end() - len(self.log.promotions(0))
        if start == len(self.stream):
            return False
        self.log.append(self.stream.events(start, min(start + AT_ONCE, len(self.stream))), 2e9)
        while self.live.step():
            self.live.publish()
        return True

    def outcome(self) -> Outcome:
        promoted = [
            {"offset": record.offset, "settings": record.entry.settings}
            for record in self.log.promotions(0)
            if isinstance(record.entry, Promotion)
        ]
        return Outcome(self.gains, len(self.challengers.listed()), promoted)

    def _note(self, gains: Gains) -> None:
        self.written.add(gains)
        orders = [record.offset for record in self.log.promotions(0)]
        places = gains.offsets - 1 - np.searchsorted(orders, gains.offsets)
        self.gains[places] = gains.values


class Waits:
    """Stands in for the flag by which a role is stopped: its waits are when the stream goes on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._over = False

    def is_set(self) -> bool:
        return self._over

    def set(self) -> None:
        self._over = True

    def wait(self, seconds: float) -> bool:
        if seconds in (role.IDLE_SECONDS, role.LOOK_SECONDS):  # else it keeps to its share of time
            self._over = self._over or not self._run.advance()
        return self._over


def run(config: Config, events: int, *, tune: bool) -> Outcome:
    """A stream from its first event to its last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = Run(config, folder, events)
        with closing(found.written):
            section = config.challengers.model_copy(update={"tune": tune})
            tuned = config.model_copy(update={"challengers": section})
            arena = Arena(tuned, folder, found.log, found.written)
            arena._stopping = Waits(found)  # type: ignore[assignment]
            arena.run()
            while found.advance():
                pass
            return found.outcome()


def _means(gains: Doubles) -> dict[str, float]:
    """NDCG@10 over all events, and over the last quarter."""
    return {"all": float(np.nanmean(gains)), "end": float(np.nanmean(gains[-len(gains) // 4 :]))}
