"""Replay buffers: recent examples that a step learns again (ADER, RecSys 2020).

Both are rings over fixed arrays, so memory is bounded, a snapshot is a copy, and
a refold samples what the first run sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.types import Doubles, Flags, Ints, Longs, State

_RETIRED = np.iinfo(np.int32).max


@dataclass(slots=True)
class Drawn:
    """The examples of one expert's step: new ones, for the buffer, and places of replayed ones."""

    fresh: dict[str, NDArray[Any]]
    again: Ints


class Replay:
    """A ring of examples; each is a row in every one of the named columns.

    Args:
        capacity: examples kept; the oldest make place.
        cap: replays of one example at most.
        columns: name -> (shape of one example, dtype).
    """

    def __init__(
        self, capacity: int, cap: int, columns: dict[str, tuple[tuple[int, ...], Any]]
    ) -> None:
        self.capacity = capacity
        self.cap = cap
        self._columns: dict[str, NDArray[Any]] = {
            name: np.zeros((capacity, *shape), dtype) for name, (shape, dtype) in columns.items()
        }
        self._uses = np.zeros(capacity, np.int32)
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def add(self, examples: dict[str, NDArray[Any]]) -> None:
        """Appends examples, given per column."""
        n = len(next(iter(examples.values())))
        if not n or not self.capacity:
            return
        skipped = max(n - self.capacity, 0)
        places = (self._added + np.arange(skipped, n)) % self.capacity
        for name, values in examples.items():
            self._columns[name][places] = values[skipped:]
        self._uses[places] = 0
        self._added += n

    def sample(self, n: int, random: np.random.Generator, chances: Doubles | None = None) -> Ints:
        """Places of about n examples that may still be replayed, fewer where few are left.

        Args:
            n: draws; an example that is drawn twice is taken once.
            random: of the draws.
            chances: (len(self),) how likely each example is drawn, up to a common factor;
                ``None`` for all alike.
        """
        if not len(self) or not n:
            return np.zeros(0, np.int32)
        if chances is None:
            drawn = random.integers(0, len(self), n)
        else:
            until = np.cumsum(chances)
            drawn = np.searchsorted(until[:-1], random.random(n) * until[-1], side="right")
        places = np.unique(drawn).astype(np.int32)
        places = places[self._uses[places] < self.cap]
        self._uses[places] += 1
        return places

    def put_back(self, places: Ints) -> None:
        """Undoes a ``sample`` whose step wasn't taken."""
        self._uses[places] -= 1

    def column(self, name: str) -> NDArray[Any]:
        """One column of all examples, a view."""
        return self._columns[name][: len(self)]

    def spent(self) -> Flags:
        """(len(self),) whether an example was replayed as often as it may be."""
        spent: Flags = self._uses[: len(self)] >= self.cap
        return spent

    def take(self, places: Ints) -> dict[str, NDArray[Any]]:
        """The examples at ``places``, per column."""
        return {name: column[places] for name, column in self._columns.items()}

    def retire(self, name: str, rows: Ints) -> None:
        """Never replays the examples again that hold one of ``rows`` in the column ``name``."""
        column = self.column(name)
        flags = np.zeros(int(max(column.max(initial=0), rows.max(initial=0))) + 2, np.bool_)
        flags[rows] = True  # the last one stays False: that of NO_ROW
        named = flags[column].any(axis=tuple(range(1, column.ndim)))
        self._uses[: len(self)][named] = _RETIRED

    def state(self) -> State:
        n = len(self)
        added: Longs = np.array(self._added, np.int64)
        return {
            "added": added,
            "uses": self._uses[:n],
            **{f"column.{name}": column[:n] for name, column in self._columns.items()},
        }

    def load(self, state: State) -> None:
        """Takes the newest examples over; the capacity may have been another one."""
        n, added = len(state["uses"]), int(state["added"])
        kept = min(n, self.capacity)
        self._added = added if n >= self.capacity else n
        newest = np.arange(-kept, 0)
        places = (self._added + newest) % max(self.capacity, 1)
        saved = (added + newest) % max(n, 1)
        self._uses[places] = state["uses"][saved]
        for name, column in self._columns.items():
            column[places] = state[f"column.{name}"][saved]
