"""What is like an item, and who is like a user: nearest neighbours, as the experts know them."""

from __future__ import annotations

import numpy as np

from headwater.model import Model, cosines
from headwater.types import NO_ROW, Contexts, Flags, Floats, Ints, Reason

RANK_OFFSET = 60
"""The k of reciprocal rank fusion, as its paper has it."""


def similar_items(
    model: Model, contexts: Contexts, withheld: Flags, k: int, n: int
) -> list[tuple[int, float, list[Reason]]]:
    """The n items that go best with one: row, score, and what each expert has to do with it.

    Every expert that relates items to each other lists its own k nearest: ``transitions``,
    ``neighbours``, ``precedents`` and ``content`` by their scores for a history of that item
    alone, ``sequence`` by the cosine of the rows it learned. The lists are fused by reciprocal
    rank (Cormack, Clarke and Büttcher, SIGIR 2009), as the experts' units can't be compared,

        score(i) = (1 / E) * sum over the experts e that list i of  61 / (60 + place of i in e)

    with places from 1 and E experts: 1 for an item that is everybody's first. The terms are the
    reasons, largest first. Items of equal scores stand in order of row.

    Args:
        contexts: one, whose history is the item alone and which excludes what may not be listed.
        withheld: (N,) item rows that may not be shown to anyone.
    """
    lists = {
        name: expert.weigh(contexts).best(withheld, k)[0][0]
        for name, expert in model.from_history.items()
        if name != "habits"  # it relates an item to itself
    }
    lists["sequence"] = _nearest(model, contexts, withheld, k)
    said: dict[int, list[tuple[str, float]]] = {}
    for name, rows in lists.items():
        for place, row in enumerate(rows[rows != NO_ROW].tolist()):
            share = (RANK_OFFSET + 1) / (RANK_OFFSET + 1 + place) / len(lists)
            said.setdefault(row, []).append((name, round(share, 6)))
    scores = {row: sum([share for _, share in of_row]) for row, of_row in said.items()}
    best = sorted(scores, key=lambda row: (-scores[row], row))[:n]
    return [
        (row, scores[row], [Reason(*one) for one in sorted(said[row], key=lambda one: -one[1])])
        for row in best
    ]


def similar_users(user: Floats, others: Floats, n: int) -> list[tuple[int, float]]:
    """The n most similar of the others, by cosine: index and similarity, above 0.

    Args:
        user: (D,) the vector of a user.
        others: (A, D) the vectors of others; equal similarities stay in their order.
    """
    similarity = cosines(user, others)
    best = np.argsort(-similarity, kind="stable")[:n]
    return [(int(one), float(similarity[one])) for one in best if similarity[one] > 0]


def _nearest(model: Model, contexts: Contexts, withheld: Flags, k: int) -> Ints:
    """The rows nearest to the item by what the sequence expert learned, nearest first.

    An item that no event has named and nothing was said of is near to nothing: its vector is
    what it was initialised with.
    """
    item = int(contexts.history_items[0, -1])
    n = len(withheld)
    known = model.popularity.eligible()[:n] | (model.content.item_tokens[:n, 0] != NO_ROW)
    if item == NO_ROW or not known[item]:
        return np.zeros(0, np.int32)
    there = known & ~withheld
    there[contexts.excluded] = False
    return model.sequence.near(item, there, k)
