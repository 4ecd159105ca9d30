"""Bulk import: a process that appends to the events log, beside a running system or without one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.config import Config
from headwater.errors import InvalidInput, LogError
from headwater.ingest import (
    exported_rows,
    is_exported,
    read_exported,
    read_interactions,
    read_items,
    read_users,
)
from headwater.log.erasing import claim
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.roles import _folder
from headwater.types import DeadLetter, Entry

if TYPE_CHECKING:
    from headwater.ingest import Items, Users
    from headwater.loop import Backfilled, Progress

CHUNK = 1_000
"""Entries per commit: a running API waits for at most one such commit before its own."""

_TOO_OLD = (
    "timestamp is older than what the log still holds: whether it was counted can't be told "
    "(log.keep_days, log.keep_megabytes)"
)


@dataclass
class Imported:
    """What became of the rows of a file."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Rows that were appended, by what they are: an exported file tells that itself."""
    duplicate: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Rows that can't be used, by reason."""
    first_skipped: dict[str, int] = field(default_factory=dict)
    """Which of them is the first in the file, from 1; not where the log refused it."""
    warnings: list[str] = field(default_factory=list)

    @property
    def appended(self) -> int:
        return self.kinds.total()


def import_events(
    path: Path,
    data: Path,
    config: Config,
    mapping: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Appends the interactions of a file, in time order; a row that is there already counts once.

    A file that ``headwater export`` wrote is appended in its own order, whatever it holds.

    Args:
        mapping: field -> column, over names and aliases.
        progress: called with the rows done and the rows in all.

    Raises:
        UnreadableFile: the file can't be read; nothing was appended.
        InvalidInput: ``mapping`` names no field.
        LogError: the log can't be opened, or refused a chunk.
    """
    if not mapping and is_exported(path):
        return _import_exported(path, data, config, progress)
    rows = read_interactions(path, mapping=mapping, event_types=config.event_types)
    chunks = (rows.events(start, start + CHUNK) for start in range(0, len(rows), CHUNK))
    done = _append(chunks, len(rows), data, progress)
    done.skipped |= rows.skipped
    done.first_skipped = rows.first_skipped
    done.warnings = rows.warnings
    return done


def import_items(
    path: Path,
    data: Path,
    config: Config,
    mapping: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Sets the items of a file; one that is known already is replaced.

    Arguments and errors are those of ``import_events``.
    """
    if not mapping and is_exported(path):
        return _import_exported(path, data, config, progress)
    rows = read_items(path, mapping=mapping)
    return _import_described(rows, rows.items, data, progress)


def import_users(
    path: Path,
    data: Path,
    config: Config,
    mapping: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Sets the users of a file; one that is known already is replaced, not the history.

    Arguments and errors are those of ``import_events``.
    """
    if not mapping and is_exported(path):
        return _import_exported(path, data, config, progress)
    rows = read_users(path, mapping=mapping)
    return _import_described(rows, rows.users, data, progress)


def _import_described(
    rows: Items | Users,
    entries: Sequence[Entry],
    data: Path,
    progress: Callable[[int, int], None],
) -> Imported:
    chunks = (entries[start : start + CHUNK] for start in range(0, len(entries), CHUNK))
    done = _append(chunks, len(entries), data, progress)
    done.skipped |= rows.skipped
    done.first_skipped = rows.first_skipped
    return done


def _import_exported(
    path: Path, data: Path, config: Config, progress: Callable[[int, int], None]
) -> Imported:
    total = exported_rows(path)
    skipped: Counter[str] = Counter()
    first: dict[str, int] = {}

    def good() -> Iterator[Entry]:
        for number, one in enumerate(read_exported(path, config.event_types), 1):
            if isinstance(one, InvalidInput):
                skipped[str(one)] += 1
                first.setdefault(str(one), number)
            else:
                yield one

    entries = good()
    chunks = iter(lambda: list(islice(entries, CHUNK)), [])
    done = _append(chunks, total, data, progress)
    done.skipped |= skipped
    done.first_skipped = first
    return done


def backfill(data: Path, config: Config, progress: Progress) -> Backfilled:
    """Learns all that the log of a stopped system holds, in several passes, and leaves a snapshot.

    Whatever was learned before is replaced: a new epoch begins.

    Args:
        progress: see ``headwater.loop.Progress``.

    Raises:
        LogError: there is no log, or a system, or a role by itself, runs on the folder.
        GuardTripped: what was learned must not go live; nothing was changed.
    """
    from headwater.loop import Learner, relearn

    existing_log(data).close()
    with _folder.claim(data):
        # A role that runs by itself holds no lock of the folder, but has the logs open.
        for path in (data / "events.db", data / "updates.db"):
            if path.is_file():
                claim(path)
        with (
            closing(existing_log(data)) as events,
            closing(SqliteUpdatesLog(data / "updates.db")) as updates,
        ):
            learner = Learner(config, events, updates, data / "snapshots", anew=True)
            return relearn(config, learner, events, progress)


def dead_letters(data: Path, n: int) -> list[DeadLetter]:
    """The newest ``n`` dead letters of a data folder, newest first.

    Raises:
        LogError: the folder holds no log, or it can't be read.
    """
    with closing(existing_log(data)) as log:
        return log.dead_letters(n)


def existing_log(data: Path) -> SqliteEventsLog:
    """The events log of a data folder that has one: reading makes none.

    Raises:
        LogError: there is none, or it can't be opened.
    """
    path = data / "events.db"
    if not path.is_file():
        raise LogError(f"there is no events log in {data}; name a data folder with --data")
    return SqliteEventsLog(path)


def _append(
    chunks: Iterator[Sequence[Entry]],
    total: int,
    data: Path,
    progress: Callable[[int, int], None],
) -> Imported:
    done, too_old = Imported(), 0
    with closing(SqliteEventsLog(data / "events.db")) as log:
        for chunk in chunks:
            answers = log.append(chunk, time.time())
            done.duplicate += sum(answer.duplicate for answer in answers)
            too_old += sum(answer.older_than is not None for answer in answers)
            done.kinds.update(
                str(entry.__struct_config__.tag).replace("_", " ")
                for entry, answer in zip(chunk, answers, strict=True)
                if not answer.duplicate and answer.older_than is None
            )
            progress(done.appended + done.duplicate + too_old, total)
    if too_old:
        done.skipped[_TOO_OLD] = too_old
    return done
