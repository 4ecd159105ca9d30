"""A challenger: a learner of the same events, of which nothing is published or served."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headwater.config import Config, overridden
from headwater.deploy import Manifest, Snapshots
from headwater.errors import GuardTripped
from headwater.evaluate import compared
from headwater.log import EventsLog, UpdatesLog
from headwater.log.gains import Gains, GainsLog
from headwater.log.memory import MemoryUpdatesLog
from headwater.loop._fold import shape
from headwater.loop._learning import Learning
from headwater.types import Comparison, Lineage, Record, State, Trial, Update

WARM = frozenset(
    {
        *("sequence.learning_rate", "sequence.row_learning_rate", "sequence.negatives"),
        *("sequence.replay", "sequence.replay_cap"),
        *("mixture.learning_rate", "mixture.replay"),
        *("content.window", "precedents.window", "precedents.occurrences", "precedents.reach"),
        *("imbalance.rare_items", "imbalance.rare_types", "imbalance.rare_at_most"),
    }
)
"""Settings of how is learned from here on: with others of them a learner can go on from the live
model's state. What isn't here shapes the state, and is learned from the log's beginning."""

KEEPING_UP = 10
"""Micro-batches that a challenger may be behind the live model for its canary to begin: lists of a
second ago."""


def seed(live: Snapshots, config: Config, settings: Mapping[str, Any], folder: Path) -> None:
    """Gives a new challenger the live model's newest state, where it can go on from that.

    Args:
        live: the live model's snapshots.
        config: the configured settings.
        settings: the challenger's, over those.
        folder: of the challenger's snapshots.
    """
    found = live.newest()
    if found is None or Snapshots(folder, keep=1).paths():
        return
    state, manifest = found
    own, before = overridden(config, settings), overridden(config, manifest.lineage.settings)
    if shape(own) != manifest.shape or not _differing(own, before) <= WARM:
        return
    # By other rates steps have another stride.
    state = {k: v * 0.0 if k.startswith("watch.stride.") else v for k, v in state.items()}
    # Sequences and epochs are the updates log's; a challenger publishes on none.
    begun = Manifest(1, manifest.version, 0, manifest.offset, shape(own), manifest.created_at)
    Snapshots(folder, keep=1).write(state, begun)


class Shadow(Learning):
    """Learns what the live model has learned, micro-batch by micro-batch, and is compared with it.

    It publishes on no log, unless its lists are to be served to some, and gives no orders: an
    alarm is nobody's, a step that raises an error, or an update that a guard would hold back, ends
    it.

    Args:
        config: its own settings.
        events: the live model's log.
        snapshots: the folder of its own states.
        live: the live model's gains.
        trial: how it did so far.
        number: its own; answers of its canary have minus it as their ``version``.
    """

    def __init__(
        self,
        config: Config,
        events: EventsLog,
        snapshots: Path,
        live: GainsLog,
        trial: Trial,
        number: int = 0,
    ) -> None:
        self._live = live
        self._number = number
        self._beside: Gains | None = None
        self.serves = False
        super().__init__(config, events, MemoryUpdatesLog(), snapshots)
        self._roll_back()
        self._trial = trial
        self.on_gains = self._compare

    @property
    def trial(self) -> Trial:
        return msgspec.structs.replace(self._trial, trained_through=self.trained_through)

    def step(self) -> int:
        """Learns the next micro-batch that the live model has learned, if there is one.

        Raises:
            Dropped: the events log no longer holds it.
            GuardTripped: what was learned would not have gone live.
        """
        self._roll_back()
        records, beside = self._following()
        if records:
            self._beside = beside
            self.learn(records, pace=beside.pace if beside else None)
            self._is_behind = self.trained_through < self._live.newest()
            if self._wild is not None:
                raise GuardTripped("stride", self._wild)
        return len(records)

    def keeps_up(self) -> bool:
        """Whether it has come to where it is compared with what the live model learned last."""
        behind = self._live.newest() - self.trained_through
        return self._beside is not None and behind <= KEEPING_UP * self.config.train.batch_events

    def serve(self, updates: UpdatesLog) -> None:
        """From now on it publishes, on a log of its own, which followers find its snapshot for."""
        self._publishing.take(updates)
        self.serves = True
        since = self._trial.canary_since or time.time()
        self._trial = msgspec.structs.replace(self._trial, canary_since=since)
        self._open_epoch("a canary begins")

    def _append(self, update: Update) -> None:
        if self.serves:
            super()._append(update)
        else:
            self._publishing.published(update)

    def _begin(self, found: tuple[State, Manifest] | None, lineage: Lineage) -> None:
        super()._begin(found, lineage)
        self.version = -self._number

    def _following(self) -> tuple[list[Record], Gains | None]:
        """The next micro-batch, cut where the live model cut, and what that one gained.

        So no prediction is of an older state than the live model's. What it doesn't tell of any
        more comes first, with nothing to be compared with.
        """
        beside = self._live.after(self.trained_through)
        if beside is None:
            return [], None
        if self.trained_through + 1 < beside.first:
            end = min(beside.first - 1, self.trained_through + self.config.train.batch_events)
            return self.fold.until_cut(self._through(end)), None
        return self.fold.until_cut(self._through(beside.through)), beside

    def _compare(self, own: Gains) -> None:
        if (beside := self._beside) is None:
            return
        trial = self._trial
        offsets, mine, theirs = np.intersect1d(
            own.offsets, beside.offsets, assume_unique=True, return_indices=True
        )
        new = offsets > trial.compared_through
        if not new.any():
            return
        sums = trial.sums if trial.epoch == beside.epoch else Comparison()
        self._trial = msgspec.structs.replace(
            trial,
            epoch=beside.epoch,
            compared_through=int(offsets[-1]),
            sums=compared(sums, own.values[mine[new]], beside.values[theirs[new]]),
        )


def _differing(one: Config, other: Config) -> set[str]:
    """Dotted names of the settings in which two differ."""
    return _names(one.model_dump(), other.model_dump())


def _names(one: Mapping[str, Any], other: Mapping[str, Any], above: str = "") -> set[str]:
    found = set()
    for name in one.keys() | other.keys():
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= _names(a, b, f"{above}{name}.")
        elif a != b:
            found.add(above + name)
    return found
