"""User vectors without a framework: what ``headwater.model._encoder`` makes of whole histories.

The same numbers, for a request can't wait for the fifty calls that a framework makes of them. A
vector depends on its own history alone, in its last bit too, not on what is encoded beside it.
"""

from __future__ import annotations

from math import erf, exp, log, log1p, sqrt
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from torch import nn

from headwater.model._encoder import GAP_BUCKETS, Encoder
from headwater.types import Bytes, Doubles, Floats, Ints, Longs

_EPSILON = 1e-5
"""Added to a variance by the layer norms, as torch does."""

_Paths: TypeAlias = tuple[Floats, Floats, Floats, Floats, Floats, Floats]
"""What the linear path weighs a behaviour by, of (L,) recency, (T,) types and (G,) gaps; what the
deep path adds to its item, (L, D), (T, D) and (G, D), of which there is nothing without layers."""
_Block: TypeAlias = tuple[Floats, ...]
_Out: TypeAlias = tuple[Floats, Floats, Floats, Floats]


class Encoding:
    """Encodes with the weights that an ``Encoder`` has at each call."""

    def __init__(self, encoder: Encoder) -> None:
        # Views: what is learned or taken over is in them.
        linear = (encoder.recency, encoder.type_weight, encoder.gap_weight)
        if encoder.layers:
            self._heads = encoder.heads
            self._paths = _arrays(*linear, encoder.position, encoder.kind, encoder.gap)
            self._blocks = tuple(_arrays(*block.parameters()) for block in encoder.blocks)
            self._out = _arrays(*encoder.norm.parameters(), *encoder.out.parameters())
        else:
            none, nothing = np.zeros(0, np.float32), np.zeros((0, 0), np.float32)
            self._heads = 1
            self._paths = (*_arrays(*linear), nothing, nothing, nothing)
            self._blocks = (
                (none, none, nothing, nothing, none, none, nothing, none, nothing, none),
            )
            self._out = (none, none, nothing, none)

    def encode(self, items: Ints, types: Bytes, gaps: Bytes, vectors: Floats) -> Floats:
        """(B, D + 1) user vectors behind (B, L) histories; the last column is 1, for the bias.

        Args:
            items, types, gaps: as of ``Encoder.forward``.
            vectors: (R, D + 1) of the items that there are, in order.
        """
        users = np.empty((len(items), vectors.shape[1]), np.float32)
        _encode(
            items, types, gaps, vectors, self._paths, self._blocks, self._out, self._heads, users
        )
        return users

    def weights(self, items: Ints, types: Bytes, gaps: Bytes) -> Floats:
        """(B, L) the linear path's weights w_t of whole histories; each row sums to 1."""
        found = np.zeros(items.shape, np.float32)
        _weights(items, types, gaps, self._paths, found)
        return found


def _arrays(*weights: nn.Parameter) -> tuple[Any, ...]:
    return tuple(weight.detach().numpy() for weight in weights)


def gap_buckets(times: Doubles, items: Ints, now: Doubles) -> Bytes:
    """(B, L) bucket of the time from each event to the next one, of the last to ``now``.

    Bucket g > 0 starts at 3 ** (g - 0.5) - 1 seconds; an empty column gets 0.
    """
    buckets = np.zeros(items.shape, np.uint8)
    _bucket(times, items, now, buckets)
    return buckets


def nearest(history: Ints, weights: Floats, vectors: Floats, candidates: Floats) -> Ints:
    """(B, C) the item of each history whose weighted vector is nearest to each candidate's.

    Args:
        history: (B, L) item rows.
        weights: (B, L).
        vectors: (R, D + 1) of the items that there are in the histories, in order.
        candidates: (B, C, D + 1).
    """
    found = np.full(candidates.shape[:2], -1, np.int32)
    _nearest(history, weights, vectors, candidates, found)
    return found


@njit(cache=True, nogil=True)
def _bucket(times: Doubles, items: Ints, now: Doubles, buckets: Bytes) -> None:
    length = items.shape[1]
    scale = 1.0 / log(3.0)
    for b in range(len(items)):
        for column in range(length):
            if items[b, column] >= 0:
                until = times[b, column + 1] if column + 1 < length else now[b]
                gap = max(until - times[b, column], 0.0)
                bucket = min(log1p(gap) * scale + 0.5, GAP_BUCKETS - 1.0)
                buckets[b, column] = np.uint8(bucket)


@njit(cache=True, nogil=True)
def _columns(items: Ints, columns: Longs) -> int:
    """Lists the columns that hold an event; returns how many there are."""
    n = 0
    for column in range(len(items)):
        if items[column] >= 0:
            columns[n] = column
            n += 1
    return n


@njit(cache=True, nogil=True)
def _softmax(logits: Floats) -> None:
    top = logits[0]
    for i in range(1, len(logits)):
        top = max(top, logits[i])
    total = 0.0
    for i in range(len(logits)):
        logits[i] = exp(logits[i] - top)
        total += logits[i]
    for i in range(len(logits)):
        logits[i] /= total


@njit(cache=True, nogil=True)
def _behaviours(columns: Longs, types: Bytes, gaps: Bytes, paths: _Paths, weights: Floats) -> None:
    """The linear path's weights of the events in the columns of a history."""
    recency, type_weight, gap_weight, _, _, _ = paths
    for i in range(len(columns)):
        column = columns[i]
        weights[i] = recency[len(types) - 1 - column]
        weights[i] += type_weight[types[column]] + gap_weight[gaps[column]]
    _softmax(weights)


@njit(cache=True, nogil=True)
def _weights(items: Ints, types: Bytes, gaps: Bytes, paths: _Paths, found: Floats) -> None:
    length = items.shape[1]
    columns, weights = np.empty(length, np.int64), np.empty(length, np.float32)
    for b in range(len(items)):
        n = _columns(items[b], columns)
        if n:
            _behaviours(columns[:n], types[b], gaps[b], paths, weights[:n])
            for i in range(n):
                found[b, columns[i]] = weights[i]


# Sums in any order, so that they are done 16 at a time; the order is always the same one.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(left: Floats, right: Floats) -> np.float32:
    total = np.float32(0)
    for d in range(len(left)):
        total += left[d] * right[d]
    return total


@njit(cache=True, nogil=True)
def _product(weights: Floats, vector: Floats, out: Floats) -> None:
    for row in range(len(weights)):
        out[row] = _dot(weights[row], vector)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add(weight: float, vector: Floats, total: Floats) -> None:
    for d in range(len(total)):
        total[d] += weight * vector[d]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _norm(vector: Floats, out: Floats) -> None:
    """The vector less its mean, over its standard deviation."""
    dim = len(vector)
    total = np.float32(0)
    for d in range(dim):
        total += vector[d]
    mean = np.float32(total / dim)
    total = np.float32(0)
    for d in range(dim):
        out[d] = vector[d] - mean
        total += out[d] * out[d]
    scale = np.float32(1.0 / sqrt(total / dim + _EPSILON))
    for d in range(dim):
        out[d] *= scale


@njit(cache=True, nogil=True)
def _encode(
    items: Ints,
    types: Bytes,
    gaps: Bytes,
    vectors: Floats,
    paths: _Paths,
    blocks: tuple[_Block, ...],
    out: _Out,
    heads: int,
    users: Floats,
) -> None:
    position, kind, gap = paths[3:]
    norm, shift, last, last_shift = out
    length, dim = items.shape[1], users.shape[1] - 1
    columns, weights = np.empty(length, np.int64), np.empty(length, np.float32)
    hidden, normed = np.empty((length, dim), np.float32), np.empty((length, dim), np.float32)
    used = np.empty((6, dim), np.float32)
    wide = np.empty(2 * dim, np.float32)
    layers = len(blocks) if len(position) else 0
    first = 0
    for b in range(len(items)):
        user = users[b, :dim]
        user[:] = 0
        users[b, dim] = 1
        n = _columns(items[b], columns)
        if n == 0:
            continue
        _behaviours(columns[:n], types[b], gaps[b], paths, weights[:n])
        for i in range(n):
            _add(weights[i], vectors[first + i, :dim], user)
        if layers:
            for i in range(n):
                column, into = columns[i], hidden[i]
                of_type, of_gap = kind[types[b, column]], gap[gaps[b, column]]
                for d in range(dim):
                    into[d] = vectors[first + i, d] + position[column, d] + of_type[d] + of_gap[d]
            for layer, block in enumerate(blocks):
                # Nothing reads what the last block would make of the other columns.
                start = n - 1 if layer == layers - 1 else 0
                _attend(block, heads, hidden[:n], normed, start, weights, used, wide)
            _norm(hidden[n - 1], used[0])
            for d in range(dim):
                used[0, d] = used[0, d] * norm[d] + shift[d]
            _product(last, used[0], used[1])
            for d in range(dim):
                user[d] += used[1, d] + last_shift[d]
        first += n


@njit(cache=True, nogil=True, fastmath={"contract"})
def _attend(
    block: _Block,
    heads: int,
    hidden: Floats,
    normed: Floats,
    start: int,
    weights: Floats,
    used: Floats,
    wide: Floats,
) -> None:
    """One block, as ``headwater.model._encoder.Block`` does it: the columns from ``start`` on get
    new states, each from itself and those before it.

    Args:
        hidden: (n, D) the states, in place.
        normed, weights, used, wide: written over.
    """
    scale, shift, qkv, project, mlp_scale, mlp_shift, widen, widen_shift, narrow, narrow_shift = (
        block
    )
    n, dim = hidden.shape
    width = dim // heads
    asked, query, key, mixed, value, result = used
    for i in range(n):
        _norm(hidden[i], normed[i])
    for q in range(start, n):
        for d in range(dim):
            asked[d] = normed[q, d] * scale[d] + shift[d]
        _product(qkv[:dim], asked, query)
        for head in range(heads):
            first = head * width
            key[:] = 0
            for w in range(first, first + width):
                _add(query[w], qkv[dim + w], key)
            for d in range(dim):
                key[d] *= scale[d] * np.float32(width**-0.5)
            for i in range(q + 1):
                weights[i] = _dot(key, normed[i])
            _softmax(weights[: q + 1])
            mixed[:] = 0
            for i in range(q + 1):
                _add(weights[i], normed[i], mixed)
            for d in range(dim):
                mixed[d] = mixed[d] * scale[d] + shift[d]
            for w in range(first, first + width):
                value[w] = _dot(qkv[2 * dim + w], mixed)
        state = hidden[q]
        _product(project, value, result)
        for d in range(dim):
            state[d] += result[d]
        _norm(state, asked)
        for d in range(dim):
            asked[d] = asked[d] * mlp_scale[d] + mlp_shift[d]
        _product(widen, asked, wide)
        for w in range(len(wide)):
            x = wide[w] + widen_shift[w]
            wide[w] = 0.5 * x * (1.0 + erf(x * sqrt(0.5)))
        _product(narrow, wide, result)
        for d in range(dim):
            state[d] += result[d] + narrow_shift[d]


@njit(cache=True, nogil=True)
def _nearest(
    history: Ints, weights: Floats, vectors: Floats, candidates: Floats, found: Ints
) -> None:
    dim = vectors.shape[1] - 1
    first = 0
    for b in range(len(history)):
        n = 0
        most = np.full(candidates.shape[1], -np.inf)
        for column in range(history.shape[1]):
            if history[b, column] < 0:
                continue
            vector = vectors[first + n, :dim]
            for c in range(candidates.shape[1]):
                product = weights[b, column] * _dot(vector, candidates[b, c, :dim])
                if product > most[c]:
                    most[c] = product
                    found[b, c] = history[b, column]
            n += 1
        first += n
