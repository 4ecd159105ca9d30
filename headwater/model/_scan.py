"""A first look at every item in bytes, where there are too many to score each one exactly.

The vector of item i is kept as integers c_i = round(127 v_i / m_i), with m_i its largest absolute
value, and so is a user's. Then

    <u, v_i> + b_i  ~  m_u m_i / 127 ** 2 * <c_u, c_i> + b_i

which takes a quarter of the memory to be read, and products of integers, that processors do
several times as fast. What comes first in it is scored by the vectors themselves. Unlike an index
of cells it has nothing to train: the bytes of an item depend on its own vector alone.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from headwater.types import NO_ROW, Contexts, Flags, Floats, Ints, Longs, State

_BLOCK = 8_192
"""Items multiplied at a time: the products with 64 users, 2 MB, still fit a core's own cache. On
an Intel Xeon 4,096 to 16,384 were equally fast."""

_MOST = 127.0


class Scan:
    """The bytes of N items.

    Args:
        dim: D, of a vector without its bias.
    """

    def __init__(self, dim: int) -> None:
        self.n_items = 0
        self._codes = np.zeros((0, dim), np.int8)
        self._scales = np.zeros(0, np.float32)
        self._biases = np.zeros(0, np.float32)

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._scales):
            size = max(n_items, 2 * len(self._scales))
            for name in ("_codes", "_scales", "_biases"):
                old = getattr(self, name)
                grown = np.zeros((size, *old.shape[1:]), old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
        self.n_items = max(self.n_items, n_items)

    def put(self, rows: Ints, vectors: Floats) -> None:
        """Takes the (R, D + 1) vectors of items, whose last column is the bias."""
        _encode(vectors, rows, self._codes, self._scales, self._biases)

    def best(self, users: Floats, contexts: Contexts, withheld: Flags, n: int) -> Ints:
        """(B, n) the rows that seem best for each user, in any order; ``NO_ROW`` for none.

        Args:
            users: (B, D + 1); the last column is 1, for the bias.
            contexts: B of them, for what is excluded.
            withheld: (N,) rows that nobody may be shown.
        """
        batch = len(users)
        codes = np.zeros((batch, self._codes.shape[1]), np.int8)
        scales = np.zeros(batch, np.float32)
        _encode(users, np.arange(batch, dtype=np.int32), codes, scales, np.zeros_like(scales))
        asked = torch.from_numpy(np.ascontiguousarray(codes.T))
        rows = np.full((batch, n), NO_ROW, np.int32)
        scores = np.full((batch, n), -np.inf, np.float32)
        filled = np.zeros(batch, np.int64)
        excluded = [
            np.sort(contexts.excluded[start:end])
            for start, end in zip(
                contexts.excluded_starts[:-1], contexts.excluded_starts[1:], strict=True
            )
        ]
        barred = np.concatenate([*excluded, np.zeros(0, np.int32)])
        of_items = torch.from_numpy(self._codes)
        products = torch.empty((_BLOCK, batch), dtype=torch.int32)
        # No more than there are flags for: what came since isn't known yet to who asks.
        known = min(self.n_items, len(withheld))
        for first in range(0, known, _BLOCK):
            end = min(first + _BLOCK, known)
            block = products[: end - first]
            torch._int_mm(of_items[first:end], asked, out=block)
            _offer(
                block.numpy(),
                first,
                self._scales,
                self._biases,
                scales,
                withheld,
                contexts.excluded_starts,
                barred,
                rows,
                scores,
                filled,
            )
        return rows

    def state(self) -> State:
        n = self.n_items
        return {
            "codes": self._codes[:n],
            "scales": self._scales[:n],
            "biases": self._biases[:n],
        }

    def load(self, state: State) -> None:
        for name, value in state.items():
            setattr(self, "_" + name, value.copy())
        self.n_items = len(self._scales)


@njit(cache=True, nogil=True)
def _encode(vectors: Floats, rows: Ints, codes: np.ndarray, scales: Floats, biases: Floats) -> None:
    dim = codes.shape[1]
    for k in range(len(rows)):
        most = np.float32(0)
        for d in range(dim):
            most = max(most, abs(vectors[k, d]))
        row = rows[k]
        scales[row] = most / np.float32(_MOST)
        biases[row] = vectors[k, dim]
        factor = np.float32(_MOST) / most if most > 0 else np.float32(0)
        for d in range(dim):
            codes[row, d] = np.int8(np.rint(vectors[k, d] * factor))


@njit(cache=True, nogil=True)
def _offer(
    products: Ints,
    first: int,
    scales: Floats,
    biases: Floats,
    user_scales: Floats,
    withheld: Flags,
    excluded_starts: Longs,
    barred: Ints,
    rows: Ints,
    scores: Floats,
    filled: Longs,
) -> None:
    """Puts a block of items into each user's heap of the best, the worst of them on top."""
    n, batch = products.shape
    size = rows.shape[1]
    floors = np.full(batch, -np.inf, np.float32)
    for b in range(batch):
        if filled[b] == size:
            floors[b] = scores[b, 0]
    for j in range(n):
        row = first + j
        scale, bias = scales[row], biases[row]
        # A sum, because loops that leave early aren't done 16 at a time.
        above = 0
        for b in range(batch):
            above += user_scales[b] * scale * products[j, b] + bias > floors[b]
        if not above or withheld[row]:
            continue
        for b in range(batch):
            score = user_scales[b] * scale * products[j, b] + bias
            if score > floors[b] and not _holds(
                barred, excluded_starts[b], excluded_starts[b + 1], row
            ):
                _push(rows[b], scores[b], filled[b], row, score)
                filled[b] = min(filled[b] + 1, size)
                if filled[b] == size:
                    floors[b] = scores[b, 0]


@njit(cache=True, nogil=True)
def _holds(ordered: Ints, start: int, end: int, row: int) -> bool:
    """Whether ``ordered[start:end]`` has the row."""
    while start < end:
        middle = (start + end) // 2
        if ordered[middle] == row:
            return True
        if ordered[middle] < row:
            start = middle + 1
        else:
            end = middle
    return False


@njit(cache=True, nogil=True)
def _push(rows: Ints, scores: Floats, filled: int, row: int, score: float) -> None:
    """Into a heap with the least score on top; a full one loses that."""
    if filled < len(rows):
        at = filled
        while at > 0 and scores[(at - 1) // 2] > score:
            scores[at], rows[at] = scores[(at - 1) // 2], rows[(at - 1) // 2]
            at = (at - 1) // 2
    else:
        at = 0
        while True:
            child = 2 * at + 1
            if child >= filled:
                break
            if child + 1 < filled and scores[child + 1] < scores[child]:
                child += 1
            if scores[child] >= score:
                break
            scores[at], rows[at] = scores[child], rows[child]
            at = child
    scores[at], rows[at] = score, row
