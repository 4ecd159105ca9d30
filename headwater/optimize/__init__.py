"""Stage 5, optimize: what the metrics change.

The learning rates follow the test-then-train losses. When the loss of one
window is higher than that of the window before, by more than chance explains,
the stream has moved and the rate goes up; when it isn't, the rate goes back
towards its configured value. Every change is an entry with its numbers.

``changes`` and ``propose`` are the tuner: which settings are worth a trial beside
the live ones, and for how long.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from headwater.config import Optimize as Settings
from headwater.optimize._tuner import MOST_PROPOSED, changes, propose
from headwater.types import Doubles, SettingChange, State

__all__ = ["MOST_PROPOSED", "Optimizer", "Rate", "changes", "propose"]

_SIGNIFICANT = 2.5
"""Standard errors by which a loss must have risen: about one false alarm in 160 looks."""


@dataclass(slots=True)
class Rate:
    """A learning rate as a factor on its configured value, and the losses that steer it."""

    name: str
    factor: float
    running: Doubles  # n, sum, sum of squares of the running window's losses
    before: Doubles  # of the window before


class Optimizer:
    """Steers learning rates by windows of ``settings.every`` targets."""

    def __init__(self, settings: Settings, names: tuple[str, ...]) -> None:
        self.settings = settings
        self._targets = 0
        self._replayed = True
        self._rates = {name: Rate(name, 1.0, np.zeros(3), np.zeros(3)) for name in names}

    def rate(self, name: str) -> float:
        """The factor on the configured learning rate of ``name``."""
        return self._rates[name].factor

    def observe(
        self, losses: dict[str, float], targets: int, offset: int, *, replayed: bool = True
    ) -> list[SettingChange]:
        """Takes the mean losses of a micro-batch of ``targets``, and returns what it changed.

        A loss that isn't finite (nothing was learned) is left out. Losses of steps that
        ``replayed`` and of steps that didn't are of other examples: a window ends without a
        look where the one follows the other.
        """
        if replayed != self._replayed:
            self._replayed, self._targets = replayed, 0
            for rate in self._rates.values():
                rate.running, rate.before = np.zeros(3), np.zeros(3)
        for name, loss in losses.items():
            if isfinite(loss):
                self._rates[name].running += (1.0, loss, loss * loss)
        self._targets += targets
        if self._targets < self.settings.every:
            return []
        self._targets = 0
        changes = [self._turn(rate, offset) for rate in self._rates.values()]
        return [change for change in changes if change is not None]

    def _turn(self, rate: Rate, offset: int) -> SettingChange | None:
        """Ends a window: compares it with the one before and moves the rate."""
        now, before = rate.running, rate.before
        rate.before, rate.running = now, np.zeros(3)
        if now[0] < 2 or before[0] < 2:
            return None
        mean, mean_before = float(now[1] / now[0]), float(before[1] / before[0])
        error = sqrt(_variance(now) / float(now[0]) + _variance(before) / float(before[0]))
        step, span = self.settings.learning_rate_factor, self.settings.learning_rate_span
        old = rate.factor
        if mean > mean_before + _SIGNIFICANT * error:
            rate.factor = min(old * step, span)
        else:
            rate.factor = max(old / step, 1.0)
        if rate.factor == old:
            return None
        because = {"loss": mean, "loss_before": mean_before, "standard_error": error}
        return SettingChange(
            offset=offset,
            name=f"{rate.name}.learning_rate_factor",
            before=old,
            after=rate.factor,
            because={key: round(value, 6) for key, value in because.items()},
        )

    def state(self) -> State:
        return {
            "targets": np.array([self._targets, self._replayed], np.int64),
            **{
                f"rate.{rate.name}": np.concatenate([[rate.factor], rate.running, rate.before])
                for rate in self._rates.values()
            },
        }

    def load(self, state: State) -> None:
        self._targets = int(state["targets"][0])
        self._replayed = bool(state["targets"][1])
        for rate in self._rates.values():
            values = state[f"rate.{rate.name}"]
            rate.factor = float(values[0])
            rate.running, rate.before = values[1:4].copy(), values[4:7].copy()


def _variance(sums: Doubles) -> float:
    n, total, squares = sums
    return float(max(squares - total * total / n, 0.0) / (n - 1))
