"""The alarm of the prequential window: what is served has become worse than it was, and worse
than a list of what is popular.

Two hypotheses are tested while the stream runs, each by an e-detector (Shin, Ramdas and
Rinaldo, 2023) of CUSUM form: with gains x in [-1, 1], whose conditional mean is not negative
while all is well, M <- max(M, 1) (1 - λ x). As every factor then has a mean of at most 1,
the mean time to a false alarm is at least the threshold, however often one looks; for dependent
predictions too, and without a model of them.

- below popularity: x is the NDCG@10 of the mixture less that of ``popularity``;
- below its reference: x is the NDCG@10 of the mixture less ``_TOLERATED`` times its own mean
  over the last ``_MEMORY`` predictions.

It rings once both are above the threshold. The one that rose first says since when. The second
alone is a drift: the stream has become harder, or another one, and is to be learned.
"""

from __future__ import annotations

import numpy as np

from headwater.types import Doubles, Longs, State, StreamChange

THRESHOLD = 1e6
"""Predictions from one false alarm of a test to the next, at least, on average."""
_BET = 0.5
"""λ: how fast a test grows when things are bad; from 0 to 1."""
_TOLERATED = 0.7
"""Share of the reference that is still fine."""
_MEMORY = 20_000.0
"""Predictions over which the reference is remembered: a bad stretch hardly moves it."""
_WARM = 2_000
"""Predictions before there is a reference."""


class Alarm:
    """Rings when the mixture falls below its past and below popularity; a fold of outcomes."""

    def __init__(self) -> None:
        self._numbers: Doubles = np.zeros(3)  # predictions, decayed weight, decayed gains
        self._logs: Doubles = np.zeros(2)  # of M: below popularity, below the reference
        self._since: Longs = np.zeros(2, np.int64)  # offsets behind which each rose from 1
        self._fallen = False

    @property
    def rings(self) -> bool:
        return bool((self._logs >= np.log(THRESHOLD)).all())

    @property
    def since(self) -> int:
        """Offset behind which what rings now began."""
        return int(self._since.min())

    def fall(self, offset: int) -> StreamChange | None:
        """What the timeline is told at an offset: that the mixture has just been shown to be below
        its reference. It is told again only after the test has been at 1.
        """
        before, evidence = self._fallen, float(self._logs[1])
        self._fallen = evidence > 0.0 if before else evidence >= np.log(THRESHOLD)
        if before or not self._fallen:
            return None
        said = f"NDCG@10 is below {_TOLERATED:g} of {self.reference:.4f}, its running mean, "
        return StreamChange(offset, "gains", _TOLERATED, f"{said}since offset {self._since[1]}")

    @property
    def reference(self) -> float:
        """Running NDCG@10 of the mixture; 0 before there is one."""
        _, weight, gains = self._numbers
        return float(gains / weight) if weight else 0.0

    def observe(self, offsets: Longs, mixture: Doubles, popularity: Doubles) -> None:
        """Takes the NDCG@10 of the next n predictions.

        Args:
            offsets: (n,) of the events that were predicted.
            mixture: (n,) NDCG@10 of what was served.
            popularity: (n,) of the ``popularity`` expert.
        """
        n = len(offsets)
        if not n:
            return
        if self._numbers[0] >= _WARM:
            excess = (mixture - popularity, mixture - _TOLERATED * self.reference)
            for test, values in enumerate(excess):
                self._rise(test, offsets, np.log1p(-_BET * values))
        kept = np.exp(-n / _MEMORY)
        self._numbers *= (1.0, kept, kept)
        self._numbers += (n, (1.0 - kept), (1.0 - kept) * mixture.mean())

    def silence(self) -> None:
        """Starts both tests again; the reference stays."""
        self._logs[:] = 0.0

    def state(self) -> State:
        return {
            "numbers": self._numbers,
            "logs": self._logs,
            "since": self._since,
            "fallen": np.array(self._fallen),
        }

    def load(self, state: State) -> None:
        self._numbers, self._logs = state["numbers"].copy(), state["logs"].copy()
        self._since = state["since"].copy()
        self._fallen = bool(state["fallen"])

    def _rise(self, test: int, offsets: Longs, factors: Doubles) -> None:
        path = self._logs[test] + np.concatenate([[0.0], np.cumsum(factors)])
        lowest = np.minimum.accumulate(path[:-1])
        # Where the path is at its lowest, M is at 1 at most, and starts from there.
        starts = np.flatnonzero((path[:-1] == lowest) & (lowest <= 0.0))
        if len(starts):
            self._since[test] = offsets[starts[-1]] - 1
        self._logs[test] = max(path[-1] - min(lowest[-1], 0.0), 0.0)
