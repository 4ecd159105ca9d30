"""The content expert: what an item is about, against what the user went for.

An item is described by tokens (categories, tags, title words, attributes). With
df_t the items that have token t, and N all described ones, a token weighs
idf_t = log(1 + N / df_t), and an item is the unit vector of its tokens' weights
(Salton and Buckley, 1988). A user is the sum of the items in the history, the d-th
newest with weight 1 / sqrt(d); the score is the product of the two. No event of the
item itself is needed, so an item that was put a moment ago can be found.

Candidates come from the newest ``postings`` items of each of the user's tokens.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.config import Content as Settings
from headwater.model._opinion import Scratch, keep_best, mark
from headwater.types import NO_ROW, Contexts, Flags, Floats, Ints, Longs, State

EVIDENCE = ("likeness", "likeness_rare", "rarest_shared", "rarest_shared_last")
"""What ``Tastes.evidence`` says of an item, in this order."""

_RARE = float(np.log1p(200.0))
"""idf of a token that one in 200 items has: words of titles are above it, and of films neither
genres nor most years. One in 500 did as well."""


class Content:
    """Tokens of items and the newest items of each token; a fold of the items that were put."""

    name = "content"

    def __init__(self, settings: Settings) -> None:
        self.window = settings.window
        self.n_items = 0
        self.n_tokens = 0
        self._described = np.zeros(1, np.int64)
        self._tokens = np.full((0, settings.tokens), NO_ROW, np.int32)
        self._frequencies = np.zeros(0, np.int64)
        self._postings = np.full((0, settings.postings), NO_ROW, np.int32)
        self._posted = np.zeros(0, np.int64)
        self._idf: Floats | None = None
        self._scratch = Scratch()
        # Of a history by token, and of its newest event: 0 between uses.
        self._profiles = np.zeros((2, 0), np.float32)

    @property
    def n_described(self) -> int:
        """How many items have tokens."""
        return int(self._described[0])

    @property
    def item_tokens(self) -> Ints:
        """(N, T) tokens of every item row there is room for, ``NO_ROW`` past the end; a view."""
        return self._tokens

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items > len(self._tokens):
            size = max(n_items, len(self._tokens) * 5 // 4, 1024)
            tokens = np.full((size, self._tokens.shape[1]), NO_ROW, np.int32)
            tokens[: len(self._tokens)] = self._tokens
            self._tokens = tokens
            self._scratch = Scratch(size)
        self.n_items = max(self.n_items, n_items)

    def describe(self, rows: Ints, tokens: Ints) -> None:
        """Takes the tokens of items, in order; those of an item replace what it had.

        Args:
            rows: (P,) item rows.
            tokens: (P, T) distinct token rows each, ``NO_ROW`` past the end.
        """
        self._grow_tokens(int(tokens.max(initial=NO_ROW)) + 1)
        self._idf = None
        kept = tokens[:, : self._tokens.shape[1]]
        _describe(
            rows,
            kept,
            self._described,
            self._tokens,
            self._frequencies,
            self._postings,
            self._posted,
        )

    def tokens(self, rows: Ints) -> Ints:
        """(..., T) tokens of items, ``NO_ROW`` past the end and for what isn't an item."""
        return np.where((rows == NO_ROW)[..., None], NO_ROW, self._tokens[rows]).astype(np.int32)

    def weigh(self, contexts: Contexts) -> Tastes:
        """How like the tastes of histories items are."""
        weights = self._weights()
        if len(weights) > self._profiles.shape[1]:
            self._profiles = np.zeros((2, len(self._frequencies)), np.float32)
        return Tastes(
            contexts,
            self.window,
            weights,
            float(np.log1p(self.n_described)),
            self._tokens,
            self._postings,
            self._scratch,
            self._profiles,
        )

    def forget(self, rows: Ints) -> None:
        """Clears items' tokens and postings."""
        nothing = np.full((len(rows), self._tokens.shape[1]), NO_ROW, np.int32)
        self.describe(rows, nothing)

    def forget_unused(self) -> Ints:
        """Clears the tokens that no item has, and returns their rows: others may have them."""
        unused = np.flatnonzero(self._frequencies[: self.n_tokens] == 0).astype(np.int32)
        self._postings[unused] = NO_ROW
        self._posted[unused] = 0
        return unused

    def state(self) -> State:
        return {
            "described": self._described,
            "tokens": self._tokens[: self.n_items],
            "frequencies": self._frequencies[: self.n_tokens],
            "postings": self._postings[: self.n_tokens],
            "posted": self._posted[: self.n_tokens],
        }

    def load(self, state: State) -> None:
        for name, value in state.items():
            setattr(self, "_" + name, value.copy())
        self.n_items, self.n_tokens = len(self._tokens), len(self._frequencies)
        self._idf = None
        self._scratch = Scratch(self.n_items)

    def _weights(self) -> Floats:
        """(V,) idf of every token."""
        if self._idf is None:
            frequencies = np.maximum(self._frequencies[: self.n_tokens], 1)
            self._idf = np.log1p(self._described[0] / frequencies).astype(np.float32)
        return self._idf

    def _grow_tokens(self, n_tokens: int) -> None:
        if n_tokens > len(self._frequencies):
            size = max(n_tokens, 2 * len(self._frequencies), 256)
            postings = np.full((size, self._postings.shape[1]), NO_ROW, np.int32)
            postings[: len(self._postings)] = self._postings
            self._postings = postings
            for name in ("_frequencies", "_posted"):
                grown = np.zeros(size, np.int64)
                grown[: len(getattr(self, name))] = getattr(self, name)
                setattr(self, name, grown)
        self.n_tokens = max(self.n_tokens, n_tokens)


class Tastes:
    """The opinion of ``content``: as good as any item's, so nothing is worked out beforehand.

    Args:
        contexts: B of them.
        window: newest events of a history that count.
        weights: (V,) of the tokens.
        highest: weight of a token that one item has.
        tokens: (N, T) of items.
        postings: (V, P) newest items of each token.
        scratch: has room for every item.
        profiles: (2, V) have room for every token; all 0 before and after each use.
    """

    def __init__(
        self,
        contexts: Contexts,
        window: int,
        weights: Floats,
        highest: float,
        tokens: Ints,
        postings: Ints,
        scratch: Scratch,
        profiles: Floats,
    ) -> None:
        self._contexts = contexts
        self._window = window
        self._weights = weights
        self._highest = highest
        self._tokens = tokens
        self._postings = postings
        self._scratch = scratch
        self._profiles = profiles

    def best(self, withheld: Flags, k: int) -> tuple[Ints, Floats]:
        rows = np.full((len(self._contexts), k), NO_ROW, np.int32)
        scores = np.zeros((len(self._contexts), k), np.float32)
        if len(self._weights):
            _best(
                self._contexts.history_items,
                self._contexts.excluded_starts,
                self._contexts.excluded,
                withheld,
                self._window,
                self._weights,
                self._tokens,
                self._postings,
                self._scratch.marks,
                self._scratch.touched,
                self._profiles[0],
                rows,
                scores,
            )
        return rows, scores

    def scores(self, rows: Ints) -> Floats:
        return self.evidence(rows)[..., 0]

    def evidence(self, rows: Ints) -> Floats:
        """(B, C, 4) what the scores of given items are made of, by the names of ``EVIDENCE``.

        The score; what tokens add to it that few items have; the largest idf of a token that the
        item shares with the newest events, as a part of what one that a single item has would
        have; and likewise of one that it shares with the very newest event.
        """
        out = np.zeros((*rows.shape, len(EVIDENCE)), np.float32)
        if len(self._weights):
            history = self._contexts.history_items
            profile, newest = self._profiles
            _compare(
                history,
                rows,
                self._window,
                self._weights,
                self._tokens,
                self._highest,
                profile,
                newest,
                out,
            )
        return out

    def sources(self, rows: Ints) -> Ints:
        out = np.full(rows.shape, NO_ROW, np.int32)
        if len(self._weights):
            history = self._contexts.history_items
            profile = self._profiles[0]
            _sources(history, rows, self._window, self._weights, self._tokens, profile, out)
        return out


@njit(cache=True, nogil=True)
def _describe(
    rows: Ints,
    new: Ints,
    described: Longs,
    tokens: Ints,
    frequencies: Longs,
    postings: Ints,
    posted: Longs,
) -> None:
    for p in range(len(rows)):
        row = rows[p]
        if tokens[row, 0] >= 0:
            described[0] -= 1
        for t in range(tokens.shape[1]):
            if tokens[row, t] >= 0:
                frequencies[tokens[row, t]] -= 1
        before = tokens[row].copy()
        tokens[row] = -1
        for t in range(new.shape[1]):
            token = new[p, t]
            if token < 0:
                break
            tokens[row, t] = token
            frequencies[token] += 1
            # An item that is put again and again must not take the others' places.
            if token not in before:
                postings[token, posted[token] % postings.shape[1]] = row
                posted[token] += 1
        for token in before:
            if token >= 0 and token not in tokens[row]:
                _take_off(row, token, postings, posted)
        if tokens[row, 0] >= 0:
            described[0] += 1


@njit(cache=True, nogil=True)
def _take_off(row: int, token: int, postings: Ints, posted: Longs) -> None:
    """Takes an item off a token's ring; the others keep their order."""
    width = postings.shape[1]
    n = min(posted[token], width)
    oldest = posted[token] - n
    in_order = np.empty(n, np.int32)
    for k in range(n):
        in_order[k] = postings[token, (oldest + k) % width]
    left = 0
    postings[token] = NO_ROW
    for item in in_order:
        if item != row:
            postings[token, left] = item
            left += 1
    posted[token] = left


@njit(cache=True, nogil=True)
def _norm(row: int, weights: Floats, tokens: Ints) -> float:
    total = 0.0
    for t in range(tokens.shape[1]):
        if tokens[row, t] < 0:
            break
        total += weights[tokens[row, t]] ** 2
    return float(np.sqrt(total))


@njit(cache=True, nogil=True)
def _profile(
    history: Ints, window: int, weights: Floats, tokens: Ints, profile: Floats, used: Ints
) -> int:
    """Adds up the history's tokens in ``profile``; returns how many, listed in ``used``."""
    length = len(history)
    n_used = 0
    for distance in range(1, min(window, length) + 1):
        row = history[length - distance]
        if row < 0:
            break
        norm = _norm(row, weights, tokens)
        if norm == 0:
            continue
        share = 1.0 / (np.sqrt(distance) * norm)
        for t in range(tokens.shape[1]):
            token = tokens[row, t]
            if token < 0:
                break
            if profile[token] == 0:
                used[n_used] = token
                n_used += 1
            profile[token] += weights[token] * share
    return n_used


@njit(cache=True, nogil=True)
def _product(row: int, weights: Floats, tokens: Ints, profile: Floats) -> tuple[float, float]:
    """Of an item's tokens and a profile, and the square of the item's length."""
    total = 0.0
    norm = 0.0
    for t in range(tokens.shape[1]):
        token = tokens[row, t]
        if token < 0:
            break
        total += weights[token] * profile[token]
        norm += weights[token] ** 2
    return total, norm


@njit(cache=True, nogil=True)
def _likeness(row: int, weights: Floats, tokens: Ints, profile: Floats) -> float:
    total, norm = _product(row, weights, tokens, profile)
    return float(total / np.sqrt(norm)) if norm > 0 else 0.0


@njit(cache=True, nogil=True)
def _best(
    history_items: Ints,
    excluded_starts: Longs,
    excluded: Ints,
    withheld: Flags,
    window: int,
    weights: Floats,
    tokens: Ints,
    postings: Ints,
    seen: Flags,
    touched: Ints,
    profile: Floats,
    rows: Ints,
    scores: Floats,
) -> None:
    n_items = len(withheld)
    used = np.zeros(min(window, history_items.shape[1]) * tokens.shape[1], np.int32)
    firsts = np.empty(postings.shape[1], np.int32)
    for b in range(len(history_items)):
        n_used = _profile(history_items[b], window, weights, tokens, profile, used)
        barred = excluded[excluded_starts[b] : excluded_starts[b + 1]]
        mark(seen, barred, True)
        filled = 0
        n_touched = 0
        for u in range(n_used):
            start = n_touched
            for p in range(postings.shape[1]):
                item = postings[used[u], p]
                if item < 0:
                    break
                if item < n_items and not seen[item]:
                    seen[item] = True
                    touched[n_touched] = item
                    n_touched += 1
            # Asked for beforehand they come from memory together, not each when it is its turn.
            for t in range(start, n_touched):
                firsts[t - start] = tokens[touched[t], 0]
            for t in range(start, n_touched):
                item = touched[t]
                if firsts[t - start] < 0 or withheld[item]:
                    continue
                total, norm = _product(item, weights, tokens, profile)
                # Spares most of them the root; a little lower, for it is rounded otherwise.
                floor = scores[b, -1] * 0.999
                if total * total <= floor * floor * norm:
                    continue
                score = np.float32(total / np.sqrt(norm))
                if score > 0:
                    filled = keep_best(rows[b], scores[b], filled, item, float(score))
        mark(seen, touched[:n_touched], False)
        mark(seen, barred, False)
        for u in range(n_used):
            profile[used[u]] = 0


@njit(cache=True, nogil=True)
def _compare(
    history_items: Ints,
    rows: Ints,
    window: int,
    weights: Floats,
    tokens: Ints,
    highest: float,
    profile: Floats,
    newest: Floats,
    out: Floats,
) -> None:
    used_by_last = np.zeros(tokens.shape[1], np.int32)
    used = np.zeros(min(window, history_items.shape[1]) * tokens.shape[1], np.int32)
    for b in range(len(history_items)):
        n_used = _profile(history_items[b], window, weights, tokens, profile, used)
        last = history_items[b, -1:]
        n_last = _profile(last, 1, weights, tokens, newest, used_by_last)
        for c in range(rows.shape[1]):
            row = rows[b, c]
            if row < 0:
                continue
            total = rare = norm = 0.0
            rarest = rarest_of_last = 0.0
            for t in range(tokens.shape[1]):
                token = tokens[row, t]
                if token < 0:
                    break
                weight = weights[token]
                norm += weight**2
                if profile[token] == 0:
                    continue
                part = weight * profile[token]
                total += part
                if weight > _RARE:
                    rare += part
                rarest = max(rarest, weight)
                if newest[token] > 0:
                    rarest_of_last = max(rarest_of_last, weight)
            if total > 0:
                length = np.sqrt(norm)
                out[b, c, 0] = total / length
                out[b, c, 1] = rare / length
                out[b, c, 2] = rarest / highest
                out[b, c, 3] = rarest_of_last / highest
        for u in range(n_used):
            profile[used[u]] = 0
        for u in range(n_last):
            newest[used_by_last[u]] = 0


@njit(cache=True, nogil=True)
def _sources(
    history_items: Ints,
    rows: Ints,
    window: int,
    weights: Floats,
    tokens: Ints,
    profile: Floats,
    out: Ints,
) -> None:
    length = history_items.shape[1]
    used = np.zeros(tokens.shape[1], np.int32)
    best = np.zeros(rows.shape[1])
    for b in range(len(history_items)):
        best[:] = 0
        for distance in range(1, min(window, length) + 1):
            before = history_items[b, length - distance]
            if before < 0:
                break
            n_used = _profile(
                history_items[b, length - distance : length - distance + 1],
                1,
                weights,
                tokens,
                profile,
                used,
            )
            for c in range(rows.shape[1]):
                if rows[b, c] >= 0:
                    gain = _likeness(rows[b, c], weights, tokens, profile) / np.sqrt(distance)
                    if gain > best[c]:
                        best[c] = gain
                        out[b, c] = before
            for u in range(n_used):
                profile[used[u]] = 0
