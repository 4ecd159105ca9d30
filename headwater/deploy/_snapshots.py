"""Whole states on disk, each in one file that holds its place in the logs as well.

State and offset can't disagree: they are in the same file, which appears under
its name complete or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from mmap import ACCESS_COPY, ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import msgspec
import structlog

from headwater.deploy._sealing import (
    DIGEST_CHARACTERS,
    dense_array,
    head,
    seal,
    state_digest,
    unseal,
    views,
)
from headwater.deploy._versions import sync_folder
from headwater.errors import SnapshotError, Unfit
from headwater.types import Lineage, State

FORMAT = 1
"""The layout that ``write`` uses; a reader refuses what is newer."""

_NAME = re.compile(r"snapshot-e(\d+)-s(\d+)\.safetensors")
_TEMPORARY = ".partial"
_NO_DIGEST = "0" * DIGEST_CHARACTERS

_INTERIM_KEPT = 2
"""Newest snapshots among which an interim one stays: should the newest be damaged, there is one
that the updates go on from."""

LAYOUT = "state.layout"
"""Of a shape, what no setting changes: the version of Headwater does."""

Shape = dict[str, str | int | float | bool]
"""What the arrays' shapes and meaning depend on: widths, layers, a digest of the settings."""

log = structlog.get_logger(__name__)


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot stands for.

    ``offset`` is the last event that the state has learned from, ``sequence``
    the last update that it holds. ``digest`` is of the state alone, as
    ``state_digest`` gives it; ``write`` fills it in. ``report`` is the newest that went with an
    update: who starts from here may find none behind it. One that is ``interim`` only shortens
    what is read of the updates log: no version is returned to by it, and it goes once two are
    newer.
    """

    epoch: int
    version: int
    sequence: int
    offset: int
    shape: Shape
    created_at: float
    lineage: Lineage = Lineage()
    digest: str = ""
    format: int = FORMAT
    interim: bool = False
    report: dict[str, Any] = {}


class _Form(msgspec.Struct):
    format: int


class _Damaged(SnapshotError):
    """The bytes aren't those that were written: an older snapshot may do."""


class _Gone(SnapshotError):
    """Another process has pruned it since it was listed."""


class Snapshots:
    """The snapshots of one folder, ordered by epoch and sequence.

    Any process may read. One writer at a time: the trainer that holds the lease.
    ``damaged`` has the names of those that were passed over, each with the reason.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self.damaged: dict[str, str] = {}

    def paths(self) -> list[Path]:
        """Complete snapshots, oldest first."""
        if not self.directory.is_dir():
            return []
        found = []
        for path in self.directory.iterdir():
            if match := _NAME.fullmatch(path.name):
                found.append((int(match[1]), int(match[2]), path))
        return [path for _, _, path in sorted(found)]

    def write(self, state: State, manifest: Manifest) -> Path:
        """Writes a snapshot, durable once this returns; readers see all of it or nothing.

        Temporary files that a crashed writer left are removed first.

        Raises:
            SnapshotError: the folder can't be written, or an array has a dtype that
                safetensors doesn't hold.
        """
        return self.begin(state, manifest)()

    def begin(self, state: State, manifest: Manifest) -> Callable[[], Path]:
        """Writes the arrays of a snapshot, after which the state may change.

        Until what is returned was called, from any thread, readers see nothing of it: it reads
        the arrays again for their digest, and waits for the disk. No other may begin before.

        Raises:
            SnapshotError: as ``write``; what is returned raises it as well.
        """
        name = f"snapshot-e{manifest.epoch:04d}-s{manifest.sequence:012d}.safetensors"
        path = self.directory / name
        temporary = path.with_name(name + _TEMPORARY)
        manifest = msgspec.structs.replace(manifest, format=FORMAT)
        with _written(path, temporary):
            arrays = {key: dense_array(array) for key, array in state.items()}
            begin, parts = _head(arrays, manifest, _NO_DIGEST)
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob(f"*{_TEMPORARY}"):
                leftover.unlink()
            with temporary.open("wb") as file:
                file.writelines([begin, *parts])

        def finish() -> Path:
            with _written(path, temporary), temporary.open("r+b") as file:
                arrays, _ = views(mmap(file.fileno(), 0, access=ACCESS_READ))
                begin, _ = _head(arrays, manifest, state_digest(arrays))
                file.write(begin)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
                sync_folder(self.directory)
            return path

        return finish

    def manifest(self, path: Path) -> Manifest:
        """What the snapshot stands for, without reading its arrays.

        Raises:
            SnapshotError: as ``load``, as far as the header shows.
        """
        return _read(path, arrays=False)[1]

    def load(self, path: Path, shape: Shape | None = None) -> tuple[State, Manifest]:
        """State and manifest of one snapshot, every bit of it checked.

        Args:
            path: one of ``paths()``.
            shape: what the reader's own settings demand; ``None`` takes any shape.

        Raises:
            SnapshotError: the file is gone or damaged.
            Unfit: it is of a newer format or of another shape.
        """
        state, manifest = _read(path, arrays=True)
        if shape is not None and manifest.shape != shape:
            layouts = (manifest.shape.get(LAYOUT), shape.get(LAYOUT))
            if layouts[0] != layouts[1]:
                raise Unfit(
                    f"{path} is of another version of Headwater: its layout is {layouts[0]!r}, and "
                    f"this one's {layouts[1]!r}. Go back to that version, or move {path.parent} "
                    "away to learn again from the events log"
                )
            keys = sorted(manifest.shape.keys() | shape.keys())
            differences = "; ".join(
                f"{key} is {manifest.shape.get(key)!r} there and {shape.get(key)!r} in the settings"
                for key in keys
                if manifest.shape.get(key) != shape.get(key)
            )
            raise Unfit(
                f"{path} has another shape: {differences}. Set it back, or move {path.parent} away "
                "to learn again from the events log"
            )
        return state, manifest

    def newest(
        self, shape: Callable[[Manifest], Shape] | None = None, before: int | None = None
    ) -> tuple[State, Manifest] | None:
        """The newest snapshot that is whole; ``None`` when there is none.

        ``shape`` says what the reader's settings, and those that a promotion brought to it, demand
        of one. With ``before`` it is the newest of those that hold no event from that offset on.

        A damaged one is passed over with a warning. One of a newer format or of
        another shape is not: what is older than it would undo what it stands for.

        Raises:
            Unfit: the newest whole one has a newer format or another shape.
        """
        while True:
            paths = self.paths()
            for path in reversed(paths):
                try:
                    if before is not None and self.manifest(path).offset >= before:
                        continue
                    return self.load(path, shape and shape(self.manifest(path)))
                except _Gone:
                    continue
                except _Damaged as error:
                    log.warning("a snapshot was passed over", path=str(path), reason=str(error))
                    self.damaged[path.name] = str(error)
            if self.paths() == paths:
                return None

    def discard(self, first: int) -> None:
        """Deletes every snapshot that holds an event from offset ``first`` on."""
        for path in self.paths():
            with suppress(SnapshotError):
                if self.manifest(path).offset < first:
                    continue
            path.unlink(missing_ok=True)

    def prune(self) -> list[Manifest]:
        """Deletes what is older than the newest ``keep`` snapshots with a readable header.

        Damaged ones don't count, so they can't push a good one out; they are
        deleted once they are older than all that is kept. Interim ones don't count either, and
        are deleted once two are newer.

        Returns:
            Those kept, oldest first; ``needed_after`` says which updates can be dropped.
        """
        kept: list[Manifest] = []
        for path in reversed(self.paths()):
            if sum(not one.interim for one in kept) == self.keep:
                path.unlink(missing_ok=True)
                continue
            try:
                manifest = self.manifest(path)
            except _Damaged as error:
                log.warning("a damaged snapshot doesn't count", path=str(path), reason=str(error))
                continue
            if manifest.interim and len(kept) >= _INTERIM_KEPT:
                path.unlink(missing_ok=True)
                continue
            kept.append(manifest)
        return kept[::-1]

    def clear(self) -> None:
        """Deletes all of them, and what a crashed writer left."""
        for path in [*self.paths(), *self.directory.glob(f"*{_TEMPORARY}")]:
            path.unlink(missing_ok=True)


def needed_after(kept: Sequence[Manifest]) -> int:
    """The update after which all are needed, with these snapshots, oldest first.

    Those after the oldest; where there are interim snapshots, which are there to shorten the log,
    those after the newest but one.
    """
    if not kept:
        return 0
    if any(one.interim for one in kept):
        return kept[-_INTERIM_KEPT:][0].sequence
    return kept[0].sequence


@contextmanager
def _written(path: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        raise SnapshotError(
            f"{path} can't be written: {error}; the snapshots before it are untouched"
        ) from None


def _head(arrays: State, manifest: Manifest, digest: str) -> tuple[bytes, list[memoryview]]:
    """Of a length that doesn't depend on the digest."""
    manifest = msgspec.structs.replace(manifest, digest=digest)
    return head(arrays, seal(msgspec.json.encode(manifest, order="deterministic")))


def _read(path: Path, *, arrays: bool) -> tuple[State, Manifest]:
    """The arrays are a private map of the file: what is copied from there is read once."""
    try:
        with path.open("rb") as file:
            state, metadata = views(mmap(file.fileno(), 0, access=ACCESS_COPY))
        manifest = _manifest(path, unseal(metadata))
    except FileNotFoundError:
        raise _Gone(f"{path} is gone; list the snapshots again") from None
    except (OSError, ValueError, TypeError, KeyError, msgspec.DecodeError) as error:
        raise _damaged(path, str(error)) from None
    if arrays and state_digest(state) != manifest.digest:
        raise _damaged(path, "its arrays don't match their checksum")
    return state if arrays else {}, manifest


def _manifest(path: Path, document: bytes) -> Manifest:
    form = msgspec.json.decode(document, type=_Form).format
    if form > FORMAT:
        raise Unfit(
            f"{path} has format {form}, this version reads up to {FORMAT}: update Headwater, or "
            f"move {path.parent} away to learn again from the events log"
        )
    return msgspec.json.decode(document, type=Manifest)


def _damaged(path: Path, reason: str) -> _Damaged:
    return _Damaged(f"{path} is damaged: {reason}. Delete it; an older snapshot will be used")
