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

from headwater.model._keys import halve, holds, key_of, ordered, ordered_bits, score_of, take
from headwater.types import NO_ROW, Contexts, Flags, Floats, Ints, Longs, State

_PRODUCTS = 128 * 1_024
"""Products made at a time: half a megabyte, a quarter of a core's own cache. On an Intel Xeon half
and twice as many were equally fast."""

_CHUNK = 32
"""Items that are passed over together where none of them is wanted."""

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
        self._lengths = np.zeros(0, np.float32)  # of the codes, from which they follow
        self._room = torch.empty(0, dtype=torch.int32)  # a search's products

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._scales):
            size = max(n_items, 2 * len(self._scales))
            for name in ("_codes", "_scales", "_biases", "_lengths"):
                old = getattr(self, name)
                grown = np.zeros((size, *old.shape[1:]), old.dtype)
                grown[: len(old)] = old
                setattr(self, name, grown)
        self.n_items = max(self.n_items, n_items)

    def put(self, rows: Ints, vectors: Floats) -> None:
        """Takes the (R, D + 1) vectors of items, whose last column is the bias."""
        _encode(np.ascontiguousarray(vectors), rows, self._codes, self._scales, self._biases)
        _measure(self._codes, rows, self._lengths)

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
        users = np.ascontiguousarray(users)
        _encode(users, np.arange(batch, dtype=np.int32), codes, scales, np.zeros_like(scales))
        asked, of_items = torch.from_numpy(codes), torch.from_numpy(self._codes)
        kept = np.empty((batch, 2 * n), np.int64)
        filled = np.zeros(batch, np.int64)
        floors = np.full(batch, -np.inf, np.float32)
        barred = ordered(contexts.excluded_starts, contexts.excluded)
        # No more than there are flags for: what came since isn't known yet to who asks.
        known = min(self.n_items, len(withheld))
        step = max(_PRODUCTS // batch, _CHUNK)
        if len(self._room) < batch * step:  # a new one each time would be new pages each time
            self._room = torch.empty(batch * step, dtype=torch.int32)
        for first in range(0, known, step):
            block = of_items[first : min(first + step, known)]
            products = self._room[: batch * len(block)].view(batch, -1)
            if batch == 1:  # either way round they are the same, and sooner this way
                torch._int_mm(block, asked.T, out=products.view(-1, 1))
            else:
                torch._int_mm(asked, block.T, out=products)
            _offer(
                products.numpy(),
                first,
                self._scales,
                self._biases,
                scales,
                withheld,
                contexts.excluded_starts,
                barred,
                kept,
                filled,
                floors,
            )
        rows = np.full((batch, n), NO_ROW, np.int32)
        take(kept, filled, rows)
        return rows

    def near(self, item: int, there: Flags, n: int) -> Ints:
        """The n rows that seem nearest to an item's by the angle, in any order, or all above 0.

        Args:
            item: row.
            there: (N,) rows that may be among them.
        """
        known = min(self.n_items, len(there))
        of_items = torch.from_numpy(self._codes[:known])
        products = torch._int_mm(of_items, of_items[item : item + 1].T).numpy()[:, 0]
        kept, filled = np.empty((1, 2 * n), np.int64), np.zeros(1, np.int64)
        filled[0] = _keep_nearest(products, self._lengths, item, there, kept[0])
        rows = np.full((1, n), NO_ROW, np.int32)
        take(kept, filled, rows)
        return rows[0, : filled[0]]

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
        self._lengths = np.zeros(self.n_items, np.float32)
        _measure(self._codes, np.arange(self.n_items, dtype=np.int32), self._lengths)


@njit(cache=True, nogil=True)
def _encode(vectors: Floats, rows: Ints, codes: np.ndarray, scales: Floats, biases: Floats) -> None:
    dim = codes.shape[1]
    # Absolute values are in the order of their bits, of which the largest is found 16 at a time.
    bits = vectors.view(np.int32)
    largest = np.empty(1, np.float32)
    for k in range(len(rows)):
        row = np.uintp(rows[k])
        most = np.int32(0)
        for d in range(dim):
            most = np.int32(max(most, np.int32(bits[k, d] & np.int32(0x7FFFFFFF))))
        largest.view(np.int32)[0] = most
        scales[row] = largest[0] / np.float32(_MOST)
        biases[row] = vectors[k, dim]
        factor = np.float32(_MOST) / largest[0] if most > 0 else np.float32(0)
        for d in range(dim):
            codes[row, d] = np.int8(np.int32(np.rint(vectors[k, d] * factor)))


@njit(cache=True, nogil=True)
def _measure(codes: np.ndarray, rows: Ints, lengths: Floats) -> None:
    for k in range(len(rows)):
        own = codes[np.uintp(rows[k])]
        square = np.int32(0)
        for d in range(len(own)):
            square += np.int32(own[d]) * np.int32(own[d])
        lengths[np.uintp(rows[k])] = np.sqrt(np.float32(square))


@njit(cache=True, nogil=True)
def _keep_nearest(products: Ints, lengths: Floats, item: int, there: Flags, kept: Longs) -> int:
    """Keeps the keys of what may be among the nearest to an item; returns how many there are.

    Args:
        products: (M,) of the item and each item.
        there: (M,) or more; what isn't, isn't kept.
        kept: (2 n,) keys by the cosine, which is above 0.
    """
    one = np.empty(1, np.float32)
    bits = one.view(np.int32)
    filled = 0
    floor = 0.0
    for row in range(len(products)):
        if products[row] <= 0 or not there[row]:
            continue
        one[0] = np.float32(products[row]) / (lengths[item] * lengths[row])
        if one[0] <= floor:
            continue
        if filled == len(kept):
            floor = score_of(halve(kept, filled))
            filled = len(kept) // 2
            if one[0] <= floor:
                continue
        kept[filled] = key_of(ordered_bits(bits[0]), row)
        filled += 1
    return filled


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
    kept: Longs,
    filled: Longs,
    floors: Floats,
) -> None:
    """Keeps of a block of items those that are among each user's best so far.

    Args:
        products: (B, M) of users and the items from ``first`` on.
        kept: (B, 2 n) keys of what may be among the n best; higher ones are better.
        filled: (B,) how many there are.
        floors: (B,) scores that what comes now has to be above.
    """
    one = np.empty(1, np.float32)
    bits = one.view(np.int32)
    n_items = products.shape[1]
    of_items = slice(first, first + n_items)
    own_scales, own_biases = scales[of_items], biases[of_items]
    scores = np.empty(_CHUNK, np.float32)
    for b in range(len(products)):
        own, scale, floor = products[b], user_scales[b], floors[b]
        for start in range(0, n_items, _CHUNK):
            size, at = min(_CHUNK, n_items - start), np.uintp(start)
            # Counted, because loops that leave early aren't done 16 at a time; nor are those over
            # places that might be below 0, or of as many turns as a variable says.
            above = np.int32(size < _CHUNK)
            if not above:
                for i in range(np.uintp(_CHUNK)):
                    score = scale * own_scales[at + i] * np.float32(own[at + i])
                    score += own_biases[at + i]
                    above = np.int32(above + np.int32(score > floor))
            if not above:
                continue
            for i in range(np.uintp(size)):
                score = scale * own_scales[at + i] * np.float32(own[at + i])
                scores[i] = score + own_biases[at + i]
            for i in range(size):
                row = first + start + i
                one[0] = scores[i]
                if (
                    one[0] > floor
                    and not withheld[row]
                    and not holds(barred, excluded_starts[b], excluded_starts[b + 1], row)
                ):
                    if filled[b] == kept.shape[1]:
                        floor = score_of(halve(kept[b], filled[b]))
                        filled[b] = kept.shape[1] // 2
                        if one[0] <= floor:
                            continue
                    kept[b, filled[b]] = key_of(ordered_bits(bits[0]), row)
                    filled[b] += 1
        floors[b] = floor
