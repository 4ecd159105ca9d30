"""Drift: where the stream changes course, as events of a timeline.

The newest ``BLOCK`` events are compared with the blocks before them, of which older ones count
less and less. What is said of a block is one entry a kind, when a change begins:

- ``types``, ``items``, ``users``: the mix of event types, or of items or users by how many events
  they had before, has moved, by the population stability index (Siddiqi, Credit Risk Scorecards,
  2006), PSI = Σ (p - q) ln(p / q) over the groups' shares.
- ``rate``: live events come ``_RATE`` times as fast as usual, or as slow.
- ``values``: a value of its type lies further outside of those seen than they are apart.
- ``gains``, ``hit_rate``, ``loss``: lists do worse than they did; these are found by the alarm and
  by the detectors, and only counted here.

All are reported and none stops or changes learning: what a drift calls for the model does by
itself (docs/decisions/0015-no-drift-detector-raises-the-learning-rates.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headwater.evaluate._metrics import HISTORY_BUCKETS, history_buckets
from headwater.types import NO_ROW, Batch, Doubles, Flags, Floats, Longs, State, StreamChange

KINDS = ("types", "items", "users", "rate", "values", "gains", "hit_rate", "loss")
"""What may change, in the order in which changes are counted."""

BLOCK = 1_000
"""Events that are compared with those before."""
PSI = {"types": 0.25, "items": 0.5, "users": 0.5}
"""Index above which a mix has changed. 0.25 is the usual figure, for independent events; on the
first halves of four public streams the largest one was 0.15 of types, 0.45 of items and 0.44
of users, and on one of daily news 0.06, 1.1 and 0.54. Where all items of two of them change
places, 0.63 and 1.2 of items."""
_MEMORY = 0.9
"""What a block counts less with each one after it: ten blocks are remembered."""
_WARM = 3.0
"""Blocks before there is something to compare with: 2.7 after three."""
_ITEM_STARTS = np.array([1, 10, 100])
"""Earlier events of an item at which a group begins."""
_RATE = 20.0
_SHORTEST = 1.0
"""Seconds that a block takes at least, as clocks are no finer."""


class Drift:
    """Compares the newest events with those before; a fold like any other.

    Args:
        types: number of event types, the unknown one included.
    """

    def __init__(self, types: int) -> None:
        groups = {"types": types, "items": 1 + len(_ITEM_STARTS), "users": len(HISTORY_BUCKETS)}
        self._counts = np.zeros(len(KINDS), np.int64)
        self._begun = np.zeros(len(KINDS), np.bool_)
        self._block = {name: np.zeros(n) for name, n in groups.items()}
        self._usual = {name: np.zeros(n) for name, n in groups.items()}
        self._numbers: Doubles = np.zeros(2)  # events of the block, stream time at its start
        self._rate: Doubles = np.zeros(2)  # decayed: live events, and their seconds
        # Per type: the least and the largest value, and how many; of the block, the oddest one.
        self._values = np.tile([np.inf, -np.inf, 0.0], (types, 1))

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind of change has begun."""
        return {kind: int(n) for kind, n in zip(KINDS, self._counts, strict=True)}

    def count(self, change: StreamChange) -> None:
        """Counts a change that was found elsewhere."""
        self._counts[KINDS.index(change.what)] += 1

    def observe(self, batch: Batch, values: Floats, live: Flags) -> list[StreamChange]:
        """Takes the next B events; what has changed with them.

        Args:
            batch: the events.
            values: (B,) the value of each event, NaN where it has none.
            live: (B,) events that were sent when they happened: of others there is no rate.
        """
        found: list[StreamChange] = []
        start = 0
        while start < len(batch):
            stop = min(len(batch), start + BLOCK - int(self._numbers[0]))
            found += self._add(batch, values, slice(start, stop))
            if self._numbers[0] == BLOCK:
                found += self._end_block(batch, stop - 1, bool(live[stop - 1]))
            start = stop
        return found

    def state(self) -> State:
        return {
            "counts": self._counts,
            "begun": self._begun,
            "numbers": self._numbers,
            "rate": self._rate,
            "values": self._values,
            **{f"block.{name}": counts for name, counts in self._block.items()},
            **{f"usual.{name}": counts for name, counts in self._usual.items()},
        }

    def load(self, state: State) -> None:
        self._counts, self._begun = state["counts"].copy(), state["begun"].copy()
        self._numbers, self._rate = state["numbers"].copy(), state["rate"].copy()
        self._values = state["values"].copy()
        self._block = {name: state[f"block.{name}"].copy() for name in self._block}
        self._usual = {name: state[f"usual.{name}"].copy() for name in self._usual}

    def _add(self, batch: Batch, values: Floats, part: slice) -> list[StreamChange]:
        """Counts events of one block."""
        if not self._numbers[0]:
            self._numbers[1] = batch.contexts.times[part.start]
        self._numbers[0] += part.stop - part.start
        had = batch.item_events_before[part][batch.items[part] != NO_ROW]
        groups: Sequence[tuple[str, Longs]] = (
            ("types", batch.types[part].astype(np.int64)),
            ("items", np.searchsorted(_ITEM_STARTS, had, side="right")),
            ("users", history_buckets(batch.contexts.history_lengths[part]).astype(np.int64)),
        )
        for name, codes in groups:
            self._block[name] += np.bincount(codes, minlength=len(self._block[name]))
        return self._odd_values(batch, values, part)

    def _odd_values(self, batch: Batch, values: Floats, part: slice) -> list[StreamChange]:
        found: list[StreamChange] = []
        for at in part.start + np.flatnonzero(np.isfinite(values[part])):
            seen, value = self._values[batch.types[at]], float(values[at])
            low, high, n = seen.tolist()
            apart = max(high - low, abs(high)) if n else 0.0
            if n >= BLOCK and not low - apart <= value <= high + apart:
                found += self._say(
                    "values",
                    int(batch.offsets[at]),
                    value,
                    f"a value of {value:g}, where {n:,.0f} were from {low:g} to {high:g}",
                )
            seen[:] = min(low, value), max(high, value), n + 1
        return found

    def _end_block(self, batch: Batch, last: int, live: bool) -> list[StreamChange]:
        """Compares a full block with those before, and adds it to them."""
        found: list[StreamChange] = []
        offset = int(batch.offsets[last])
        for name, counts in self._block.items():
            usual = self._usual[name]
            if usual.sum() >= (_WARM - 0.5) * BLOCK:
                found += self._judge(name, offset, psi(counts, usual), PSI[name])
            usual *= _MEMORY
            usual += counts
            counts[:] = 0.0
        seconds = max(float(batch.contexts.times[last] - self._numbers[1]), _SHORTEST)
        if live:
            if self._rate[0] >= (_WARM - 0.5) * BLOCK:
                times = float(self._rate[1] / self._rate[0] / (seconds / BLOCK))
                unusual = max(times, 1.0 / times) >= _RATE
                if unusual and not self._begun[KINDS.index("rate")]:
                    found += self._say("rate", offset, times, f"{times:.3g} times the usual rate")
                self._begun[KINDS.index("rate")] = unusual
            self._rate *= _MEMORY
            self._rate += (BLOCK, seconds)
        self._begun[KINDS.index("values")] = False
        self._numbers[0] = 0.0
        return found

    def _judge(self, kind: str, offset: int, index: float, limit: float) -> list[StreamChange]:
        place = KINDS.index(kind)
        begins = index > limit and not self._begun[place]
        # Half-way back it is over: near the limit one change would be told again and again.
        self._begun[place] = index > limit * (0.5 if self._begun[place] else 1.0)
        if not begins:
            return []
        return self._noted(kind, offset, index, f"PSI of {index:.2f}, above {limit:g}")

    def _say(self, kind: str, offset: int, size: float, reason: str) -> list[StreamChange]:
        """One entry, unless the change has begun already."""
        place = KINDS.index(kind)
        if self._begun[place]:
            return []
        self._begun[place] = True
        return self._noted(kind, offset, size, reason)

    def _noted(self, kind: str, offset: int, size: float, reason: str) -> list[StreamChange]:
        self._counts[KINDS.index(kind)] += 1
        return [StreamChange(offset, kind, round(size, 4), reason)]


def psi(newest: Doubles, usual: Doubles) -> float:
    """Population stability index of two (G,) counts; half an event is added to each group.

    >>> psi(np.array([50.0, 50.0]), np.array([500.0, 500.0]))
    0.0
    >>> round(psi(np.array([90.0, 10.0]), np.array([500.0, 500.0])), 2)
    0.85
    """
    groups = len(newest)
    p = (newest + 0.5) / (newest.sum() + 0.5 * groups)
    q = (usual + 0.5) / (usual.sum() + 0.5 * groups)
    return float(((p - q) * np.log(p / q)).sum())
