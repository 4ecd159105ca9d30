"""Which ids get a row: those that were seen often enough."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from headwater.preprocess._vocabulary import Vocabulary
from headwater.types import NO_ROW, Ints, Longs, State

_DEPTH = 4
_WIDTH = 1 << 18
"""Counters per line of the sketch, a megabyte in all. With ``_HALVED_AFTER`` an id that was
seen once is taken for one that was seen more often in 2.4 % of all cases at most,
(1 - exp(-1/2)) ** 4."""

_HALVED_AFTER = 1 << 16
"""Sightings after which every count is halved: what was seen long ago is no evidence."""

_MOST = 255


class Admission:
    """Gives rows to ids at their n-th sighting; before it they have none.

    Most new ids of a long-tailed stream are never seen again, and a table of them is
    mostly waste (the frequency filter of Monolith; Liu et al., 2022). Sightings of ids
    without a row are counted by a count-min sketch (Cormode and Muthukrishnan, 2005)
    with conservative updates, and aged by halving (TinyLFU; Einziger et al., 2017): it
    takes a fixed amount of memory, for which a few ids are admitted early.

    Args:
        vocabulary: that gives the rows.
        after: n; 1 admits every id at first sight and counts nothing.
    """

    def __init__(self, vocabulary: Vocabulary, after: int) -> None:
        self._vocabulary = vocabulary
        self._after = after
        self._counts = np.zeros((_DEPTH, _WIDTH if after > 1 else 0), np.uint8)
        self._counted = 0

    def row(self, id: str) -> int:
        """The row of ``id``, ``NO_ROW`` where this sighting doesn't admit it yet."""
        if self._after == 1:
            return self._vocabulary.row(id)
        row = self._vocabulary.find(id)
        if row == NO_ROW and self._seen(id) >= self._after:
            row = self._vocabulary.row(id)
        return row

    def rows(self, ids: Sequence[str | None]) -> Ints:
        """(n,) the row of each id, sighted in this order; ``NO_ROW`` where there is no id."""
        if self._after == 1:
            return self._vocabulary.rows(ids)
        found = self._vocabulary.find_rows(ids)
        for place in np.flatnonzero(found == NO_ROW).tolist():
            if (id := ids[place]) is not None:
                found[place] = self.row(id)
        return found

    def state(self) -> State:
        return {"counts": self._counts, "counted": np.array(self._counted, np.int64)}

    def load(self, state: State) -> None:
        """Takes over a state; that of another ``after`` which needed no counts starts empty."""
        if state["counts"].shape == self._counts.shape:
            self._counts = state["counts"].copy()
            self._counted = int(state["counted"])

    def _seen(self, id: str) -> int:
        """Counts a sighting; returns how many there were, with this one."""
        lines, places = _LINES, _places(id)
        counts = self._counts[lines, places]
        seen = min(int(counts.min()) + 1, _MOST)
        self._counts[lines, places] = np.maximum(counts, seen)
        self._counted += 1
        if self._counted == _HALVED_AFTER:
            self._counts >>= 1
            self._counted = 0
        return seen


_LINES = np.arange(_DEPTH)


def _places(id: str) -> Longs:
    """(DEPTH,) a counter per line; the same ones in every process."""
    digest = blake2b(id.encode("utf-8", "surrogatepass"), digest_size=4 * _DEPTH).digest()
    return np.frombuffer(digest, "<u4").astype(np.int64) % _WIDTH
