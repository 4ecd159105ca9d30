"""Adversarial negatives: items that the model itself ranks high, drawn in proportion to its belief.

IRGAN (Wang et al., SIGIR 2017) lets a generator propose what a discriminator takes for right.
Here one model is both, as in the self-adversarial draws of RotatE (Sun et al., ICLR 2019), and
it draws from a uniform pool, so that the cost doesn't grow with the catalogue.
"""

from __future__ import annotations

import numpy as np

from headwater.model import Examples, SequenceExpert
from headwater.types import Doubles, Ints

_POOL = 4
"""Items in the pool for each that is drawn from it."""
_ASKED = 32
"""Histories of a step whose belief is drawn from: their mean."""


class Generator:
    """Draws negatives for a step.

    Args:
        expert: whose belief it is.
        examples: of the step.
        known: (K,) distinct item rows to draw from.
        n: draws.
        random: of the histories, the pool and the draws.
    """

    def __init__(
        self,
        expert: SequenceExpert,
        examples: Examples,
        known: Ints,
        n: int,
        random: np.random.Generator,
    ) -> None:
        self._expert = expert
        self._n = n
        self._users = expert.users(examples, random.permutation(len(examples.items))[:_ASKED])
        self._pool = random.permutation(known)[: _POOL * n]
        self._pooled = len(self._pool) / len(known)
        exponents = self._exponents(self._pool)
        self._totals = exponents.sum(axis=1, keepdims=True)
        chances = (exponents / self._totals).mean(axis=0)
        self.rows: Ints = np.unique(random.choice(self._pool, n, p=chances / chances.sum()))

    def absent(self, rows: Ints) -> Doubles:
        """(R,) probability that each row isn't drawn: it isn't in the pool, or never taken."""
        exponents = self._exponents(rows)
        others = self._totals - np.where(np.isin(rows, self._pool), exponents, 0.0)
        chances = (exponents / (others + exponents)).mean(axis=0)
        found: Doubles = 1.0 - self._pooled * (1.0 - (1.0 - np.minimum(chances, 1.0)) ** self._n)
        return found

    def _exponents(self, rows: Ints) -> Doubles:
        """(S, R) exp(score) of each row for each history."""
        scores = self._users @ self._expert.tower.vectors_of(rows).T
        exponents: Doubles = np.exp(scores.astype(np.float64))
        return exponents
