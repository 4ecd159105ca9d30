"""EASE, the closed form, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocol import REFITS


class Ease:
    """EASE (Steck, WWW 2019) on the ``items`` items with most users, refitted."""

    refits = REFITS

    def __init__(self, l2: float, items: int) -> None:
        self._l2 = l2
        self._most = items
        self._weights: NDArray[Any] = np.zeros((0, 0), np.float32)
        self._place = np.zeros(0, np.int64)  # item -> row of the weights, -1 without
        self._kept = np.zeros(0, np.int64)

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        pairs = np.unique(np.stack([users, items]).astype(np.int64), axis=1)
        popular = np.bincount(pairs[1], minlength=seen)
        self._kept = np.sort(np.argsort(-popular, kind="stable")[: self._most])
        self._place = np.full(seen, -1, np.int64)
        self._place[self._kept] = np.arange(len(self._kept))
        gram = np.zeros((len(self._kept), len(self._kept)), np.float32)
        starts = np.flatnonzero(np.diff(pairs[0], prepend=-1))
        for had in np.split(pairs[1], starts[1:]):
            rows = self._place[had]
            rows = rows[rows >= 0]
            gram[np.ix_(rows, rows)] += 1.0
        gram[np.diag_indices_from(gram)] += np.float32(self._l2)
        inverse = np.linalg.inv(gram)
        self._weights = -inverse / np.diag(inverse)
        np.fill_diagonal(self._weights, 0.0)

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        known = {item for item in history if item < len(self._place)}
        rows = self._place[sorted(known)]
        rows = rows[rows >= 0]
        if not len(rows):
            return None
        found = np.full(len(self._place), -np.inf, np.float32)
        found[self._kept] = self._weights[rows].sum(axis=0)
        return found

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        """Learns by refitting only."""
