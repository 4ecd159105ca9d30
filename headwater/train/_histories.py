"""The sequence expert's examples: what comes next after a history, newly and once more.

An example is an event beside the history before it. With it come earlier positions of that
history, drawn at random, each of which is to foretell the event that followed there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.config import Config
from headwater.model import Examples, gap_buckets
from headwater.train._imbalance import Balance
from headwater.train._replay import Drawn, Replay
from headwater.train._sample import Sample, taught
from headwater.types import NO_ROW, Batch, Doubles, Flags, Ints, Labels


@dataclass(slots=True)
class Positives:
    """Where the targets of a step come from."""

    taught: Flags  # (Q, P)
    new: Flags  # (Q,)
    mean_keep: float  # over the stream's targets, for their items' sake
    replayable: Ints  # targets of the buffer
    chances: Doubles | None  # of replay, None where it draws all alike

    @property
    def like_the_stream(self) -> int:
        return int(self.taught.sum()) - self.by_chance

    @property
    def by_chance(self) -> int:
        return 0 if self.chances is None else int(self.taught[~self.new].sum())


class Histories:
    """Draws the examples of each step, and keeps them for replay.

    Args:
        config: the length of histories, earlier positions and replay.
        balance: what is kept, and replayed, how often.

    Attributes:
        buffer: the examples that may be replayed.
    """

    def __init__(self, config: Config, balance: Balance) -> None:
        self._settings = config.sequence
        self._balance = balance
        # Per type code, 0 being that of an unknown type: whether such an event is a goal.
        kinds = config.event_types.values()
        self._taught = np.array([False, *(k.polarity > 0 and k.weight > 0 for k in kinds)])
        length = config.preprocess.history_length
        self.buffer = Replay(
            config.sequence.replay_buffer,
            config.sequence.replay_cap,
            {
                "items": ((length,), np.int32),
                "types": ((length,), np.uint8),
                "gaps": ((length,), np.uint8),
                "cleaned": ((length,), np.bool_),
                "targets": ((), np.int32),
                "kinds": ((), np.uint8),
                "weights": ((), np.float32),
            },
        )

    def fresh(self, batch: Batch, kept: Flags) -> dict[str, NDArray[Any]]:
        """The batch's own examples, as the replay buffer has them.

        Args:
            batch: the events.
            kept: (B,) those that are learned from.
        """
        contexts = batch.contexts
        gaps = gap_buckets(contexts.history_times, contexts.history_items, contexts.times)
        # An empty history says nothing that a gradient could use.
        usable = kept & (contexts.history_items[:, -1] != NO_ROW)
        return {
            "items": contexts.history_items[usable],
            "types": contexts.history_types[usable],
            "gaps": gaps[usable],
            "cleaned": contexts.history_cleaned[usable],
            "targets": batch.items[usable],
            "kinds": batch.types[usable],
            "weights": batch.weights[usable] / self._balance.type_keep[batch.types[usable]],
        }

    def chances(self) -> Doubles | None:
        """(len(buffer),) of being drawn for replay, ``None`` for all alike."""
        return self._balance.chances(self.buffer, "targets")

    def draw(
        self, batch: Batch, kept: Flags, sample: Sample, random: np.random.Generator
    ) -> tuple[Examples, Positives, Drawn]:
        """New and replayed examples, where their targets come from, and where they were drawn.

        Args:
            batch: the events.
            kept: (B,) those that may be learned from, of which ``sample`` takes some.
            sample: what the step takes.
            random: of the draws.
        """
        chances = self.chances()
        fresh = self.fresh(batch, kept & sample.gradient)
        wanted = round(self._settings.replay * len(fresh["targets"])) if sample.replay else 0
        places = self.buffer.sample(wanted, random, chances)
        again = self.buffer.take(places)
        both = {name: np.concatenate([fresh[name], again[name]]) for name in fresh}
        both["new"] = np.arange(len(both["targets"])) < len(fresh["targets"])
        both = self._balance.by_weight(both, random)
        earlier = round(self._settings.earlier_positions / sample.gradient_share)
        examples = self._with_earlier(both, earlier, random)
        positives = Positives(
            taught=examples.weights > 0,
            new=both["new"],
            mean_keep=self._balance.mean_keep(batch.items[taught(batch)]),
            replayable=self.buffer.column("targets"),
            chances=chances,
        )
        return examples, positives, Drawn(fresh, places)

    def forget(self, items: Ints) -> None:
        """Replays no example again that names one of the item rows."""
        self.buffer.retire("items", items)
        self.buffer.retire("targets", items)

    def _with_earlier(
        self, drawn: dict[str, NDArray[Any]], earlier: int, random: np.random.Generator
    ) -> Examples:
        """The examples with that many earlier positions of each history."""
        items, types, cleaned, targets, weights = (
            drawn[name] for name in ("items", "types", "cleaned", "targets", "weights")
        )
        n, length = items.shape
        at = np.full((n, 1 + earlier), length - 1, np.int32)
        at[:, 1:] = random.integers(0, max(length - 1, 1), (n, earlier))
        # Spread the draws over the filled columns, so that short histories get theirs too.
        filled = (items >= 0).sum(axis=1, keepdims=True)
        start = length - filled
        at[:, 1:] = start + at[:, 1:] % np.maximum(filled - 1, 1)
        goal = np.empty((n, 1 + earlier), np.int32)
        goal[:, 0] = targets
        goal[:, 1:] = np.take_along_axis(items, np.minimum(at[:, 1:] + 1, length - 1), axis=1)
        share = np.empty((n, 1 + earlier), np.float32)
        share[:, 0] = weights
        # A history holds dislikes too; what came next is a goal only where it was wanted.
        kind = np.take_along_axis(types, np.minimum(at[:, 1:] + 1, length - 1), axis=1)
        spoilt = np.take_along_axis(cleaned, np.minimum(at[:, 1:] + 1, length - 1), axis=1)
        shown = (filled > 1) & self._taught[kind] & ~spoilt
        share[:, 1:] = np.where(
            shown, 0.5 * weights[:, None] / max(self._settings.earlier_positions, 1), 0.0
        )
        if self._balance.thins_items:
            # Kept for their own item's sake, and not for that of the event that brought them.
            share[:, 1:] *= np.exp(-self._balance.log_keep(targets))[:, None]
            share[random.random(share.shape) >= np.exp(self._balance.log_keep(goal))] = 0.0
            share[:, 0] = weights
        known = np.ones(at.shape, np.bool_)
        known[:, 0] = ~drawn["new"]
        return Examples(items, types, drawn["gaps"], at, goal, share, known)


def labelled(examples: Examples, labels: Labels) -> Examples:
    """The examples with the labels behind them, each on its whole history."""
    n, columns = len(labels), examples.at.shape[1]
    if not n:
        return examples
    goal = np.zeros((n, columns), np.int32)
    goal[:, 0] = labels.items
    share = np.zeros((n, columns), np.float32)
    share[:, 0] = labels.weights
    last = np.full((n, columns), examples.items.shape[1] - 1, np.int32)
    return Examples(
        items=np.concatenate([examples.items, labels.history_items]),
        types=np.concatenate([examples.types, labels.history_types]),
        gaps=np.concatenate([examples.gaps, labels.history_gaps]),
        at=np.concatenate([examples.at, last]),
        targets=np.concatenate([examples.targets, goal]),
        weights=np.concatenate([examples.weights, share]),
        again=np.pad(examples.again, ((0, n), (0, 0))),
    )
