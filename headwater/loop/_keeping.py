"""The snapshots of a learner: when one is due, who waits for it, and what it makes needless."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from headwater.config import Config
from headwater.deploy import Manifest, needed_after
from headwater.evaluate import Evaluator
from headwater.log import EventsLog
from headwater.loop._history import History
from headwater.loop._publishing import Publishing
from headwater.loop._retention import Retention
from headwater.types import Record, State

MOST_LOGGED = 250_000_000
SNAPSHOTS_LOGGED = 2.0
"""Bytes of updates after which an interim snapshot makes those before it needless, and the same as
a multiple of a snapshot's; the larger counts. Every update brings the dense weights: where events
come one by one each takes half a megabyte (with 10,000 items), and those between two versions ten
gigabytes."""


class Keeping:
    """Writes snapshots, one at a time, and drops from both logs what no snapshot needs any more.

    Of a snapshot learning waits for ``begin`` alone, where it is finished beside: in another
    thread. Until ``settle`` has counted on it no update is dropped, and nothing is done that looks
    at snapshots: ``history`` waits for it.

    Args:
        folder: of the snapshots; ``None`` to keep none.
        config: how many snapshots there are to be, and how much of the events log.
        events: the log that is learned.
        publishing: on the log of what was learned.
        rollbacks_due: those that were ordered and not done yet.
    """

    def __init__(
        self,
        folder: Path | None,
        config: Config,
        events: EventsLog,
        publishing: Publishing,
        rollbacks_due: Callable[[], Sequence[Record]],
    ) -> None:
        self._versions = History(folder, config.deploy.snapshots_kept) if folder else None
        self._publishing = publishing
        self._rollbacks_due = rollbacks_due
        self._retention = Retention(config, events)
        self._writers = ThreadPoolExecutor(1, "snapshot")
        # What is being written, and a version's stream time.
        self._writing: tuple[Future[Path], float | None] | None = None
        self._kept = 0  # offset of the newest version
        self._snapshot_bytes = 0  # of the newest that was written

    @property
    def history(self) -> History | None:
        """The snapshots and versions, once all that were begun are there.

        Raises:
            SnapshotError: the one that was begun can't be written.
        """
        self.settle()
        return self._versions

    @property
    def damaged(self) -> Mapping[str, str]:
        """Names of the snapshots that couldn't be used, each with the reason; waits for nothing."""
        return self._versions.snapshots.damaged if self._versions else {}

    @property
    def is_free(self) -> bool:
        """Whether snapshots are kept, and none was begun that isn't counted on yet."""
        return self._versions is not None and self._writing is None

    def restart(self, origin: Manifest | None) -> None:
        """Goes on from the state of a snapshot, or from an empty one.

        An interim one puts the next version off no further than the version before it does.
        """
        self._kept = origin.offset if origin else 0
        if origin and origin.interim and (history := self.history):
            version = history.before(origin.offset + 1)
            self._kept = version.offset if version else 0

    def is_due(self, snapshot_events: int, offset: int, time: float, *, drained: bool) -> bool:
        """Whether there should be a version of the state now.

        Args:
            snapshot_events: events after which there is to be one.
            offset: of the newest event of the state.
            time: its stream time.
            drained: whether nothing waits to be learned.
        """
        if offset - self._kept >= snapshot_events:
            return True
        # A backlog runs through years in minutes: its snapshots go by number alone.
        return drained and self._retention.snapshot_due(time)

    def is_interim_due(self) -> bool:
        """Whether the updates log got so long that a snapshot should shorten it."""
        return self._publishing.logged > max(MOST_LOGGED, SNAPSHOTS_LOGGED * self._snapshot_bytes)

    def begin(self, state: State, manifest: Manifest, evaluator: Evaluator) -> Callable[[], Path]:
        """Writes what a snapshot is of, after which the state may change.

        What is returned makes it a snapshot. It is called at once, followed by ``count_on``, or
        handed to ``finish_beside``.

        Raises:
            SnapshotError: it can't be written, or the one that was begun before can't.
            Fenced: another trainer has taken over.
        """
        history = self.history
        assert history is not None
        # A snapshot must not outlive the updates that it stands for.
        self._publishing.sync()
        self._publishing.logged = 0
        if not manifest.interim:
            self._kept = manifest.offset
        return history.begin(state, manifest, evaluator)

    def finish_beside(self, finish: Callable[[], Path], time: float | None) -> None:
        """Calls what ``begin`` returned in another thread; ``settle`` counts on it.

        Args:
            time: stream time of a version; ``None`` for an interim snapshot.
        """
        self._writing = self._writers.submit(finish), time

    def settle(self, *, wait: bool = True) -> None:
        """Counts on a snapshot that was begun beside: on one that is done, where it isn't to wait.

        Raises:
            SnapshotError: it can't be written.
        """
        if self._writing is None or not (wait or self._writing[0].done()):
            return
        (writing, time), self._writing = self._writing, None
        writing.result()
        self.count_on(time)

    def count_on(self, time: float | None = None) -> Path:
        """Drops what the newest snapshot makes needless; returns its path.

        While a rollback is due nothing goes: the version that it returns to was there when it was
        ordered, and may be the oldest. What the events log needn't keep any longer goes little by
        little, by ``retain``.

        Args:
            time: stream time of a version, by which it is decided what of the events log may go;
                ``None`` to decide nothing, as by an interim snapshot.
        """
        assert self._versions is not None
        snapshots = self._versions.snapshots
        newest = snapshots.paths()[-1]
        self._snapshot_bytes = newest.stat().st_size
        if self._rollbacks_due():
            return newest
        kept = snapshots.prune()
        self._publishing.updates.drop(needed_after(kept))
        if time is not None:
            self._retention.aim([one for one in kept if not one.interim], time)
        return newest

    def retain(self) -> None:
        """Drops a few of the events that the settings don't keep and no snapshot needs."""
        self._retention.step()
