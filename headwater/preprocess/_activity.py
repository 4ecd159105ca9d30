"""When each row was last named, and which rows go when there are too many or they are idle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from headwater.types import Doubles, Flags, Ints, Longs, State

_SPARE = 20
"""Above the bound, a twentieth of it goes at once: not every sweep has to expire."""


class Activity:
    """Offset and stream time of the newest entry that named each row.

    Args:
        most: rows that a sweep leaves at most.
        idle: seconds of stream time after which a row goes; ``None`` for never by time alone.
    """

    def __init__(self, most: int, idle: float | None) -> None:
        self.most = most
        self.idle = idle
        self._rows = 0
        self._offsets = np.zeros(0, np.int64)
        self._times = np.zeros(0, np.float64)

    def note(self, rows: Ints, offsets: Longs, times: Doubles) -> None:
        """Takes what named which row, ``NO_ROW`` for none, by ascending offset."""
        n = int(rows.max(initial=-1)) + 1
        if n > len(self._offsets):
            size = max(n, len(self._offsets) * 5 // 4, 64)
            self._offsets = np.pad(self._offsets, (0, size - len(self._offsets)))
            self._times = np.pad(self._times, (0, size - len(self._times)))
        self._rows = max(self._rows, n)
        _note(rows, offsets, times, self._offsets, self._times)

    def expired(self, in_use: Flags, lasting: Callable[[int], Flags], now: float) -> Ints:
        """The rows that go, ascending: idle ones, and the least recently named above the bound.

        Args:
            in_use: (N,) rows that may go.
            lasting: (N,) rows that don't go by time alone, for N; asked where time is looked at.
            now: stream time.
        """
        if self.idle is None and np.count_nonzero(in_use) <= self.most:
            return np.zeros(0, np.int32)
        rows = np.flatnonzero(in_use)
        idle = np.zeros(len(rows), np.bool_)
        if self.idle is not None:
            idle = (self._times[rows] < now - self.idle) & ~lasting(len(in_use))[rows]
        gone, left = rows[idle], rows[~idle]
        if len(left) > self.most:
            n = len(left) - (self.most - self.most // _SPARE)
            # An entry names one row, so no two rows have the same newest offset.
            oldest = np.argpartition(self._offsets[left], n - 1)[:n]
            gone = np.concatenate([gone, left[oldest]])
        return np.sort(gone).astype(np.int32)

    def state(self) -> State:
        return {"offsets": self._offsets[: self._rows], "times": self._times[: self._rows]}

    def load(self, state: State) -> None:
        self._offsets, self._times = state["offsets"].copy(), state["times"].copy()
        self._rows = len(self._offsets)


@njit(cache=True, nogil=True)
def _note(rows: Ints, offsets: Longs, times: Doubles, newest: Longs, newest_times: Doubles) -> None:
    for k in range(len(rows)):
        row = rows[k]
        if row >= 0 and offsets[k] > newest[row]:
            newest[row], newest_times[row] = offsets[k], times[k]
