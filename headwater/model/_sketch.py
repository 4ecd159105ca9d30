"""A first look that reads a few bytes of each item: along the directions that users' vectors fill.

With E those directions (``headwater.model._directions``), an item is kept as

    c_i = round(E^T v_i / s),    h_i + l_i / 64 = b_i / t to the next 1 / 64

with s and t the same for all items, and a user as e = round(E^T u / r). Then

    <u, v_i> + b_i  ~  r s (<e, c_i> + t / (r s) * (h_i + l_i / 64))

and with r such that t / (r s) is a whole number n, and n, 0 and about n / 64 among the user's
bytes, all of it is one product of bytes. What comes first needs no number but the products.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.model._keys import halve, holds, key_of, ordered, take
from headwater.model._products import (
    NOTHING,
    QUAD,
    SIDE,
    largest_of_blocks,
    products_of_block,
    quads,
    shown_of,
)
from headwater.types import NO_ROW, Contexts, Flags, Floats, Ints, Longs, State

_MOST = 127
_ZERO = 128
"""What a byte of 0 is kept as: the bytes of items are 0 to 255. It adds the same to all products of
a user."""

_OF_BIAS = 3
"""Columns of the bias: its whole part twice, as what it is multiplied by may be too large for one
byte, and its 64ths."""

_PARTS = 64

_BLOCKS = 8
"""Blocks that are passed over together where none of them is worth a closer look."""


def sizes(dim: int) -> list[int]:
    """Numbers of directions that leave no byte unused."""
    return list(range(-_OF_BIAS % QUAD, dim + 1, QUAD))


class Sketch:
    """The bytes of N items along directions.

    Args:
        basis: (D, k) the directions, as orthonormal columns.
        units: s and t, what a byte of a vector, and what one of a bias, stands for.
        n_items: N; their bytes are to be put one after another.
    """

    def __init__(self, basis: Floats, units: Floats, n_items: int) -> None:
        groups = -(-(basis.shape[1] + _OF_BIAS) // QUAD)
        self.basis, self.units = basis, units
        self.n_items = n_items
        self.left = n_items
        """Items that had no turn yet; while there are some, nothing is to be asked of it."""
        self._codes = np.full((-(-n_items // SIDE), groups, SIDE, QUAD), _ZERO, np.uint8)

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        blocks, known = -(-n_items // SIDE), len(self._codes)
        if blocks > known:
            size = max(blocks, known * 5 // 4)
            grown = np.full((size, *self._codes.shape[1:]), _ZERO, np.uint8)
            grown[:known] = self._codes
            self._codes = grown
        if n_items > self.n_items:
            self.left += n_items - self.n_items if self.left else 0
            self.n_items = n_items

    def put(self, rows: Ints, vectors: Floats) -> None:
        """Takes the (R, D + 1) vectors of items, whose last column is the bias."""
        _encode_items(projected(vectors, self.basis), vectors, rows, self.units, self._codes)

    def had_their_turn(self, n: int) -> None:
        """The next n items were put."""
        self.left = max(self.left - n, 0)

    def best(self, users: Floats, contexts: Contexts, withheld: Flags, n: int) -> Ints:
        """(B, n) the rows that seem best for each user, in any order; ``NO_ROW`` for none.

        Args:
            users: (B, D + 1); the last column is 1, for the bias.
            contexts: B of them, for what is excluded.
            withheld: (N,) rows that nobody may be shown.
        """
        batch = len(users)
        bytes_of = np.zeros((batch, self._codes.shape[1] * QUAD), np.int8)
        _encode_users(projected(users, self.basis), self.units, bytes_of)
        asked = quads(bytes_of)
        # No more than there are flags for: what came since isn't known yet to who asks.
        known = min(self.n_items, len(withheld))
        codes = self._codes[: -(-known // SIDE)]
        largest = np.empty((batch, len(codes)), np.int32)
        shown = shown_of(withheld[:known])
        largest_of_blocks(codes, shown, asked, largest)
        rows = np.full((batch, n), NO_ROW, np.int32)
        barred = ordered(contexts.excluded_starts, contexts.excluded)
        starts = contexts.excluded_starts
        _choose(codes, shown, asked, largest, starts, barred, rows)
        return rows

    def state(self) -> State:
        return {
            "basis": self.basis,
            "units": self.units,
            "codes": self._codes[: -(-self.n_items // SIDE)],
            "counts": np.array([self.n_items, self.left], np.int64),
        }

    @classmethod
    def of(cls, state: State) -> Sketch:
        """The one that ``state`` is of."""
        n_items, left = state["counts"].tolist()
        found = cls(state["basis"].copy(), state["units"].copy(), n_items)
        found._codes, found.left = state["codes"].copy(), left
        return found


def units_of(along: Floats, biases: Floats) -> Floats:
    """The units s and t for items of which these are some: values twice, and biases four times as
    large have room.

    Args:
        along: (S, k) their vectors along the directions.
        biases: (S,)
    """
    largest = np.array([2.0 * np.abs(along).max(), 4.0 * np.abs(biases).max()])
    units: Floats = (np.maximum(largest, 1e-6) / _MOST).astype(np.float32)
    return units


def have_room(units: Floats, along: Floats, biases: Floats) -> bool:
    """Whether these items are within what the units have room for."""
    room = _MOST * units
    return bool(np.abs(along).max() <= room[0] and np.abs(biases).max() <= room[1])


def projected(vectors: Floats, basis: Floats) -> Floats:
    """(R, k) of (R, D + 1) vectors, whose last column is the bias, along (D, k) directions."""
    if len(vectors) == 1:  # of one alone BLAS adds up in another order than of several
        vectors = np.repeat(vectors, 2, axis=0)
        return (vectors[:, :-1] @ basis)[:1]
    return vectors[:, :-1] @ basis


@njit(cache=True, nogil=True)
def _encode_items(
    along: Floats, vectors: Floats, rows: Ints, units: Floats, codes: np.ndarray
) -> None:
    n = along.shape[1]
    most, factor = np.float32(_MOST), np.float32(1) / units[0]
    own = np.full(codes.shape[1] * QUAD, _ZERO, np.uint8)
    for k in range(len(rows)):
        for d in range(np.uintp(n)):
            rounded = np.rint(min(max(along[k, d] * factor, -most), most))
            own[d] = np.uint8(np.int32(rounded) + np.int32(_ZERO))
        bias = min(max(vectors[k, -1] / units[1], -most), most)
        whole = np.rint(bias)
        own[n] = own[n + 1] = np.uint8(whole + _ZERO)
        own[n + 2] = np.uint8(np.rint((bias - whole) * np.float32(_PARTS)) + _ZERO)
        block, side = np.uintp(rows[k] // SIDE), np.uintp(rows[k] % SIDE)
        for group in range(np.uintp(codes.shape[1])):
            for d in range(np.uintp(QUAD)):
                codes[block, group, side, d] = own[QUAD * group + d]


@njit(cache=True, nogil=True)
def _encode_users(along: Floats, units: Floats, codes: np.ndarray) -> None:
    n = along.shape[1]
    for b in range(len(along)):
        finest = np.float32(0)
        for d in range(n):
            finest = max(finest, abs(along[b, d]) / np.float32(_MOST))
        # Products that a bias of one unit is worth: rounded down, so that r has room for all of e.
        times = np.float32(2 * _MOST)
        if finest > 0:
            times = min(times, np.floor(units[1] / (finest * units[0])))
        times = max(times, np.float32(1))
        step = max(finest, units[1] / (times * units[0]))
        for d in range(n):
            codes[b, d] = np.int8(np.rint(along[b, d] / step))
        codes[b, n] = np.int8(min(times, np.float32(_MOST)))
        codes[b, n + 1] = np.int8(times - codes[b, n])
        codes[b, n + 2] = np.int8(np.rint(times / np.float32(_PARTS)))


@njit(cache=True, nogil=True)
def _choose(
    codes: np.ndarray,
    shown: np.ndarray,
    users: Ints,
    largest: Ints,
    excluded_starts: Longs,
    barred: Ints,
    rows: Ints,
) -> None:
    """The rows that have a user's largest products, into (B, n), of blocks that may have some.

    Args:
        codes: (K, G, 16, 4)
        shown: (K,)
        users: (B, G)
        largest: (B, K) products of blocks.
    """
    n = rows.shape[1]
    products, most = np.empty(SIDE, np.int32), np.empty(-(-len(codes) // _BLOCKS), np.int32)
    kept, filled = np.empty((1, 2 * n), np.int64), np.zeros(1, np.int64)
    for b in range(len(rows)):
        start, end = excluded_starts[b], excluded_starts[b + 1]
        _largest_of_some(largest[b], most)
        # Of the items that these are products of, at most the excluded ones are of no use.
        floor = _below(largest[b], most, n + end - start)
        filled[0] = 0
        for some in range(len(most)):
            if most[some] < (floor >> 32):
                continue
            for block in range(some, len(codes), len(most)):
                if largest[b, block] < (floor >> 32):
                    continue
                products_of_block(codes, shown, block, users, b, products)
                for side in range(SIDE):
                    row = SIDE * block + side
                    key = key_of(products[side], row)
                    if key <= floor or products[side] == NOTHING:
                        continue
                    if holds(barred, start, end, row):
                        continue
                    if filled[0] == kept.shape[1]:
                        floor = halve(kept[0], filled[0])
                        filled[0] = n
                        if key <= floor:
                            continue
                    kept[0, filled[0]] = key
                    filled[0] += 1
        take(kept, filled, rows[b : b + 1])


@njit(cache=True, nogil=True)
def _largest_of_some(largest: Ints, most: Ints) -> None:
    """The largest of (K,) products, of each few that stand as far apart as there are (S,) to be
    written: so they are found sixteen at a time.
    """
    n = len(most)
    most[:] = largest[:n]
    for start in range(n, len(largest), n):
        at = np.uintp(start)
        for some in range(np.uintp(min(n, len(largest) - start))):
            most[some] = max(most[some], largest[at + some])


@njit(cache=True, nogil=True)
def _below(largest: Ints, most: Ints, enough: int) -> int:
    """A key that is below those of so many items at least, or the least there is.

    Args:
        largest: (K,) products of blocks.
        most: (S,) the largest of a few of them each.
    """
    for of_parts in (most, largest):
        if enough <= len(of_parts):
            place = len(of_parts) - enough
            least = np.partition(of_parts, place)[place]
            if least != NOTHING:
                return int((np.int64(least) << 32) - 1)
    return int(np.iinfo(np.int64).min)
