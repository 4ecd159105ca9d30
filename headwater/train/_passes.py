"""Several passes over a history that is there as a whole, for before a system goes live.

The sequence expert predicts every event of every user from those before it, all
positions of a window at once (SASRec, Kang and McAuley, ICDM 2018), by cross-entropy
over the whole catalogue while that is small enough, with dropout. The mixture goes
over lists that were ranked before any of their answers was learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.config import Config
from headwater.model import Examples, Mixture, SequenceExpert, gap_buckets
from headwater.types import NO_ROW, Batch, Flags, Floats, Gone, Ints, Longs, Ranking

_LISTS = 64
"""Lists of one step of the mixture: a hold-out may have few, and a pass then few steps."""
_JUDGES = 5
"""Every so-manieth list isn't learned from: it says when to stop."""


_List = tuple[NDArray[np.float16], int, float]
"""Features (C, F) of a list, the place of its answer, and its weight."""


class Pasts:
    """All that the users did, as far as histories remember it; 25 bytes an event."""

    def __init__(self) -> None:
        self._parts: list[dict[str, NDArray[Any]]] = []

    def add(self, batch: Batch) -> None:
        """Appends the events of the next batch."""
        kept = (batch.items != NO_ROW) & (batch.contexts.users != NO_ROW) & (batch.polarities != 0)
        self._parts.append(
            {
                "users": batch.contexts.users[kept],
                "items": batch.items[kept],
                "types": batch.types[kept],
                "times": batch.contexts.times[kept],
                "weights": (batch.weights * batch.targets)[kept],
            }
        )

    def forget(self, gone: Gone) -> None:
        """Drops what some users did so far, and what anyone did with some items."""
        if not (len(gone.users) or len(gone.items)):
            return
        for part in self._parts:
            kept = ~(np.isin(part["users"], gone.users) | np.isin(part["items"], gone.items))
            for name, column in part.items():
                part[name] = column[kept]

    def by_user(self) -> dict[str, NDArray[Any]]:
        """The columns, user after user, each in order of time."""
        if not self._parts:
            return {}
        columns = {
            name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]
        }
        order = np.argsort(columns["users"], kind="stable")
        return {name: column[order] for name, column in columns.items()}


class SequencePasses:
    """Goes over users' pasts, again and again, with the sequence expert.

    Args:
        config: ``backfill`` and the seed.
        expert: what is trained.
        pasts: all that it is trained on.
    """

    def __init__(self, config: Config, expert: SequenceExpert, pasts: Pasts) -> None:
        self.settings = config.backfill
        self.seed = config.seed
        self.expert = expert
        self.done = 0
        self._columns = pasts.by_user()
        users = self._columns.get("users", np.zeros(0, np.int32))
        self._starts = np.flatnonzero(np.diff(users, prepend=NO_ROW))
        self._ends = np.append(self._starts[1:], len(users))
        counts = np.bincount(self._columns.get("items", users), minlength=len(expert.tower.items))
        # An item that nobody has used yet would only ever be pushed away.
        self._known = np.flatnonzero(counts).astype(np.int32)
        self._shares = counts / max(len(users), 1)

    def run(self) -> float:
        """One pass; returns its mean loss in nats, NaN where no user did two things."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, self.done]))
        self.done += 1
        starts, ends = self._windows(random)
        order = random.permutation(len(starts))
        size = max(self.settings.positions // self.expert.length, 1)
        losses = []
        for begin in range(0, len(order), size):
            chosen = order[begin : begin + size]
            examples = self._examples(starts[chosen], ends[chosen])
            if examples.weights.any():
                losses.append(self._step(examples, random))
        return float(np.mean(losses)) if losses else float("nan")

    def _windows(self, random: np.random.Generator) -> tuple[Longs, Longs]:
        """Where the windows of L events and the one after them begin and end.

        A user's newest window ends with the newest event; the one before it overlaps it by
        chance, so that the others are cut elsewhere in every pass.
        """
        length = self.expert.length
        several = self._ends - self._starts > 1
        first, last = self._starts[several], self._ends[several]
        second = last - random.integers(1, length + 1, len(last))
        more = np.maximum(-(-(second - first - 1) // length), 0)
        number = 1 + more
        owner = np.repeat(np.arange(len(last)), number)
        place = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        ends = np.where(place == 0, last[owner], second[owner] - (place - 1) * length)
        return np.maximum(ends - length - 1, first[owner]), ends

    def _examples(self, starts: Longs, ends: Longs) -> Examples:
        """The windows as histories (Q, L) whose every position is predicted."""
        length = self.expert.length
        places = ends[:, None] - 1 - length + np.arange(length)
        valid = places >= starts[:, None]
        places = np.maximum(places, 0)
        items = np.where(valid, self._columns["items"][places], NO_ROW).astype(np.int32)
        times = np.where(valid, self._columns["times"][places], 0.0)
        following = np.minimum(places + 1, ends[:, None] - 1)
        return Examples(
            items=items,
            types=np.where(valid, self._columns["types"][places], 0).astype(np.uint8),
            gaps=gap_buckets(times, items, self._columns["times"][ends - 1]),
            at=np.tile(np.arange(length, dtype=np.int32), (len(ends), 1)),
            targets=self._columns["items"][following],
            weights=np.where(valid, self._columns["weights"][following], 0).astype(np.float32),
            again=np.zeros(valid.shape, np.bool_),
        )

    def _step(self, examples: Examples, random: np.random.Generator) -> float:
        known, wanted = self._known, self.settings.candidates
        dropout = self.settings.dropout
        if len(known) <= wanted:
            return self.expert.step(examples, known, None, 1.0, dropout).take()
        targets = int(np.count_nonzero(examples.weights))

        def log_q(rows: Ints) -> Floats:
            """Log probability of being a candidate, drawn or as one of the targets."""
            absent = wanted * np.log1p(-1.0 / len(known)) + targets * np.log1p(-self._shares[rows])
            logs: Floats = np.log(-np.expm1(absent)).astype(np.float32)
            return logs

        drawn = np.unique(known[random.integers(0, len(known), wanted)])
        return self.expert.step(examples, drawn, log_q, 1.0, dropout).take()


class ListPasses:
    """Goes over ranked lists, again and again, with the mixture.

    Lists are whole: cut to their best candidates they would show which items the mixture
    thought well of before it had learned anything, and the answers as those that it hadn't.

    Args:
        mixture: what is trained.
        seed: of the order of the lists.
        ranked: batches, and the lists that were ranked for each before any answer was learned.
            Those that hold their answer are kept, at 2 bytes a feature.
    """

    def __init__(
        self, mixture: Mixture, seed: int, ranked: Iterable[tuple[Batch, Ranking]]
    ) -> None:
        self.mixture = mixture
        self.seed = seed
        self.done = 0
        self._lists: list[_List] = []
        self._learned: list[int] = []
        self._judges: list[int] = []
        seen = 0
        for batch, ranking in ranked:
            hit = (ranking.rows == batch.items[:, None]) & (batch.items != NO_ROW)[:, None]
            lengths = (ranking.rows != NO_ROW).sum(axis=1)
            for b in np.flatnonzero(hit.any(axis=1)).tolist():
                group = self._judges if is_judge(np.array(seen + b)) else self._learned
                group.append(len(self._lists))
                features = ranking.features[b, : lengths[b]].astype(np.float16)
                self._lists.append((features, int(hit[b].argmax()), float(batch.weights[b])))
            seen += len(batch)

    def loss(self) -> float:
        """Mean loss in nats of the lists that aren't learned from, NaN where there are none."""
        judges = np.array(self._judges, np.int64)
        if not len(judges):
            return float("nan")
        total = sum(self.mixture.loss(*lists) * len(lists[0]) for lists in self._batches(judges))
        return total / len(judges)

    def run(self) -> None:
        """One pass over the lists that are learned from."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, self.done]))
        self.done += 1
        for lists in self._batches(random.permutation(self._learned)):
            self.mixture.step(*lists, 1.0).take()

    def _batches(self, places: Longs) -> Iterator[tuple[Floats, Flags, Ints, Floats]]:
        """Features (M, C, F), what of them is valid, targets and weights of up to 64 lists."""
        members = self.mixture.settings.members
        for begin in range(0, len(places), _LISTS):
            chosen = [self._lists[place] for place in places[begin : begin + _LISTS]]
            longest = max(len(features) for features, _, _ in chosen)
            shape = (len(chosen), longest, chosen[0][0].shape[1])
            both, valid = np.zeros(shape, np.float32), np.zeros(shape[:2], np.bool_)
            for m, (features, _, _) in enumerate(chosen):
                both[m, : len(features)] = features
                valid[m, : len(features)] = True
            targets = np.array([target for _, target, _ in chosen], np.int32)
            weights = np.array([weight for _, _, weight in chosen], np.float32)
            yield both, valid, targets, np.repeat(weights[:, None], members, axis=1)


def is_judge(numbers: Longs) -> Flags:
    """Whether each list, by its number among those of a hold-out, is kept from learning."""
    judges: Flags = numbers % _JUDGES == 0
    return judges
