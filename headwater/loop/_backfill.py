"""Learning a history in several passes, before a system goes live.

Counting experts count the history once, in order. The sequence expert then goes
over it again and again while it gets better on what came after it, and the mixture
over the lists that are ranked for that. What is learned is a state like any other:
the stream goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from headwater.config import Config
from headwater.evaluate import Outcomes, compare, ndcg_gains
from headwater.log import EventsLog
from headwater.log.chunks import Chunk
from headwater.loop._fold import Fold
from headwater.loop._learner import Learner
from headwater.model import EXPERTS, many_threads
from headwater.preprocess import Preprocessor, joined, taken
from headwater.train import ListPasses, Pasts, SequencePasses, is_judge
from headwater.types import NO_ROW, Batch, Flags, Gone, Ranking, State, UserRemoval

CHUNK = 1_000
"""Entries that are folded, and lists that are ranked, at a time."""
_NEVER = 1_000
"""Sightings after which an id is admitted: more than are ever counted."""
_LIST_PASSES = 100
_LIST_PATIENCE = 5
"""Passes of the mixture that brought no lower loss, after which it is done."""

Progress = Callable[[str, int, int, str], None]
"""Called with what is being done, how much of it is done, how much there is, and figures."""


@dataclass(slots=True)
class Backfilled:
    """What the passes did. NDCG@10 is that of the hold-out, before anything learned of it."""

    events: int
    """Learned in passes."""
    held_out: int
    """Targets of the hold-out that were asked."""
    passes: int
    """That were kept: those up to the best one."""
    passes_done: int
    sequence_ndcg: float
    list_passes: int
    ndcg: dict[str, float]
    """Of the mixture and of each expert, on the part of the hold-out that the mixture hasn't
    learned from; empty where there is no hold-out."""
    seconds: float


class Backfill:
    """Learns a history into a fold: ``count`` it in order, then ``run``.

    Args:
        config: ``backfill``.
        fold: what learns; it has folded nothing that isn't counted here.
        progress: see :data:`Progress`.
    """

    def __init__(self, config: Config, fold: Fold, progress: Progress) -> None:
        self.config = config
        self.settings = config.backfill
        self.fold = fold
        self.progress = progress
        self._pasts = Pasts()
        self._events = 0

    def count(self, batch: Batch) -> None:
        """The counting experts learn the next batch, and the passes will."""
        self._events += len(batch)
        self.fold.model.count(batch)
        self._pasts.add(batch)

    def forget(self, gone: Gone) -> None:
        """Leaves users and items out of what the passes learn from, as far as it was counted."""
        self._pasts.forget(gone)

    def run(self, hold_out: Batch) -> Backfilled:
        """Goes over what was counted, as long as it gets better on the targets of ``hold_out``.

        Args:
            hold_out: events beside the histories that were before them.
        """
        started = time.perf_counter()
        withheld = self.fold.withheld()
        hold_out = taken(hold_out, np.flatnonzero(hold_out.targets & (hold_out.weights > 0)))
        with many_threads(self.settings.threads, self.config.seed):
            passes, best, ndcg = self._sequence(hold_out, withheld)
        list_passes = self._mixture(hold_out, withheld) if len(hold_out) else 0
        return Backfilled(
            events=self._events,
            held_out=len(hold_out),
            passes=best,
            passes_done=passes,
            sequence_ndcg=ndcg,
            list_passes=list_passes,
            ndcg=self._judged(hold_out, withheld),
            seconds=time.perf_counter() - started,
        )

    def _sequence(self, hold_out: Batch, withheld: Flags) -> tuple[int, int, float]:
        """Passes done, passes kept and the NDCG@10 after them; without a hold-out, all are."""
        expert = self.fold.model.sequence
        passes = SequencePasses(self.config, expert, self._pasts)
        kept, best, highest = _copied(expert.state()), 0, self._sequence_ndcg(hold_out, withheld)
        started, longest = time.monotonic(), 0.0
        while passes.done < self.settings.passes:
            begun = time.monotonic()
            if begun - started + longest > self.settings.minutes * 60.0:
                break
            loss = passes.run()
            ndcg = self._sequence_ndcg(hold_out, withheld)
            if not ndcg <= highest:
                kept, best, highest = _copied(expert.state()), passes.done, ndcg
            longest = max(longest, time.monotonic() - begun)
            figures = f"loss {loss:.3f}  NDCG@10 {ndcg:.4f}  best {highest:.4f} after {best}"
            self.progress("passes", passes.done, self.settings.passes, figures)
            if passes.done - best >= self.settings.patience:
                break
        expert.load(kept)
        return passes.done, best, highest

    def _sequence_ndcg(self, hold_out: Batch, withheld: Flags) -> float:
        """NDCG@10 of the sequence expert alone, NaN for no hold-out."""
        if not len(hold_out):
            return float("nan")
        expert = self.fold.model.sequence
        gains = []
        for batch in _chunks(hold_out):
            users = expert.encode(batch.contexts)
            rows, _ = expert.candidates(users, batch.contexts, withheld, 10)
            hit = (rows == batch.items[:, None]) & (rows != NO_ROW)
            ranks = np.where(hit.any(axis=1), hit.argmax(axis=1), -1)
            gains.append(ndcg_gains(ranks, 10))
        return float(np.concatenate(gains).mean())

    def _mixture(self, hold_out: Batch, withheld: Flags) -> int:
        """Passes of the mixture that were kept: those up to the lowest loss of the judges."""
        mixture = self.fold.model.mixture
        passes = ListPasses(mixture, self.config.seed, self._ranked(hold_out, withheld))
        kept, best, lowest = _copied(mixture.state()), 0, passes.loss()
        while passes.done < min(best + _LIST_PATIENCE, _LIST_PASSES):
            passes.run()
            loss = passes.loss()
            if not loss >= lowest:
                kept, best, lowest = _copied(mixture.state()), passes.done, loss
            figures = f"loss {loss:.3f}  lowest {lowest:.3f} after {best}"
            self.progress("mixture", passes.done, _LIST_PASSES, figures)
        mixture.load(kept)
        return best

    def _judged(self, hold_out: Batch, withheld: Flags) -> dict[str, float]:
        """NDCG@10 of all models on what the mixture hasn't learned of the hold-out."""
        judges = taken(hold_out, np.flatnonzero(is_judge(np.arange(len(hold_out)))))
        if not len(judges):
            return {}
        outcomes = [self._outcomes(*ranked) for ranked in self._ranked(judges, withheld)]
        gains = ndcg_gains(np.concatenate([found.ranks for found in outcomes]), 10).mean(axis=0)
        return dict(zip(("mixture", *EXPERTS), gains.round(6).tolist(), strict=True))

    def _outcomes(self, batch: Batch, ranking: Ranking) -> Outcomes:
        events = self.fold.model.popularity.events
        return compare(EXPERTS, batch, ranking, events, int(events.sum()))

    def _ranked(self, batch: Batch, withheld: Flags) -> Iterator[tuple[Batch, Ranking]]:
        for chunk in _chunks(batch):
            yield chunk, self.fold.recommender.rank(chunk.contexts, withheld)


def relearn(config: Config, learner: Learner, events: EventsLog, progress: Progress) -> Backfilled:
    """Learns the whole log: all but its newest events in passes, those as a stream.

    Args:
        learner: one that has learned nothing; it begins a new epoch with what it learned.

    Raises:
        GuardTripped: what was learned must not go live; nothing was written.
    """
    fold = learner.fold
    backfill = Backfill(config, fold, progress)
    offsets = [
        offset
        for read in _chunked(events, events.start())
        for offset in read.offsets[read.places].tolist()
    ]
    held = round(config.backfill.hold_out * len(offsets))
    end = events.end()
    until = offsets[-held] - 1 if held else end
    while fold.offset < until:
        read = fold.until_cut(events.chunk(fold.offset, min(CHUNK, until - fold.offset)))
        batch, removed = fold.batch(read)
        backfill.count(batch)
        hidden = [r.entry.user_id for r in read.others if isinstance(r.entry, UserRemoval)]
        rows = np.array(fold.preprocess.users.known(hidden), np.int32)
        gone = fold.forget(read, removed)
        learner.stages.remember(batch, gone)
        backfill.forget(Gone(gone.items, np.union1d(gone.users, rows)))
        progress("counting", fold.offset, end, "")
    done = backfill.run(_ahead(config, fold, events, max(-(-held // config.backfill.judged), 1)))
    learner.stages.gradient_through = fold.offset
    while learner.trained_through < end:
        left = end - learner.trained_through
        records = events.read(learner.trained_through, min(config.train.batch_events, left))
        learner.learn(fold.until_cut(records))
        progress("hold-out", learner.trained_through - until, end - until, "")
    learner.begin_epoch("the history was learned in several passes")
    return done


def _ahead(config: Config, fold: Fold, events: EventsLog, every: int) -> Batch:
    """Every so-manieth event that the fold hasn't folded yet, beside its history; the fold stays
    as it is. Items that are new by then have no row: they are in no history, and not asked.
    """
    rows_only = config.preprocess.model_copy(update={"admit_items_after": _NEVER})
    preprocess = Preprocessor(config.model_copy(update={"preprocess": rows_only}))
    preprocess.load(fold.preprocess.state())
    batches, seen = [preprocess.batch([])[0]], 0
    for read in _chunked(events, fold.offset):
        batch, _ = preprocess.batch(read.events_only())
        batches.append(taken(batch, np.arange(-seen % every, len(batch), every)))
        seen += len(batch)
    return joined(batches)


def _chunked(events: EventsLog, after: int) -> Iterator[Chunk]:
    """The entries behind an offset."""
    while len(read := events.chunk(after, CHUNK)):
        yield read
        after = int(read.offsets[-1])


def _chunks(batch: Batch) -> Iterator[Batch]:
    for begin in range(0, len(batch), CHUNK):
        yield taken(batch, np.arange(begin, min(begin + CHUNK, len(batch))))


def _copied(state: State) -> State:
    return {name: array.copy() for name, array in state.items()}
