"""Peers that learn event by event, as published."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Settings = dict[str, float]


class Transitions:
    """Sequence rules (Ludewig & Jannach, UMUAI 2018), decayed, learned event by event.

    An item gets weight 1 / distance from each of the ``window`` events before it, and scores
    with weight 1 / distance from each of the newest ``window`` events of the history.
    """

    refits = 0

    def __init__(self, items: int, window: int, half_life: float) -> None:
        self._after: list[dict[int, float]] = [{} for _ in range(items)]
        self._window = window
        self._growth = 2.0 ** (1.0 / max(half_life, 1.0))
        self._weight = 1.0

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        if not history:
            return None
        found = np.zeros(seen)
        for distance, item in enumerate(reversed(history[-self._window :]), 1):
            after = self._after[item]
            rows = np.fromiter(after.keys(), np.int64, len(after))
            found[rows] += np.fromiter(after.values(), np.float64, len(after)) / distance
        return found

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        self._weight *= self._growth
        if self._weight > 1e100:
            for after in self._after:
                for key in after:
                    after[key] /= self._weight
            self._weight = 1.0
        for distance, earlier in enumerate(reversed(history[-self._window :]), 1):
            after = self._after[earlier]
            after[item] = after.get(item, 0.0) + self._weight / distance

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        """Nothing is left to fit."""


class Isgd:
    """Incremental matrix factorisation for positive feedback (Vinagre, Jorge & Gama, UMAP 2014).

    One gradient step of (1 - p·q)² per event.
    """

    refits = 0

    def __init__(self, users: int, items: int, settings: Settings) -> None:
        random = np.random.default_rng(int(settings["seed"]))
        factors = int(settings["factors"])
        self._users = random.normal(0.0, 0.1, (users, factors)).astype(np.float32)
        self._items = random.normal(0.0, 0.1, (items, factors)).astype(np.float32)
        self._rate = np.float32(settings["rate"])
        self._l2 = np.float32(settings["regularization"])

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        if not history:
            return None
        # As published: the best is what is predicted nearest to 1.
        found: NDArray[Any] = -np.abs(1.0 - self._items[:seen] @ self._users[user])
        return found

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        p, q = self._users[user].copy(), self._items[item].copy()
        error = np.float32(1.0 - p @ q)
        self._users[user] += self._rate * (error * q - self._l2 * p)
        self._items[item] += self._rate * (error * self._users[user] - self._l2 * q)

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        """Nothing is left to fit."""
