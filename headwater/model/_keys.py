"""Keys: the best of many rows are told by one number each, of a score and of a row.

A key's upper half is in the order of scores, and its lower half of equal ones is higher for the
lower row, so what is best depends on no order in which it was looked at.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.types import Ints, Longs


@njit(cache=True, nogil=True)
def key_of(upper: int, row: int) -> int:
    """Of a whole number, or of what ``ordered_bits`` makes of a score, and a row."""
    return int((np.int64(upper) << 32) | np.int64(0x7FFFFFFF - row))


@njit(cache=True, nogil=True)
def ordered_bits(bits: int) -> int:
    """Whole numbers in the order of scores, for their bits; those below 0 are in the opposite."""
    return int(bits if bits >= 0 else bits ^ 0x7FFFFFFF)


@njit(cache=True, nogil=True)
def score_of(key: int) -> float:
    """The score that a key of bits is in the order of."""
    one = np.empty(1, np.float32)
    bits = np.int32(key >> 32)
    one.view(np.int32)[0] = bits if bits >= 0 else bits ^ np.int32(0x7FFFFFFF)
    return float(one[0])


@njit(cache=True, nogil=True)
def halve(keys: Longs, filled: int) -> int:
    """Leaves the better half of as many as there is room for; returns the least key of it."""
    n = len(keys) // 2
    keys[:n] = np.partition(keys[:filled], filled - n)[filled - n :]
    return int(keys[:n].min())


@njit(cache=True, nogil=True)
def take(kept: Longs, filled: Longs, rows: Ints) -> None:
    """The rows that are best of what was kept."""
    n = rows.shape[1]
    for b in range(len(rows)):
        if filled[b] > n:
            halve(kept[b], filled[b])
        for place in range(min(filled[b], n)):
            rows[b, place] = 0x7FFFFFFF - (kept[b, place] & 0x7FFFFFFF)


@njit(cache=True, nogil=True)
def ordered(starts: Longs, rows: Ints) -> Ints:
    """The rows of each context in ascending order."""
    found = rows.copy()
    for b in range(len(starts) - 1):
        found[starts[b] : starts[b + 1]].sort()
    return found


@njit(cache=True, nogil=True)
def holds(ordered: Ints, start: int, end: int, row: int) -> bool:
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
