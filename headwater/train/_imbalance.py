"""Imbalance: what is frequent is learned from less often, what is rare more often.

*Thinning* (under-sampling) keeps an example with probability κ and takes the
bias out again. By type, κ_τ is not a function of the label, so the kept
examples weigh 1 / κ_τ (Horvitz and Thompson, 1952): equal in expectation, whatever
type depends on. By item, κ_i is one of the label, so the loss is that of
softmax(z + log κ): the kept labels follow P'(i) ∝ κ_i P(i), and z is left with
log P (prior correction, King and Zeng, 2001; for a binary label it is the
q = p / (p + (1 - p) / w) of He et al., ADKDD 2014).

*Over-sampling* draws rare examples more often from the replay buffers, and is
not corrected: it is meant to change what is learned.

*Resampling* turns weights into how often an example is drawn.

``Balance`` does what the settings say of it, by what the model has counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.config import Config
from headwater.config import Imbalance as Settings
from headwater.model import Earlier, Popularity
from headwater.train._replay import Replay
from headwater.train._sample import taught
from headwater.types import Batch, Bytes, Doubles, Flags, Floats, Ints, Longs

_Words = NDArray[np.uint64]


class Balance:
    """How often an example is taken, by the settings and by what was counted so far.

    Args:
        config: imbalance, what is kept of each type, the mixture's members and the seed.
        popularity: how often each item was counted.

    Attributes:
        type_keep: (types,) probability that an event of each type is kept for the type's sake.
        thins_items: whether items that are frequent lose some of their examples.
    """

    def __init__(self, config: Config, popularity: Popularity) -> None:
        self._settings = config.imbalance
        self._seed = config.seed
        self._draws = config.mixture.members
        self._popularity = popularity
        # Per type code, 0 being that of an unknown type.
        self.type_keep = np.array([1.0, *(k.keep for k in config.event_types.values())], np.float32)
        self.thins_items = config.imbalance.item_share < 1.0

    def kept(self, batch: Batch) -> Flags:
        """(B, members) what is taught of a batch that each draw keeps; the sequence expert takes
        the first draw.
        """
        keep = self.type_keep[batch.types] * np.exp(self.log_keep(batch.items))
        drawn = uniforms(self._seed, batch.offsets, self._draws) < keep[:, None]
        return taught(batch)[:, None] & drawn

    def shares(self, rows: Ints, earlier: Earlier | None = None) -> Floats:
        """(...) mean over the half-lives of the items' shares, now or before a batch."""
        popularity = self._popularity
        found = popularity.shares_before(earlier, rows) if earlier else popularity.shares(rows)
        means: Floats = found.mean(axis=-1)
        return means

    def log_keep(self, rows: Ints, earlier: Earlier | None = None) -> Floats:
        """(...) log probability that an example of each item is kept for the item's sake; that of
        ``NO_ROW`` means nothing.

        Args:
            rows: the items.
            earlier: what shares were before a batch; ``None`` for what they are.
        """
        if not self.thins_items:
            return np.zeros(rows.shape, np.float32)
        shares = self.shares(np.maximum(rows, 0), earlier)
        return log_keep(shares, self._settings.item_share)

    def mean_keep(self, rows: Ints) -> float:
        """Mean probability that an example of each item is kept for the item's sake; 0 of none."""
        keep = np.exp(self.log_keep(rows))
        return float(keep.sum()) / max(len(keep), 1)

    def chances(self, buffer: Replay, items: str) -> Doubles | None:
        """(len(buffer),) of being drawn for replay, ``None`` for all alike.

        Args:
            items: name of the column of the examples' items.
        """
        settings = self._settings
        if not len(buffer) or settings.rare_items == settings.rare_types == 0.0:
            return None
        events = self._popularity.events[buffer.column(items)]
        found = replay_chances(events, buffer.column("kinds"), settings)
        return np.where(buffer.spent(), 0.0, found)

    def by_weight(
        self, examples: dict[str, NDArray[Any]], random: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """The examples as they are, or those that are drawn, weighing as often as they are."""
        if self._settings.by == "weight":
            return examples
        weights = examples["weights"]
        counts = resampled(weights, random.random(weights.shape[1:]))
        drawn = counts.any(axis=tuple(range(1, counts.ndim)))
        examples = {**examples, "weights": counts}
        return {name: column[drawn] for name, column in examples.items()}


def uniforms(seed: int, offsets: Longs, n: int) -> Doubles:
    """(B, n) numbers in [0, 1) that depend on the seed and an event's offset alone.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose streams are started at the
    mixed offset.
    """
    key = _mixed(np.array([seed % 2**64], np.uint64))
    starts = _mixed(offsets.astype(np.uint64) ^ key)
    steps = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words = _mixed(starts[:, None] + steps) >> np.uint64(11)
    return words.astype(np.float64) * 2.0**-53


def log_keep(shares: Floats, threshold: float) -> Floats:
    """Log of the probability √(threshold / share), at most 1, that an item's example is kept.

    The rule for frequent words of word2vec (Mikolov et al., NeurIPS 2013).
    """
    ratios = threshold / np.maximum(shares, 1e-12)
    return (0.5 * np.minimum(np.log(ratios), 0.0)).astype(np.float32)


def replay_chances(events: Longs, kinds: Bytes, settings: Settings) -> Doubles:
    """(n,) how likely each example of a replay buffer is drawn, up to a common factor.

    (events of its item) ** -rare_items · (its type's share of the buffer) ** -rare_types,
    at most ``rare_at_most`` times that of the least likely one.

    Args:
        events: (n,) events so far of each example's item.
        kinds: (n,) type code of each example.
    """
    shares = np.bincount(kinds)[kinds] / max(len(kinds), 1)
    found = np.maximum(events, 1.0) ** -settings.rare_items * shares**-settings.rare_types
    capped: Doubles = np.minimum(found, settings.rare_at_most * found.min(initial=np.inf))
    return capped


def resampled(weights: Floats, starts: Doubles | float) -> Floats:
    """Whole numbers in place of weights: how often each of n examples is among n draws.

    The expected count is n w / Σ w, and a count is at most 1 away from it (systematic
    resampling; Kitagawa, 1996). So the expected gradient is that of the weights (An,
    Ying and Zhu, ICLR 2021, on why it can still learn better).

    Args:
        weights: (n,), or (n, K) to resample each column by itself.
        starts: () or (K,), uniform in [0, 1).
    """
    n = len(weights)
    until = np.cumsum(weights, axis=0, dtype=np.float64)
    until *= n / np.maximum(until[-1:], 1e-300)
    counts: Floats = np.diff(np.floor(until + starts), axis=0, prepend=0.0).astype(np.float32)
    return counts


def _mixed(words: _Words) -> _Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
