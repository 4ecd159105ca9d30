"""``headwater backup`` and ``headwater restore``: a data folder as one consistent copy.

The order makes it consistent: first the newest snapshot, then the updates after it and the
history of versions up to it, the events last. So the events, which are the truth, are never
behind what was learned from them, and a restored trainer arrives at the state that the
updates log recorded.
"""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path

import msgspec

from headwater import __version__
from headwater.deploy import VERSIONS, Snapshots, Versions
from headwater.errors import HeadwaterError, SnapshotError
from headwater.log.copying import check, copy, sync
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog

MANIFEST = "backup.json"
_EVENTS, _UPDATES, _SERVED = "events.db", "updates.db", "served.db"
_KEYS = "keys.json"
_SNAPSHOTS = "snapshots"
_ATTEMPTS = 5
"""A trainer that works through a backlog may drop, meanwhile, the updates after the snapshot that
was copied, and events too; then the copy is begun again with the newer one."""


class Backup(msgspec.Struct, frozen=True):
    """What a backup holds: events through ``offset``, learned through ``sequence``."""

    created_at: float
    software: str
    offset: int
    sequence: int
    snapshot: str | None
    bytes: int


def backup(data: Path, destination: Path) -> Backup:
    """Copies a data folder, whether a server runs on it or not; all of it or nothing.

    Raises:
        HeadwaterError: the destination exists, or the folder holds no events log.
        LogError: a log can't be copied.
    """
    if destination.exists():
        raise HeadwaterError(f"{destination} exists; name a folder that doesn't")
    if not (data / _EVENTS).is_file():
        raise HeadwaterError(f"{data} holds no {_EVENTS}; name a data folder with --data")
    part = _part(destination)
    try:
        snapshot, sequence = _logs(data, part)
        for name in (_SERVED, _KEYS):
            if (data / name).is_file():
                (_transfer if name == _KEYS else copy)(data / name, part / name)
        with closing(SqliteEventsLog(part / _EVENTS)) as events:
            offset = events.end()
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        made = Backup(time.time(), __version__, offset, sequence, snapshot, size)
        (part / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(made)))
        _finish(part, destination)
    except OSError as error:
        raise HeadwaterError(f"{destination} can't be written: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def restore(source: Path, data: Path) -> Backup:
    """Makes a data folder from a backup; all of it or nothing.

    Raises:
        HeadwaterError: the folder isn't empty, or the source is no backup.
        LogError: a log of the backup is damaged.
    """
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise HeadwaterError(f"{data} isn't empty; move it away, or name another with --data")
    try:
        made = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Backup)
    except (OSError, msgspec.DecodeError):
        raise HeadwaterError(
            f"{source} is no backup: it has no {MANIFEST} that can be read"
        ) from None
    part = _part(data)
    try:
        for name in (_EVENTS, _UPDATES, _SERVED, _KEYS):
            if (source / name).is_file():
                _transfer(source / name, part / name)
                if name != _KEYS:
                    check(part / name)
        if made.snapshot is not None:
            (part / _SNAPSHOTS).mkdir()
            for name in (made.snapshot, VERSIONS):
                if (source / _SNAPSHOTS / name).is_file():
                    _transfer(source / _SNAPSHOTS / name, part / _SNAPSHOTS / name)
        with closing(SqliteEventsLog(part / _EVENTS)) as events:
            if events.end() != made.offset:
                raise HeadwaterError(
                    f"{source / _EVENTS} ends at {events.end():,}, not at {made.offset:,} as "
                    f"{MANIFEST} says; take another backup"
                )
        _finish(part, data)
    except OSError as error:
        raise HeadwaterError(f"{data} can't be written: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def _logs(data: Path, part: Path) -> tuple[str | None, int]:
    """Copies the newest snapshot, the updates after it, the versions up to it and then the events;
    the snapshot's name, and the newest sequence.
    """
    for _ in range(_ATTEMPTS):
        shutil.rmtree(part / _SNAPSHOTS, ignore_errors=True)
        for log in (_UPDATES, _EVENTS):
            (part / log).unlink(missing_ok=True)
        name, sequence, offset = _snapshot(data / _SNAPSHOTS, part / _SNAPSHOTS)
        if (data / _UPDATES).is_file():
            copy(data / _UPDATES, part / _UPDATES)
            with closing(SqliteUpdatesLog(part / _UPDATES)) as updates:
                following = [stored.sequence for stored in updates.read(sequence, 1)]
                if following != [sequence + 1] and updates.end() > sequence:
                    continue
                sequence = max(updates.end(), sequence)
        if name is not None:
            _versions(data / _SNAPSHOTS, part / _SNAPSHOTS, name)
        copy(data / _EVENTS, part / _EVENTS)
        with closing(SqliteEventsLog(part / _EVENTS)) as events:
            if events.start() <= offset:
                return name, sequence
    raise HeadwaterError(
        f"{data} is learning faster than it can be copied; raise deploy.snapshots_kept or "
        "deploy.snapshot_events, or try again once it has caught up"
    )


def _snapshot(source: Path, destination: Path) -> tuple[str | None, int, int]:
    """Copies the newest snapshot that is whole: its name, its sequence and its offset."""
    for path in reversed(Snapshots(source, keep=1).paths()):
        copied = destination / path.name
        try:
            destination.mkdir(exist_ok=True)
            shutil.copyfile(path, copied)
            manifest = Snapshots(destination, keep=1).load(copied)[1]
        except (FileNotFoundError, SnapshotError):
            copied.unlink(missing_ok=True)  # pruned since it was listed, or damaged
            continue
        sync(copied)
        return path.name, manifest.sequence, manifest.offset
    return None, 0, 0


def _versions(source: Path, destination: Path, snapshot: str) -> None:
    """Copies the history of versions up to a snapshot: what came since isn't in the backup."""
    lines = [line for line in Versions(source / VERSIONS).history() if line.snapshot <= snapshot]
    if lines:
        Versions(destination / VERSIONS).replace(lines)


def _transfer(source: Path, destination: Path) -> None:
    """Copies a file that nobody writes, with its permissions."""
    shutil.copy2(source, destination)
    sync(destination)


def _part(wanted: Path) -> Path:
    """An empty folder beside the wanted one, to be renamed once it is whole."""
    part = wanted.with_name(f"{wanted.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise HeadwaterError(f"{wanted.parent} can't be written: {error.strerror}") from None
    return part


def _finish(part: Path, wanted: Path) -> None:
    for folder in (part, part / _SNAPSHOTS):
        if folder.is_dir():
            sync(folder)
    part.replace(wanted)
    sync(wanted.parent)
