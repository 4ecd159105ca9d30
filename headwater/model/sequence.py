"""The sequence expert: a causal encoder of the history against the vectors of items.

score(u, i) = <encode(history of u), vector of i> + bias of i

Rows are learned by row-wise Adagrad and only where a step touched them; dense
weights by Adam. The loss of a step is the cross-entropy of the item that came
next among sampled ones, with the logQ correction (Yi et al., RecSys 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from headwater.config import Sequence as Settings
from headwater.model._dense import DenseWeights, Step
from headwater.model._encoder import Encoder
from headwater.model._encoding import Encoding, gap_buckets, nearest
from headwater.model._opinion import keep_best
from headwater.model._tower import Tower
from headwater.model.content import Content
from headwater.packing import part_of
from headwater.types import (
    NO_ROW,
    Bytes,
    Contexts,
    Flags,
    Floats,
    Ints,
    Longs,
    State,
)

_LENGTH_EDGES = np.array([12, 50, 200, 1000])
"""Histories up to each length are encoded together."""

_DEPTH = 150
"""Items scored exactly beyond those that are wanted, where a first look chose them. """


@dataclass(slots=True)
class Examples:
    """Q histories, and what came next after chosen columns of them.

    ``at[q, p] = L - 1`` predicts what followed the whole history; a smaller column
    predicts the history's own next event. A ``weights`` of 0 pads; one below 0 marks a
    target that was shown there and ignored.

    Targets that are learned ``again`` move no biases: how popular items were is no news, and no
    longer true.
    """

    items: Ints  # (Q, L)
    types: Bytes  # (Q, L)
    gaps: Bytes  # (Q, L)
    at: Ints  # (Q, P)
    targets: Ints  # (Q, P)
    weights: Floats  # (Q, P)
    again: Flags  # (Q, P)


class SequenceExpert:
    """The item tower and the encoder.

    Args:
        settings: dim, layers, heads, rates.
        length: L, of histories.
        consuming_types: (types,) whether an event of that type uses its item up; such items of
            a history are masked from the loss, as they are from what is served.
        content: knows the tokens of items.
        seed: of every initial weight.
    """

    name = "sequence"

    def __init__(
        self,
        settings: Settings,
        length: int,
        consuming_types: Flags,
        content: Content,
        seed: int,
    ) -> None:
        self.settings = settings
        self.length = length
        self._consuming = consuming_types
        self.tower = Tower(settings.dim, content, settings.exact_items, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(
                settings.dim, settings.layers, settings.heads, length, len(consuming_types)
            )
        self.encoding = Encoding(self.encoder)
        self.dense = DenseWeights("sequence", self.encoder, settings.learning_rate)

    def grow(self, n_items: int) -> None:
        self.tower.grow(n_items)

    def encode(self, contexts: Contexts) -> Floats:
        """(B, D + 1) user vectors; the last column is 1, for the bias."""
        gaps = gap_buckets(contexts.history_times, contexts.history_items, contexts.times)
        return self._encode(contexts.history_items, contexts.history_types, gaps)

    def users(self, examples: Examples, chosen: Longs) -> Floats:
        """(S, D + 1) likewise, behind the whole histories of chosen examples."""
        return self._encode(examples.items[chosen], examples.types[chosen], examples.gaps[chosen])

    def candidates(
        self, users: Floats, contexts: Contexts, withheld: Flags, k: int
    ) -> tuple[Ints, Floats]:
        """The best k items, best first: rows and scores (B, k).

        Of up to ``exact_items`` every one is scored; of more, those that seemed best at a first
        look (``headwater.model._first_look``). Where fewer may be proposed, the end of a list is
        ``NO_ROW`` with a score of -inf.
        """
        n = len(withheld)
        rows = np.full((len(users), k), NO_ROW, np.int32)
        found = np.full((len(users), k), -np.inf, np.float32)
        if n > self.settings.exact_items:
            seeming = self.tower.first_look.best(users, contexts, withheld, _DEPTH + k)
            _put_in_order(seeming, self.scores(users, seeming), rows, found)
            return rows, found
        scores = users @ self.tower.vectors()[:n].T
        scores[:, withheld] = -np.inf
        _mask(scores, contexts.excluded_starts, contexts.excluded)
        most = min(k, n)
        best, places = torch.from_numpy(scores).topk(most)
        found[:, :most] = best.numpy()
        rows[:, :most] = np.where(np.isfinite(best.numpy()), places.numpy(), NO_ROW)
        return rows, found

    def near(self, item: int, there: Flags, k: int) -> Ints:
        """The k rows whose vectors, without their biases, are nearest to an item's by the cosine,
        nearest first; only those above 0.

        Args:
            item: row.
            there: (N,) rows that may be among them.
        """
        own = self.tower.vectors_of(np.array([item], np.int32))[0]
        if len(there) > self.settings.exact_items:
            rows = self.tower.first_look.near(item, there, _DEPTH + k)
            vectors = self.tower.vectors_of(rows)
        else:
            rows = np.flatnonzero(there).astype(np.int32)
            vectors = self.tower.vectors()[rows]
        similarity = cosines(own[:-1], vectors[:, :-1])
        order = np.lexsort((rows, -similarity))[:k]
        return rows[order[similarity[order] > 0]]

    def scores(self, users: Floats, rows: Ints) -> Floats:
        """(B, C) scores of given candidates; 0 for ``NO_ROW``."""
        return self.tower.products(users, rows)

    def history_weights(self, contexts: Contexts) -> Floats:
        """(B, L) weight of each behaviour in the linear path; sums to 1 over a history."""
        gaps = gap_buckets(contexts.history_times, contexts.history_items, contexts.times)
        return self.encoding.weights(contexts.history_items, contexts.history_types, gaps)

    def sources(self, contexts: Contexts, rows: Ints) -> Ints:
        """(B, C) for each candidate, the history item whose weighted vector is nearest to it;
        ``NO_ROW`` where there is no history.
        """
        history = contexts.history_items
        vectors = self.tower.vectors_of(history[history >= 0])
        candidates = self.tower.vectors_of(np.maximum(rows, 0).ravel()).reshape(*rows.shape, -1)
        return nearest(history, self.history_weights(contexts), vectors, candidates)

    def step(
        self,
        examples: Examples,
        negatives: Ints,
        correction: Callable[[Ints], Floats] | None,
        rate: float,
        dropout: float = 0.0,
    ) -> Step:
        """One gradient step, to be taken or left; its loss is that of what came next."""
        return self.begin(examples, negatives, correction, rate, dropout)()

    def begin(
        self,
        examples: Examples,
        negatives: Ints,
        correction: Callable[[Ints], Floats] | None,
        rate: float,
        dropout: float = 0.0,
    ) -> Callable[[], Step]:
        """What makes a step; it may be called in another thread, while nothing of this changes.

        A target y that was ignored adds |w| (weighed against what came next, like any other) times
        -log sigmoid(a - s_y), with s_y its score and a the log of the mean of exp(score) over all
        items, as the candidates tell it: the pairwise loss of BPR (Rendle et al., UAI 2009) against
        the average item. One that scores below the average is left alone. At least one target
        must have come next.

        Args:
            examples: Q histories.
            negatives: (M,) distinct item rows to rank the targets among.
            correction: what sampling adds to the logits of given rows, taken off again; with
                the log probability of being a candidate it is logQ. It is asked now. ``None`` for
                nothing.
            rate: factor on both learning rates.
            dropout: share of activations that are dropped.
        """
        wanted = examples.targets[examples.weights > 0]
        candidates = np.union1d(negatives, wanted).astype(np.int32)
        corrections = None if correction is None else correction(candidates)
        return partial(self._step, examples, candidates, corrections, rate, dropout)

    def _step(
        self,
        examples: Examples,
        candidates: Ints,
        corrections: Floats | None,
        rate: float,
        dropout: float,
    ) -> Step:
        wanted, ignored = examples.weights > 0, examples.weights < 0
        again = examples.again
        touched = [examples.items[examples.items >= 0], examples.targets[ignored]]
        rows = np.union1d(candidates, np.concatenate(touched)).astype(np.int32)
        place = np.searchsorted(rows, np.maximum(examples.items, rows[0])).astype(np.int32)
        values = torch.from_numpy(self.tower.vectors_of(rows))
        vectors = values[:, :-1].contiguous().requires_grad_()
        biases = values[:, -1].contiguous().requires_grad_()
        users = self._forward(
            place, examples.types, examples.gaps, examples.at, vectors, examples.items, dropout
        )
        chosen = torch.from_numpy(np.searchsorted(rows, candidates))
        across, offsets = vectors[chosen].T, biases[chosen]
        if corrections is not None:
            offsets = offsets - torch.from_numpy(corrections)

        def ranked(which: Flags, offsets: Tensor) -> tuple[Tensor, Tensor, Flags]:
            """(T, D) queries, (T, M) logits, and which of these were used up before."""
            queries = users[torch.from_numpy(which)]
            logits = torch.addmm(offsets, queries, across)
            used = _consumed_mask(
                examples.items,
                examples.types,
                examples.at,
                which,
                self._consuming,
                candidates,
            )
            return queries, logits, used

        parts = []
        fixed = offsets.detach()
        for which, own in ((wanted & ~again, offsets), (wanted & again, fixed)):
            _, logits, used = ranked(which, own)
            column = np.searchsorted(candidates, examples.targets[which])
            used[np.arange(len(column)), column] = False
            # In place, and unknown to autograd: the softmax's gradient there is 0 anyway.
            logits.detach().masked_fill_(torch.from_numpy(used), -1e9)
            losses = F.cross_entropy(logits, torch.from_numpy(column), reduction="none")
            parts.append((losses * torch.from_numpy(examples.weights[which])).sum())
        weight = float(examples.weights[wanted].sum())
        loss = objective = (parts[0] + parts[1]) / weight
        if ignored.any():
            shown = examples.targets[ignored]
            queries, logits, used = ranked(ignored, offsets)
            used |= candidates == shown[:, None]
            others = logits.masked_fill(torch.from_numpy(used), -1e9).logsumexp(dim=1)
            own = torch.from_numpy(np.searchsorted(rows, shown))
            # It is there for certain, so no draw has to be corrected.
            score = (queries * vectors[own]).sum(dim=1) + biases[own]
            above_average = score - others + np.log(len(self.tower.items))
            passed = F.softplus(above_average) * torch.from_numpy(-examples.weights[ignored])
            objective = loss + passed.sum() / weight

        self.dense.differentiate(objective)
        assert vectors.grad is not None
        assert biases.grad is not None
        gradients = torch.cat([vectors.grad, biases.grad[:, None]], dim=1).numpy()

        def descend() -> None:
            self.dense.descend(rate)
            queries = users.detach().numpy()[wanted]
            learned = self.settings.row_learning_rate * rate
            self.tower.descend(rows, gradients, queries, learned)

        return Step(float(loss.detach()), descend)

    def state(self) -> State:
        return {
            **self.tower.state(),
            **{f"dense.{name}": value for name, value in self.dense.state().items()},
        }

    def load(self, state: State) -> None:
        self.tower.load(state)
        self.dense.load(part_of(state, "dense."))

    def _encode(self, items: Ints, types: Bytes, gaps: Bytes) -> Floats:
        return self.encoding.encode(items, types, gaps, self.tower.vectors_of(items[items >= 0]))

    def _forward(
        self,
        place: Ints,
        types: Bytes,
        gaps: Bytes,
        at: Ints,
        vectors: Tensor,
        items: Ints,
        dropout: float = 0.0,
    ) -> Tensor:
        """(Q, P, D) user vectors of histories whose items stand at ``place`` of ``vectors``.

        Histories of like length are encoded together, so that short ones don't pay for
        the padding of long ones.
        """
        lengths = (items >= 0).sum(axis=1)
        edges = np.minimum(_LENGTH_EDGES, self.length)
        group = np.searchsorted(edges, lengths)
        parts, order = [], []
        for number in np.unique(group):
            rows = np.flatnonzero(group == number)
            start = self.length - int(edges[number])
            valid = torch.from_numpy(items[rows, start:] >= 0)
            where = torch.from_numpy(np.maximum(place[rows, start:], 0).astype(np.int64))
            parts.append(
                self.encoder(
                    F.embedding(where, vectors),
                    valid,
                    torch.from_numpy(types[rows, start:].astype(np.int64)),
                    torch.from_numpy(gaps[rows, start:].astype(np.int64)),
                    torch.from_numpy(np.maximum(at[rows] - start, 0).astype(np.int64)),
                    dropout,
                )
            )
            order.append(rows)
        back = np.argsort(np.concatenate(order))
        return torch.cat(parts)[torch.from_numpy(back)]


def cosines(vector: Floats, vectors: Floats) -> Floats:
    """(N,) cosine of the angle to each of (N, D) vectors; 0 where one of the two is 0."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors) * (vector @ vector))
    found: Floats = np.where(lengths > 0, vectors @ vector / np.maximum(lengths, 1e-12), 0.0)
    return found


@njit(cache=True, nogil=True)
def _put_in_order(given: Ints, scores: Floats, rows: Ints, found: Floats) -> None:
    """The best of (B, C) given rows into (B, k), best first; of equal ones the lower row."""
    for b in range(len(given)):
        filled = 0
        for c in range(given.shape[1]):
            if given[b, c] >= 0:
                filled = keep_best(rows[b], found[b], filled, given[b, c], scores[b, c])


@njit(cache=True, nogil=True)
def _mask(
    scores: Floats,
    excluded_starts: Longs,
    excluded: Ints,
) -> None:
    n = scores.shape[1]
    for b in range(scores.shape[0]):
        for e in range(excluded_starts[b], excluded_starts[b + 1]):
            if excluded[e] < n:
                scores[b, excluded[e]] = -np.inf


@njit(cache=True, nogil=True)
def _consumed_mask(
    items: Ints,
    types: Bytes,
    at: Ints,
    wanted: Flags,
    consuming: Flags,
    candidates: Ints,
) -> Flags:
    """(T, M) True where a candidate, of ascending ones, was used up before its query."""
    length = items.shape[1]
    mask = np.zeros((np.count_nonzero(wanted), len(candidates)), np.bool_)
    used = np.empty(length, np.int64)  # place of what each column used up, -1 for nothing
    t = 0
    for q in range(items.shape[0]):
        if not wanted[q].any():
            continue
        for column in range(length):
            item = items[q, column]
            used[column] = -1
            if item >= 0 and consuming[types[q, column]]:
                place = np.searchsorted(candidates, item)
                if place < len(candidates) and candidates[place] == item:
                    used[column] = place
        for p in range(at.shape[1]):
            if not wanted[q, p]:
                continue
            for column in range(at[q, p] + 1):
                if used[column] >= 0:
                    mask[t, used[column]] = True
            t += 1
    return mask
