"""Negatives: what the targets of a step are told from, and the correction for drawing them.

With uniform draws and the step's own targets as candidates, popular items are among these more
often. logQ, the log probability of being a candidate, is taken off their logits again (Yi et
al., RecSys 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headwater.config import Config
from headwater.model import Examples, SequenceExpert
from headwater.train._generator import Generator
from headwater.train._histories import Positives
from headwater.train._imbalance import Balance
from headwater.types import Flags, Floats, Ints


class Negatives:
    """Draws the negatives of each step.

    Args:
        config: how many.
        expert: whose hard ones they are.
        balance: how often an item is a target.
    """

    def __init__(self, config: Config, expert: SequenceExpert, balance: Balance) -> None:
        self._settings = config.sequence
        self._expert = expert
        self._balance = balance

    def draw(
        self, examples: Examples, positives: Positives, known: Flags, random: np.random.Generator
    ) -> tuple[Ints, Callable[[Ints], Floats] | None]:
        """Item rows, and what sampling adds to the logits of given rows; ``None`` for nothing.

        Args:
            examples: of the step.
            positives: where their targets come from.
            known: (N,) item rows that stand for an item.
            random: of the draws.
        """
        n_items = len(self._expert.tower.items)
        wanted = self._settings.negatives
        if n_items <= wanted:
            # Every item is a candidate: the softmax is exact and needs no logQ.
            everything = np.flatnonzero(known).astype(np.int32)
            thinned = self._balance.thins_items
            return everything, (lambda rows: -self._balance.log_keep(rows)) if thinned else None
        uniform = np.unique(random.integers(0, n_items, wanted)).astype(np.int32)
        negatives = uniform[known[uniform]]
        hard = self._settings.hard_negatives
        if hard:
            drawable = np.flatnonzero(known).astype(np.int32)
            generator = Generator(self._expert, examples, drawable, hard, random)
            negatives = np.union1d(negatives, generator.rows)

        def favour(rows: Ints) -> Floats:
            """Log probability of being a candidate, drawn or as a positive, less that of being
            kept as a positive.
            """
            log_kept = self._balance.log_keep(rows)
            popular = self._balance.shares(rows) * np.exp(log_kept) / positives.mean_keep
            absent = (1.0 - np.minimum(popular, 0.999)) ** positives.like_the_stream
            absent = absent * (1.0 - 1.0 / n_items) ** wanted
            if positives.chances is not None:
                total = max(float(positives.chances.sum()), 1e-300)
                drawn = np.bincount(positives.replayable, positives.chances / total, n_items)[rows]
                absent = absent * (1.0 - np.minimum(drawn, 0.999)) ** positives.by_chance
            if hard:
                absent = absent * generator.absent(rows)
            logs: Floats = np.log1p(-absent).astype(np.float32)
            return logs - log_kept

        return negatives, favour
