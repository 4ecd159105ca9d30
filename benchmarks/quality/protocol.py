"""The prequential protocol for peers: predict, then learn, and never the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Ranks = dict[str, NDArray[np.float64]]
"""Model -> (n,) the rank of every target."""

LIST_LENGTH = 100
"""A true item past the longest served list is a miss."""

MISS = -1.0

REFITS = 20
"""Most refits of a batch peer in a stream, where it asks for no fewer."""

REFIT_EVENTS = 2000
"""Fewest events between two refits."""

POPULAR_HALF_LIFE = 0.05
"""Half-life of the decayed counts, as a share of the stream's events."""


@dataclass
class Stream:
    """N events in time order; items are numbered in order of first appearance.

    So the items seen before an event are ``0 .. seen - 1``, without a mask.
    """

    users: NDArray[np.int32]  # (N,)
    items: NDArray[np.int32]  # (N,)
    times: NDArray[np.float64]  # (N,) seconds
    wanted: NDArray[np.bool_]  # (N,) of positive polarity: learned, and a target
    grouped: bool  # whether simultaneous events are predicted together
    repeats: bool  # whether items that the user had stay in

    def __len__(self) -> int:
        return len(self.items)

    def moments(self) -> Iterator[tuple[int, int]]:
        """Start and stop of what is predicted together."""
        n = len(self)
        cuts = np.arange(1, n)
        if self.grouped:
            cuts = np.flatnonzero(np.diff(self.times)) + 1
        return pairwise([0, *cuts.tolist(), n])

    def targets(self) -> NDArray[np.int64]:
        """Places of the events that are predicted: of equal rows of a group, the first."""
        if not self.grouped:
            return np.flatnonzero(self.wanted)
        kept = []
        for start, stop in self.moments():
            pairs: set[tuple[int, int]] = set()
            for k in range(start, stop):
                pair = (int(self.users[k]), int(self.items[k]))
                if self.wanted[k] and pair not in pairs:
                    pairs.add(pair)
                    kept.append(k)
        return np.array(kept, np.int64)

    def save(self, path: Path) -> None:
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Stream:
        with np.load(path, allow_pickle=False) as saved:
            arrays: dict[str, Any] = {name: saved[name] for name in saved.files}
        for flag in ("grouped", "repeats"):
            arrays[flag] = bool(arrays[flag])
        return cls(**arrays)


class History:
    """What users had, exactly: every earlier wanted event."""

    def __init__(self) -> None:
        self._items: dict[int, list[int]] = {}

    def of(self, user: int) -> list[int]:
        """Item numbers, oldest first."""
        return self._items.get(user, [])

    def add(self, user: int, item: int) -> None:
        self._items.setdefault(user, []).append(item)


class Peer(Protocol):
    """A recommender under the protocol."""

    refits: int
    """Most refits in a stream, spread evenly; 0: it learns by ``learn``, others by ``refit``."""

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        """(at most ``seen``,) scores of items ``0 ..``; ``None`` where nothing can be told.

        Items past the end of a shorter array are placed below all others.
        """
        ...

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        """Learns one event; ``history`` ends before it."""
        ...

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        """Starts over on all wanted events so far."""
        ...


class Popularity:
    """Counts that halve every ``half_life`` events; also what a peer that knows nothing serves.

    New events weigh more instead of old ones less: the order is the same, and it costs one add.
    """

    refits = 0

    def __init__(self, items: int, half_life: float) -> None:
        self._counts = np.zeros(items)
        self._growth = 2.0 ** (1.0 / max(half_life, 1.0))
        self._weight = 1.0

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        return self._counts[:seen]

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        self._weight *= self._growth
        if self._weight > 1e100:
            self._counts /= self._weight
            self._weight = 1.0
        self._counts[item] += self._weight

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        """Nothing is left to fit."""


def rank(scores: NDArray[Any], item: int, seen: int, excluded: list[int]) -> float:
    """0-based place of ``item`` in the served list, ties at their mean; ``MISS`` if not in it.

    >>> rank(np.array([3.0, 1.0, 1.0, 2.0]), 2, 4, [])
    2.5
    >>> rank(np.array([3.0, 1.0, 1.0, 2.0]), 2, 4, [0, 3])
    0.5
    >>> rank(np.array([3.0, 1.0]), 3, 4, [])  # 2 and 3 have no score, and share the end
    2.5
    """
    if item >= seen or item in excluded:
        return MISS
    own = scores[item] if item < len(scores) else -np.inf
    # Excluded items are counted out one by one: most histories are short, the catalogue isn't.
    gone = np.array(sorted(set(excluded)), np.int64)
    hidden = scores[gone[gone < len(scores)]]
    unscored = seen - len(scores) - int((gone >= len(scores)).sum())
    if item >= len(scores):
        above, equal = len(scores) - len(hidden), unscored
    else:
        above = int((scores > own).sum()) - int((hidden > own).sum())
        equal = int((scores == own).sum()) - int((hidden == own).sum())
    place = above + (equal - 1) / 2
    return place if place < LIST_LENGTH else MISS


def evaluate(
    stream: Stream,
    peer: Peer,
    *,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] = lambda events: None,
) -> NDArray[np.float64]:
    """(n,) the rank of every target before ``stop``, and ``MISS`` for those before ``start``.

    Args:
        start: events that are learned, and not predicted.
        stop: events that are read, by default all; refits and half-lives stay those of the
            whole stream.
        progress: called now and then with the events done.
    """
    n = len(stream)
    stop = n if stop is None else stop
    interval = max(REFIT_EVENTS, -(-n // peer.refits)) if peer.refits else n
    history = History()
    popular = Popularity(int(stream.items.max(initial=-1)) + 1, POPULAR_HALF_LIFE * n)
    targets = np.zeros(n, np.bool_)
    targets[stream.targets()] = True
    ranks: list[float] = []
    seen, fitted, told = 0, 0, 0
    users, items, wanted = stream.users.tolist(), stream.items.tolist(), stream.wanted.tolist()
    times, predicted = stream.times.tolist(), targets.tolist()
    for first, end in stream.moments():
        if first >= stop:
            break
        if peer.refits and first - fitted >= interval:
            fitted = first
            # It starts over each time, so what is replaced before anyone asks is left out.
            if first + 2 * interval > start:
                known = np.flatnonzero(stream.wanted[:first])
                peer.refit(stream.users[known], stream.items[known], seen)
        for k in range(first, end):
            if not predicted[k]:
                continue
            had = history.of(users[k])
            if k < start or items[k] >= seen:
                ranks.append(MISS)
                continue
            scores = peer.scores(users[k], had, seen)
            if scores is None:
                scores = popular.scores(users[k], had, seen)
            assert scores is not None
            ranks.append(rank(scores, items[k], seen, [] if stream.repeats else had))
        for k in range(first, end):
            seen = max(seen, items[k] + 1)
            if wanted[k]:
                had = history.of(users[k])
                popular.learn(users[k], items[k], had, times[k])
                if not peer.refits:
                    peer.learn(users[k], items[k], had, times[k])
                history.add(users[k], items[k])
        if first - told >= 200:
            progress(first)
            told = first
    progress(stop)
    return np.array(ranks, np.float64)


def gains(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) NDCG@10 of each target.

    >>> gains(np.array([0.0, 1.0, 9.5, 10.0, MISS])).round(4).tolist()
    [1.0, 0.6309, 0.2838, 0.0, 0.0]
    """
    found = (ranks >= 0) & (ranks < 10)
    return np.where(found, 1.0 / np.log2(np.maximum(ranks, 0.0) + 2.0), 0.0)
