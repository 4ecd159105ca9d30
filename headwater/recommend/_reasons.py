"""Which experts an item is in a list for, largest share first."""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.types import Doubles, Floats, Ints, Longs


@njit(cache=True, nogil=True)
def largest_first(rows: Ints, shares: Floats, sources: Ints) -> tuple[Ints, Doubles, Ints, Longs]:
    """Numbers of the experts, their shares to six decimals and the items these come from.

    Of all items one behind the other, and of each in order of its shares, of equal ones in that of
    the experts; a share of nothing is left out. Last, where those of each item end.

    Args:
        rows: (B, n) items of lists, -1 past their ends.
        shares: (B, n, E).
        sources: (B, n, E) item rows, -1 for none.
    """
    experts = shares.shape[2]
    numbers, values = np.empty(shares.size, np.int32), np.empty(shares.size, np.float64)
    from_where, ends = np.empty(shares.size, np.int32), np.empty(rows.size, np.int64)
    filled = items = 0
    for b in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            if rows[b, c] < 0:
                continue
            first = filled
            for e in range(experts):
                value = np.rint(np.float64(shares[b, c, e]) * 1e6) / 1e6
                if value == 0.0:
                    continue
                place = filled
                while place > first and values[place - 1] < value:
                    numbers[place], values[place] = numbers[place - 1], values[place - 1]
                    from_where[place] = from_where[place - 1]
                    place -= 1
                numbers[place], values[place], from_where[place] = e, value, sources[b, c, e]
                filled += 1
            ends[items] = filled
            items += 1
    return numbers[:filled], values[:filled], from_where[:filled], ends[:items]
