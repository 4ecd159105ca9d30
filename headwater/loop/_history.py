"""The snapshots of a learner, and the history of versions that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headwater.deploy import VERSIONS, Manifest, Snapshots, Versions
from headwater.evaluate import Evaluator
from headwater.types import State, Version

_METRICS = ("mixture.ndcg@10", "popularity.ndcg@10")
"""Metrics that the history of versions keeps with each snapshot."""

_RETURNABLE = ("live", "kept")
"""States of versions that can be returned to."""


class History:
    """Writes each snapshot together with the line that tells of it.

    Args:
        folder: of snapshots and versions.
        keep: newest snapshots that are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.snapshots = Snapshots(folder, keep)
        self.versions = Versions(folder / VERSIONS)

    def begin(self, state: State, manifest: Manifest, evaluator: Evaluator) -> Callable[[], Path]:
        """Writes what a snapshot is of; the state may change from here on.

        What is returned makes it a snapshot, and the live version, with its newest metrics; an
        interim one is none. It may be called from another thread, if nothing else is done here
        meanwhile.
        """
        finish = self.snapshots.begin(state, manifest)
        if manifest.interim:
            return finish
        newest = evaluator.metrics("newest")
        metrics = {name: newest[0].values[name] for name in _METRICS if newest}

        def recorded() -> Path:
            path = finish()
            self.versions.add(
                Version(
                    number=self.versions.next_number(),
                    epoch=manifest.epoch,
                    snapshot=path.name,
                    state="live",
                    metrics=metrics,
                    offset=manifest.offset,
                    created_at=manifest.created_at,
                    version=manifest.version,
                    lineage=manifest.lineage,
                )
            )
            return path

        return recorded

    def before(self, first: int) -> Version | None:
        """The newest version that can be returned to and holds no event from ``first`` on."""
        kept = [v for v in self.versions.listed() if v.state in _RETURNABLE and v.offset < first]
        return max(kept, key=lambda version: version.number, default=None)

    def next_version(self, version: int) -> int:
        """A number that no version has had, ``version`` included."""
        return max([version, *(one.version for one in self.versions.history())]) + 1

    def roll_back(self, first: int) -> None:
        """Deletes the snapshots that hold an event from ``first`` on, and records that."""
        self.snapshots.discard(first)
        self.versions.roll_back(first)
