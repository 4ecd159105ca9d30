"""Candidates: each expert proposes its best items, and the union of them is ranked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from headwater.model import Model, Opinion, mark
from headwater.types import NO_ROW, Contexts, Doubles, Flags, Floats, Ints, Longs


@dataclass(slots=True)
class Candidates:
    """The union of B lists of E experts, and where each expert's own list has each item.

    ``places[e, b, c]`` is the 0-based place of candidate c in expert e's list, -1 if not in it.
    """

    rows: Ints  # (B, C), NO_ROW past the end
    lists: dict[str, Ints]  # name -> (B, K)
    list_scores: Floats  # (E, B, K), each in the expert's own units
    places: Ints  # (E, B, C)
    opinions: dict[str, Opinion]  # name -> of each expert that scores from histories
    users: Floats  # (B, D + 1) vectors of the sequence expert


def propose(
    model: Model,
    users: Floats,
    found: tuple[Ints, Floats],
    contexts: Contexts,
    withheld: Flags,
    k: int,
) -> Candidates:
    """The best k items of each expert for each context, none of them withheld or excluded.

    Args:
        users: (B, D + 1) the sequence expert's vectors of the contexts.
        found: what it proposes to each: rows and scores (B, k).
        withheld: (N,) rows that nobody may be shown.
    """
    opinions = {name: expert.weigh(contexts) for name, expert in model.from_history.items()}
    own = {
        "popularity": _popular(model, contexts, withheld, k),
        **{name: opinion.best(withheld, k) for name, opinion in opinions.items()},
        "sequence": found,
    }
    lists = {name: rows for name, (rows, _) in own.items()}
    rows, places, longest = _unite(np.stack(list(lists.values())), model.scratch.sources)
    return Candidates(
        # Copied: of a part numba makes two kernels each, as that of one row is contiguous.
        rows=rows[:, :longest].copy(),
        lists=lists,
        list_scores=np.stack([scores for _, scores in own.values()]),
        places=places[:, :, :longest].copy(),
        opinions=opinions,
        users=users,
    )


def _popular(model: Model, contexts: Contexts, withheld: Flags, k: int) -> tuple[Ints, Floats]:
    """One order of items serves every context: each takes the first k that it may."""
    barred = model.scratch.marks
    most = k + int(np.diff(contexts.excluded_starts).max(initial=0))
    # Where so much is withheld or excluded that the first ones don't do, more are put in order,
    # and then all.
    for n in (2 * most, None):
        first, shares, all_of_them = model.popularity.leaders(n)
        rows, scores = _first(first, shares, contexts, withheld, barred, k)
        if all_of_them or (rows != NO_ROW).all():
            return rows, scores
    shares = model.popularity.scores()
    first = np.lexsort((np.arange(len(shares)), -shares)).astype(np.int32)
    return _first(first, shares[first], contexts, withheld, barred, k)


def _first(
    order: Ints, shares: Doubles, contexts: Contexts, withheld: Flags, barred: Flags, k: int
) -> tuple[Ints, Floats]:
    rows = np.full((len(contexts), k), NO_ROW, np.int32)
    scores = np.zeros((len(contexts), k), np.float32)
    _take(
        order,
        shares,
        withheld,
        contexts.excluded_starts,
        contexts.excluded,
        barred,
        rows,
        scores,
    )
    return rows, scores


@njit(cache=True, nogil=True)
def _take(
    order: Ints,
    shares: Doubles,
    withheld: Flags,
    excluded_starts: Longs,
    excluded: Ints,
    barred: Flags,
    rows: Ints,
    scores: Floats,
) -> None:
    k = rows.shape[1]
    for b in range(len(rows)):
        mark(barred, excluded[excluded_starts[b] : excluded_starts[b + 1]], True)
        filled = 0
        for place in range(len(order)):
            row = order[place]
            if filled == k or shares[place] <= 0:
                break
            if row < len(withheld) and not withheld[row] and not barred[row]:
                rows[b, filled], scores[b, filled] = row, shares[place]
                filled += 1
        mark(barred, excluded[excluded_starts[b] : excluded_starts[b + 1]], False)


@njit(cache=True, nogil=True)
def _unite(lists: Ints, column: Ints) -> tuple[Ints, Ints, int]:
    """(E, B, K) lists to their unions (B, E * K), the places (E, B, E * K), the longest union.

    Args:
        column: (N,) all 0, before and after.
    """
    experts, batch, k = lists.shape
    rows = np.full((batch, experts * k), -1, np.int32)
    places = np.full((experts, batch, experts * k), -1, np.int32)
    longest = 1
    for b in range(batch):
        filled = 0
        for e in range(experts):
            for place in range(k):
                item = lists[e, b, place]
                if item < 0:
                    break
                if column[item] == 0:
                    rows[b, filled] = item
                    filled += 1
                    column[item] = filled
                places[e, b, column[item] - 1] = place
        for c in range(filled):
            column[rows[b, c]] = 0
        longest = max(longest, filled)
    return rows, places, longest
