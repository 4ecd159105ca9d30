"""The peers: what else is in use, with sensible settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocol import POPULAR_HALF_LIFE, Peer, Popularity

Settings = dict[str, float]

GRIDS: dict[str, list[Settings]] = {
    "popularity": [{"half_life": POPULAR_HALF_LIFE}],
    "transitions": [{"window": 10, "half_life": 0.2}],
    "isgd": [
        {"factors": 64, "rate": rate, "regularization": 0.01, "seed": 1} for rate in (0.05, 0.2)
    ],
    "ease": [{"l2": l2, "items": 6000} for l2 in (100.0, 500.0)],
    "implicit-knn": [{"neighbours": k} for k in (50, 200)],
    "implicit-als": [
        {"factors": 64, "regularization": 0.05, "iterations": 15, "alpha": alpha, "seed": 1}
        for alpha in (1.0, 20.0)
    ],
}
"""Peer -> the settings tried on the first half of a stream; the best there is reported."""

NEEDS_IMPLICIT = ("implicit-knn", "implicit-als")


def make(name: str, settings: Settings, users: int, items: int, events: int) -> Peer:
    """A peer that has learned nothing.

    Args:
        name: a key of ``GRIDS``.
        settings: of that peer; half-lives are shares of the stream.
        users: users in the stream, for the size of tables.
        items: items in the stream, likewise.
        events: events in the stream.
    """
    if name == "popularity":
        return Popularity(items, settings["half_life"] * events)
    if name == "transitions":
        return Transitions(items, int(settings["window"]), settings["half_life"] * events)
    if name == "isgd":
        return Isgd(users, items, settings)
    if name == "ease":
        return Ease(settings["l2"], int(settings["items"]))
    from benchmarks.quality.implicit_peers import Als, Knn

    return Knn(int(settings["neighbours"])) if name == "implicit-knn" else Als(settings)


class Transitions:
    """Sequence rules (Ludewig & Jannach, UMUAI 2018), decayed, learned event by event.

    An item gets weight 1 / distance from each of the ``window`` events before it, and scores
    with weight 1 / distance from each of the newest ``window`` events of the history.
    """

    batch = False

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

    batch = False

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


class Ease:
    """EASE (Steck, WWW 2019) on the ``items`` items with most users, refitted."""

    batch = True

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
