"""Guards around a step: a batch from a broken stream, or of a wild loss, isn't learned from.

They look at the newest ``NEWEST`` events and at the losses, each against its own past:

- ``positive_share``: hardly any of the newest events is positive, where most were: a click
  stream that broke turns everything negative, whoever sends it.
- ``one_item``: nearly all of the newest events name one item, which isn't usual here.
- ``loss``: a loss that isn't finite, or is far above its running band.

And at the step once it is taken, before it goes live:

- ``stride``: it changed the dense weights by far more than a step usually does.

Once one trips, or an update was held back, learning by gradient pauses until
``deploy.resume_batches`` batches in a row were sane. Events are counted all the
while, and the band of what is usual moves with the stream: what stays becomes usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from headwater.config import Deploy
from headwater.types import NO_ROW, Batch, Doubles, Flags, Held, Ints, Longs, State

GUARDS = ("finite", "row_norm", "dense", "loss", "stride", "positive_share", "one_item", "step")
"""What may hold a batch back, in the order in which trips are counted."""

PAUSED = "paused"
"""Stands for a guard where a batch is held back because of one before it."""

NEWEST = 100
"""Events that a broken stream is told by: a full micro-batch."""
_USUAL = 10_000.0
"""Events over which what is usual is remembered, with exponential decay."""
_WARM_EVENTS = 1_000
"""Events before anything of the stream can be unusual."""
_FALL, _SIGMAS = 0.8, 6.0
"""Part of the usual positive share, and standard errors, by which it must have fallen: a whole
invoice that is cancelled halves it now and then."""
_SENDERS = 3
"""Users that the newest events must be of, at least: one or two who take back much are no broken
stream."""
_ONE_ITEM, _ONE_ITEM_USUALLY = 0.9, 0.5
"""One item's share of the newest events that trips, where it usually is below the other."""

_WARM_BATCHES = 50.0
"""Batches before a finite loss can be out of its band."""
_LOSS_DECAY = 0.99
"""Of the band's memory, per batch."""
_LOSS_SIGMAS = 8.0
"""Standard errors above the running loss that a batch of any size may have, and twice the
running loss in any case."""
_STRIDE = 8.0
"""Times the usual stride that trips. On the first 9,000 events of four streams no step was longer
than 1.27 times the usual one, as Adam's are hardly longer for a larger gradient; the optimizer may
raise a rate by 4."""
_HABITUATION = 1.1
"""By how much what is usual rises with each trip: what stays becomes usual, or learning would never
go on."""


@dataclass(slots=True)
class _Band:
    """The running mean of a loss, and its variance per example."""

    name: str
    sums: Doubles  # batches, losses, example variances, each decayed

    def limit(self, examples: int) -> float:
        """The highest loss of so many examples that is within the band."""
        batches, losses, variances = self.sums
        if batches < _WARM_BATCHES * 0.75:
            return float("inf")
        mean = losses / batches
        return float(max(2.0 * mean, mean + _LOSS_SIGMAS * sqrt(variances / batches / examples)))

    def add(self, loss: float, examples: int) -> None:
        batches, losses, _ = self.sums
        mean = losses / batches if batches else loss
        self.sums *= _LOSS_DECAY
        self.sums += (1.0, loss, examples * (loss - mean) ** 2)


class Watch:
    """Watches stream and losses of the batches in order; a fold like any other.

    Args:
        settings: how long a pause is.
        losses: names of the losses.
    """

    def __init__(self, settings: Deploy, losses: tuple[str, ...]) -> None:
        self._settings = settings
        self._trips = np.zeros(len(GUARDS), np.int64)
        self._bands = {name: _Band(name, np.zeros(3)) for name in losses}
        self._strides = {name: np.zeros(2) for name in losses}  # steps, strides, each decayed
        self._paused = self._events = 0
        self._usual: Doubles = np.zeros(3)  # weight, positive share, share of the first item
        self._items: Ints = np.zeros(0, np.int32)
        self._users: Ints = np.zeros(0, np.int32)
        self._positive: Flags = np.zeros(0, np.bool_)

    @property
    def trips(self) -> dict[str, int]:
        """How often each guard has tripped."""
        return {guard: int(n) for guard, n in zip(GUARDS, self._trips, strict=True)}

    @property
    def paused(self) -> int:
        """Sane batches that are still missing before gradient steps go on; 0 while they do."""
        return self._paused

    def resume(self) -> None:
        """Ends a pause: what comes now is usual."""
        self._paused = self._events = 0
        self._usual, self._items, self._positive = np.zeros(3), self._items[:0], self._positive[:0]
        self._users = self._users[:0]
        for band in self._bands.values():
            band.sums[:] = 0.0
        for sums in self._strides.values():
            sums[:] = 0.0

    def judge(self, batch: Batch) -> Held | None:
        """Looks at the events of the next batch; why it isn't to be learned from, if so."""
        shown = np.flatnonzero((batch.polarities != 0) & (batch.items != NO_ROW))
        n = len(shown)
        positive = batch.polarities[shown] > 0
        self._items = np.concatenate([self._items, batch.items[shown]])[-NEWEST:]
        self._users = np.concatenate([self._users, batch.contexts.users[shown]])[-NEWEST:]
        self._positive = np.concatenate([self._positive, positive])[-NEWEST:]
        tripped = self._unusual()
        self._events += n
        if len(self._items) == NEWEST:
            kept = np.exp(-n / _USUAL)
            self._usual = kept * self._usual + (1.0 - kept) * np.array([1.0, *self._newest()])
        if tripped is not None:
            return Held(batch.end, *tripped)
        if self._paused:
            self._paused -= 1
            return Held(batch.end, PAUSED, f"{self._paused + 1} sane batches to go")
        return None

    def fits(self, name: str, loss: float, examples: int) -> str | None:
        """What is wrong with a loss, before its step is taken; ``None`` where nothing is."""
        if not examples:
            return None
        if not isfinite(loss):
            return f"the {name} loss is {loss}"
        limit = self._bands[name].limit(examples)
        if loss <= limit:
            return None
        return f"the {name} loss of {examples} examples is {loss:.4g}, above {limit:.4g}"

    def stepped(self, strides: Mapping[str, float]) -> str | None:
        """What is wrong with a step that was just taken, if something is.

        Args:
            strides: by how much each of its parts changed the weights, as a root mean square.
        """
        found = None
        for name, stride in strides.items():
            steps, total = self._strides[name].tolist()
            if steps >= _WARM_BATCHES * 0.75 and stride > _STRIDE * total / steps:
                usual = total / steps
                found = f"the {name} step changed weights by {stride:.3g}, usually {usual:.3g}"
            self._strides[name] *= _LOSS_DECAY
            self._strides[name] += (1.0, stride)
        return found

    def settle(self, held: Held | None, losses: dict[str, tuple[float, int]]) -> None:
        """Ends a batch: it was learned from with these losses, or held back."""
        if held is None:
            for name, (loss, examples) in losses.items():
                if examples:
                    self._bands[name].add(loss, examples)
        elif held.guard != PAUSED:
            self._trips[GUARDS.index(held.guard)] += 1
            self._paused = self._settings.resume_batches
            if held.guard == "loss":
                for band in self._bands.values():
                    band.sums[1] *= _HABITUATION
            if held.guard == "stride":
                for sums in self._strides.values():
                    sums[1] *= _HABITUATION

    def state(self) -> State:
        return {
            "trips": self._trips,
            "counts": np.array([self._paused, self._events], np.int64),
            "usual": self._usual,
            "items": self._items,
            "users": self._users,
            "positive": self._positive,
            **{f"band.{name}": band.sums for name, band in self._bands.items()},
            **{f"stride.{name}": sums for name, sums in self._strides.items()},
        }

    def load(self, state: State) -> None:
        self._trips = state["trips"].copy()
        self._paused, self._events = (int(number) for number in state["counts"])
        self._usual = state["usual"].copy()
        self._items, self._positive = state["items"].copy(), state["positive"].copy()
        self._users = state["users"].copy()
        for name, band in self._bands.items():
            band.sums = state[f"band.{name}"].copy()
            self._strides[name] = state[f"stride.{name}"].copy()

    def _newest(self) -> tuple[float, float]:
        """Positive share, and the share of the commonest item, of the newest events."""
        counts: Longs = np.unique(self._items, return_counts=True)[1]
        return float(self._positive.mean()), float(counts.max()) / len(self._items)

    def _senders(self) -> int:
        """Users of the newest events; one that isn't known may be anybody."""
        known = self._users[self._users != NO_ROW]
        return len(np.unique(known)) + len(self._users) - len(known)

    def _unusual(self) -> tuple[str, str] | None:
        if self._events < _WARM_EVENTS or len(self._items) < NEWEST:
            return None
        positive, one_item = self._newest()
        usual_positive, usual_one_item = (self._usual[1:] / self._usual[0]).tolist()
        error = sqrt(usual_positive * (1.0 - usual_positive) / NEWEST)
        fallen = usual_positive - positive > max(_FALL * usual_positive, _SIGMAS * error)
        if fallen and self._senders() >= _SENDERS:
            return "positive_share", (
                f"{positive:.0%} of the newest {NEWEST} events are positive, "
                f"usually {usual_positive:.0%}"
            )
        if one_item >= _ONE_ITEM and usual_one_item < _ONE_ITEM_USUALLY:
            return "one_item", (
                f"{one_item:.0%} of the newest {NEWEST} events name one item, "
                f"usually {usual_one_item:.0%}"
            )
        return None
