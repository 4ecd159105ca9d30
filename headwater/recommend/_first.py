"""The first few of scored candidates, as they are served."""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.types import NO_ROW, Floats, Ints


@njit(cache=True, nogil=True)
def first(rows: Ints, scores: Floats, features: Floats, n: int) -> tuple[Ints, Floats, Floats]:
    """The best n of each list, best first, and of equal ones those that stand before.

    Args:
        rows: (B, C) candidates, ``NO_ROW`` past the end of a list.
        scores: (B, C).
        features: (B, C, F).

    Returns:
        Rows, scores and features of (B, n), or (B, C) where that is less; past the end of a list
        a score is -inf and the features are 0.
    """
    batch, most = rows.shape
    n = min(n, most)
    best = np.full((batch, n), NO_ROW, np.int32)
    of_best = np.full((batch, n), -np.inf, np.float32)
    seen = np.zeros((batch, n, features.shape[2]), np.float32)
    places = np.empty(n, np.int64)
    for b in range(batch):
        kept = of_best[b]
        filled = 0
        for c in range(most):
            if rows[b, c] < 0:
                break
            score = scores[b, c]
            if filled == n and (n == 0 or not score > kept[n - 1]):
                continue
            place = filled if filled < n else n - 1
            while place > 0 and score > kept[place - 1]:
                kept[place], places[place] = kept[place - 1], places[place - 1]
                place -= 1
            kept[place], places[place] = score, c
            filled += filled < n
        for place in range(filled):
            best[b, place] = rows[b, places[place]]
            seen[b, place] = features[b, places[place]]
    return best, of_best, seen
