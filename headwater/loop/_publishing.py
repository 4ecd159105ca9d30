"""A learner's end of the updates log: what waits to be told there, and when it is due."""

from __future__ import annotations

import time

from headwater.config import Train
from headwater.deploy import digest, encode
from headwater.log import StoredUpdate, UpdatesLog
from headwater.loop._fold import Fold
from headwater.loop._unpublished import Unpublished
from headwater.types import Update

_HISTORY_MILLISECONDS = 1_000.0
"""Longest that what was learned from imported events waits to be published. At ten updates a second
they took a seventh of the processor time of learning a history."""


class Publishing:
    """Gathers what the next update tells, and appends it under a fencing token.

    Whether an update may go live is for the learner to say, between ``update`` and ``append``.

    Attributes:
        updates: the log. A learner that isn't served appends nothing there.
        sequence: of the newest update.
        unpublished: the micro-batches since then.
        untold: whether the next report says what no event tells.
        logged: bytes appended since the newest snapshot, whose beginning sets it back.
    """

    def __init__(self, updates: UpdatesLog) -> None:
        self.untold = False
        self.take(updates)
        self.restart(0)

    def take(self, updates: UpdatesLog) -> None:
        """Appends to that log from here on; whoever did before is fenced off."""
        self.updates = updates
        self._token = updates.acquire()

    def restart(self, sequence: int) -> None:
        """Goes on from a state that holds the updates through ``sequence``, and no more."""
        self.sequence = sequence
        self.logged = 0
        self.unpublished = Unpublished()
        self._published_at = self._dense_at = 0.0
        self._dense_waits = False

    def waits(self, *, whole: bool = False) -> bool:
        """Whether there is anything to tell; ``whole`` counts dense weights that stayed behind."""
        return bool(self.unpublished) or self.untold or (whole and self._dense_waits)

    def is_due(self, settings: Train, *, drained: bool, is_behind: bool, is_history: bool) -> bool:
        """Whether what was learned should be told now rather than with what comes next.

        Args:
            settings: how long it may wait.
            drained: whether nothing waits to be learned.
            is_behind: whether more waited than the newest micro-batch took.
            is_history: whether what is learned was imported: nobody waits for it to go live.
        """
        if drained:
            return True
        waited = (time.monotonic() - self._published_at) * 1000.0
        longest = settings.publish_milliseconds
        if is_history:
            return waited >= max(longest, _HISTORY_MILLISECONDS)
        return not is_behind or waited >= longest

    def is_dense_due(self, settings: Train, *, drained: bool) -> bool:
        """Whether the dense weights, which every step changes, should go along now."""
        waited = (time.monotonic() - self._dense_at) * 1000.0
        return drained or waited >= settings.publish_dense_milliseconds

    def update(self, fold: Fold, epoch: int, gradient_through: int) -> Update:
        """The next update, whole; the fold's rows that changed count as told from here on."""
        return self.unpublished.update(fold, epoch, self.sequence + 1, gradient_through)

    def append(self, update: Update, report: bytes) -> None:
        """Makes an update public.

        Raises:
            Fenced: another trainer has taken over.
        """
        payload = encode(update)
        self.updates.append(
            StoredUpdate(
                epoch=update.epoch,
                sequence=update.sequence,
                trained_through=update.trained_through,
                digest=digest(payload),
                payload=payload,
                report=report,
            ),
            self._token,
        )
        self.published(update, len(payload))
        # A report that follows another closely is empty.
        self.untold = self.untold and not report

    def sync(self) -> None:
        """Makes durable what was appended so far.

        Raises:
            Fenced: another trainer has taken over.
        """
        self.updates.sync(self._token)

    def published(self, update: Update, logged: int = 0) -> None:
        """Counts an update as told: one that was appended, now or in a former life.

        Args:
            update: what is told.
            logged: the bytes that it takes in the log.
        """
        self.sequence = update.sequence
        self.logged += logged
        self.unpublished = Unpublished()
        self._published_at = time.monotonic()
        self._dense_waits = not update.dense
        if update.dense:
            self._dense_at = self._published_at
