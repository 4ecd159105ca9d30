"""What the mixture's network makes of candidates, and of coalitions of the experts that speak.

The same numbers as ``headwater.model.mixture.Network`` gives, without a framework: what an item
scores depends on its own features alone, in its last bit too, not on what is scored beside it.
"""

from __future__ import annotations

from math import factorial
from typing import TypeAlias

import numpy as np
from numba import njit

from headwater.types import Doubles, Flags, Floats, Ints, Longs

_TILE = 128
"""Items, or coalitions, that go through a layer side by side: their states fit the cache."""

Weights: TypeAlias = tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats]
"""Of a network with F features and hidden layers of width H: (F,) of the linear part; (H, F) and
(H,) of the first layer; (H, H) and (H,) of the second; (1, H) and (1,) of the last."""

Ordered: TypeAlias = Doubles
"""(E + 1, E) for n experts that speak, the share of the orders of joining in which a given one
comes behind s given others."""


def orders(experts: int) -> Ordered:
    found = np.zeros((experts + 1, experts))
    for n in range(1, experts + 1):
        found[n, :n] = [factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)]
    return found


@njit(cache=True, nogil=True, fastmath={"contract"})
def score(features: Floats, wanted: Flags, weights: Weights, scores: Floats) -> None:
    """Adds to (N,) scores what a network makes of those of (N, F) features that are wanted."""
    linear, first, first_bias, second, second_bias, last, last_bias = weights
    width, n_features = first.shape
    inputs = np.zeros((n_features, _TILE), np.float32)
    hidden = np.empty((width, _TILE), np.float32)
    out = np.empty(_TILE, np.float32)
    places = np.empty(_TILE, np.int64)
    total = np.empty(_TILE, np.float32)
    filled = 0
    for n in range(len(features)):
        if wanted[n]:
            for f in range(n_features):
                inputs[f, filled] = features[n, f]
            places[filled] = n
            filled += 1
        if filled == _TILE or (filled and n == len(features) - 1):
            out[:] = last_bias[0]
            for f in range(n_features):
                of_feature = inputs[f]
                for t in range(_TILE):
                    out[t] += linear[f] * of_feature[t]
            for h in range(width):
                _weigh(first[h], first_bias[h], inputs, hidden[h])
            _finish(hidden, second, second_bias, last[0], total, out)
            for t in range(filled):
                scores[places[t]] += out[t]
            filled = 0


@njit(cache=True, nogil=True, fastmath={"contract"})
def share(
    features: Floats,
    owners: Ints,
    silence: Floats,
    weights: Weights,
    ordered: Ordered,
    shares: Floats,
) -> None:
    """Adds the experts' Shapley shares of a network's scores to (N, E) ``shares``.

    Both the first layer and the linear part are linear in what an expert says, so a coalition is
    another one and what one expert adds. Only of those who speak: the others have no share, and
    would double the work. Bit p of a coalition is its p-th speaker.

    Args:
        features: (N, F).
        owners: (F,) number of the expert of a feature, -1 for none.
        silence: (F,) value of each feature when its expert says nothing.
    """
    linear, first, first_bias, second, second_bias, last, _ = weights
    width, n_features = first.shape
    experts = shares.shape[1]
    of_features = first.T.copy()
    size = max(_TILE, 1 << experts)
    hidden = np.empty((width, size), np.float32)
    out, total = np.empty(size, np.float32), np.empty(size, np.float32)
    added = np.empty((experts + 1, width), np.float32)
    added_scores = np.empty(experts + 1, np.float32)
    speakers = np.empty(experts, np.int64)
    items, starts = np.empty(size + 1, np.int64), np.empty(size + 1, np.int64)
    speaking = np.zeros((size + 1, experts), np.bool_)
    counts = np.zeros(1 << experts, np.int64)
    for coalition in range(1, len(counts)):
        counts[coalition] = counts[coalition >> 1] + (coalition & 1)
    waiting = filled = 0
    for r in range(len(features) + 1):
        n = 0
        if r < len(features):
            said = speaking[waiting]
            said[:] = False
            for f in range(n_features):
                if owners[f] >= 0 and features[r, f] != silence[f]:
                    said[owners[f]] = True
            for e in range(experts):
                speakers[e] = n
                n += said[e]
        if r == len(features) or filled + (1 << n) > size:
            _finish(hidden, second, second_bias, last[0], total[:filled], out)
            for w in range(waiting):
                _divide(out[starts[w] :], speaking[w], counts, ordered, shares[items[w]])
            speaking[0] = speaking[waiting]
            waiting = filled = 0
        if r == len(features) or n == 0:
            continue
        said = speaking[waiting]
        added[:n] = 0
        added_scores[:n] = 0
        added[n] = first_bias
        added_scores[n] = 0
        for f in range(n_features):
            owner = owners[f]
            into, value = n, features[r, f]
            if owner >= 0 and said[owner]:
                into = speakers[owner]
                value -= silence[f]
                for h in range(width):
                    added[n, h] += silence[f] * of_features[f, h]
                added_scores[n] += silence[f] * linear[f]
            if value != 0:
                for h in range(width):
                    added[into, h] += value * of_features[f, h]
                added_scores[into] += value * linear[f]
        out[filled] = added_scores[n]
        for p in range(n):
            half = 1 << p
            for c in range(filled, filled + half):
                out[half + c] = out[c] + added_scores[p]
        for h in range(width):
            states = hidden[h, filled : filled + (1 << n)]
            states[0] = added[n, h]
            for p in range(n):
                half = 1 << p
                for c in range(half):
                    states[half + c] = states[c] + added[p, h]
        items[waiting], starts[waiting] = r, filled
        waiting += 1
        filled += 1 << n


@njit(cache=True, nogil=True, fastmath={"contract"})
def _finish(
    hidden: Floats, second: Floats, bias: Floats, last: Floats, total: Floats, out: Floats
) -> None:
    """Adds to ``out`` what the layers behind (H, T) first states, still to be rectified, give.

    Of as many states as ``total``, which is written over, has room for.
    """
    for h in range(len(hidden)):
        states = hidden[h]
        for t in range(len(total)):
            states[t] = max(states[t], np.float32(0))
    for h in range(len(second)):
        _weigh(second[h], bias[h], hidden, total)
        for t in range(len(total)):
            out[t] += last[h] * max(total[t], np.float32(0))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _weigh(weights: Floats, bias: float, states: Floats, total: Floats) -> None:
    """The state of one unit: (I,) weights times (I, T) states of the layer before it."""
    for t in range(len(total)):
        total[t] = bias
    i = 0
    # Four at a time, so that a total is read and written a quarter as often.
    while i + 4 <= len(weights):
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        of_a, of_b, of_c, of_d = states[i], states[i + 1], states[i + 2], states[i + 3]
        for t in range(len(total)):
            total[t] += a * of_a[t] + b * of_b[t] + c * of_c[t] + d * of_d[t]
        i += 4
    while i < len(weights):
        of_a = states[i]
        for t in range(len(total)):
            total[t] += weights[i] * of_a[t]
        i += 1


@njit(cache=True, nogil=True)
def _divide(
    values: Floats, speaking: Flags, counts: Longs, ordered: Ordered, shares: Floats
) -> None:
    """Adds one item's shares, from the value of every coalition of those who speak.

    Args:
        counts: how many are in each coalition.
    """
    n = 0
    for e in range(len(speaking)):
        n += speaking[e]
    p = 0
    for e in range(len(speaking)):
        if not speaking[e]:
            continue
        bit = 1 << p
        mine = 0.0
        for others in range(1 << n):
            if not others & bit:
                gain = values[others | bit] - values[others]
                mine += ordered[n, counts[others]] * gain
        shares[e] += mine
        p += 1
