"""Detectors of drift in how well predictions do: ADWIN on the hit rate, Page-Hinkley on the losses.

Both say that things are worse than they were, some hundred predictions after they became so, and
are told as changes of the stream. Nothing is learned otherwise because of them
(docs/decisions/0015-no-drift-detector-raises-the-learning-rates.md has what was tried).

- ``hit_rate``: ADWIN (Bifet and Gavaldà, SDM 2007) on whether the true item was in the top ten, of
  each prediction. River's, so only where the extra ``drift`` is installed. It tells of its state
  nothing that could be stored, so the hits that it has seen are, and are shown to a new one.
- ``loss``: Page-Hinkley (Page, Biometrika 1954) on the logarithm of each loss, in standard errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, sqrt
from typing import Protocol

import numpy as np

from headwater.types import Bytes, Doubles, Longs, State, StreamChange

DELTA = 1e-6
"""ADWIN's. On 30,000 tweets of films and 20,000 lines of a shop it told of no fall, with 1e-4 of
one and two; where all items of the former change places, after 392 to 424 predictions, and after
296."""
_CLOCK = 32
"""Predictions from one look of ADWIN to the next; river's default."""
_LONGEST = 20_000
"""Hits that are remembered at most; then the newer half is."""

GROUP = 100
"""Events whose losses are one input: a full micro-batch."""
TOLERATED, THRESHOLD = 1.0, 8.0
"""Page-Hinkley's δ and λ, in standard errors of an input: a rise by less than the one is none, and
the excess over it has to come to the other. Each told of nothing on the shop's lines, and of one
rise on the tweets, while the model was new."""
_WARM = 50
"""Inputs from which the standard error is known."""


class _Window(Protocol):
    """What is used of river's ADWIN."""

    def update(self, value: float) -> bool: ...


def adwin() -> _Window | None:
    """A new one; ``None`` where river isn't installed."""
    try:
        # The engine of river.drift.ADWIN, by its own name: with river.drift comes all of
        # scipy.stats, a second and 67 MB of every trainer.
        from river._river_rust.drift import AdaptiveWindowing
    except ImportError:
        return None
    window: _Window = AdaptiveWindowing(DELTA, _CLOCK, 5, 5, 10)
    return window


class HitRate:
    """Tells when hits become rarer. It begins anew with each change, also one for the better."""

    def __init__(self) -> None:
        self._hits: Bytes = np.zeros(0, np.uint8)
        self._window = adwin()

    def observe(self, offsets: Longs, hits: Doubles) -> list[StreamChange]:
        """Takes the next n predictions.

        Args:
            offsets: (n,) of the events that were predicted.
            hits: (n,) 1 where the item was in the top ten, else 0.
        """
        if self._window is None:
            return []
        found: list[StreamChange] = []
        seen: list[int] = []
        for offset, hit in zip(offsets.tolist(), hits.tolist(), strict=True):
            seen.append(int(hit))
            changed = self._window.update(hit)
            if changed or len(self._hits) + len(seen) > _LONGEST:
                so_far = np.concatenate([self._hits, np.array(seen, np.uint8)])
                found += _fall(offset, so_far) if changed else []
                self._begin(so_far[:0] if changed else so_far[-_LONGEST // 2 :])
                seen = []
        self._hits = np.concatenate([self._hits, np.array(seen, np.uint8)])
        return found

    def state(self) -> State:
        return {"hits": self._hits}

    def load(self, state: State) -> None:
        self._begin(state["hits"].copy())

    def _begin(self, hits: Bytes) -> None:
        """A new detector that has seen these hits."""
        self._hits, self._window = hits, adwin()
        if self._window is not None:
            for hit in hits.tolist():
                self._window.update(float(hit))


def _fall(offset: int, seen: Bytes) -> list[StreamChange]:
    """What is told of a change, if it is one for the worse: of the likeliest place for it."""
    sums = np.cumsum(seen, dtype=np.float64)
    n, first = len(sums), np.arange(1.0, len(sums))
    before, after = sums[:-1] / first, (sums[-1] - sums[:-1]) / (n - first)
    at = int((np.abs(after - before) * np.sqrt(first * (n - first))).argmax())
    was, now = float(before[at]), float(after[at])
    if now >= was:
        return []
    said = f"{now:.1%} of the newest {n - at - 1:,} top tens held the item, {was:.1%} before"
    return [StreamChange(offset, "hit_rate", round(now / was, 4), f"{said} (ADWIN)")]


class PageHinkley:
    """Tells when an input has risen above its mean; the first ones say how much it varies.

    With x the inputs after those in standard errors, and m their running mean, it rings where
    U = Σ (x - m - TOLERATED) is THRESHOLD above its least value, and begins anew.
    """

    def __init__(self) -> None:
        # Inputs while warm, the last one, squared differences; then inputs, mean, U, its least.
        self.numbers: Doubles = np.zeros(7)

    def update(self, value: float) -> float | None:
        """By how much the newest input is above the mean of all, where it rings."""
        warm, last, squares, n, mean, total, least = self.numbers.tolist()
        if warm < _WARM:
            # Of differences, which a slow trend hardly changes.
            squares += (value - last) ** 2 if warm else 0.0
            self.numbers[:3] = warm + 1.0, value, squares
            return None
        error = max(sqrt(squares / (2.0 * (_WARM - 1))), 1e-9)
        scaled = value / error
        n += 1.0
        mean += (scaled - mean) / n
        total += scaled - mean - TOLERATED
        least = min(least, total) if n > 1.0 else total
        self.numbers[3:] = n, mean, total, least
        if total - least <= THRESHOLD:
            return None
        self.numbers[:] = 0.0
        return float(value - mean * error)


class Losses:
    """Tells when a loss rises.

    Args:
        names: of the losses.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._tests = {name: PageHinkley() for name in names}
        self._sums = {name: np.zeros(2) for name in names}  # losses, examples
        self._events = 0

    def observe(
        self, losses: Mapping[str, tuple[float, int]], events: int, offset: int
    ) -> list[StreamChange]:
        """Takes what a micro-batch of so many events was learned with: mean losses, and of how many
        examples each.
        """
        for name, (loss, examples) in losses.items():
            if examples:
                self._sums[name] += (loss * examples, examples)
        self._events += events
        if self._events < GROUP:
            return []
        self._events = 0
        found: list[StreamChange] = []
        for name, sums in self._sums.items():
            total, weight = sums.tolist()
            sums[:] = 0.0
            if total <= 0.0:
                continue
            above = self._tests[name].update(log(total / weight))
            if above is not None:
                times = float(np.exp(above))
                said = f"the {name} loss is {times:.2f} times its running mean (Page-Hinkley)"
                found.append(StreamChange(offset, "loss", round(times, 4), said))
        return found

    def state(self) -> State:
        return {
            "events": np.array(self._events, np.int64),
            **{f"sums.{name}": sums for name, sums in self._sums.items()},
            **{f"test.{name}": test.numbers for name, test in self._tests.items()},
        }

    def load(self, state: State) -> None:
        self._events = int(state["events"])
        for name, test in self._tests.items():
            self._sums[name] = state[f"sums.{name}"].copy()
            test.numbers = state[f"test.{name}"].copy()
