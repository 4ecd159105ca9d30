"""The two logs. Everything else is a fold of them.

``EventsLog`` holds what happened and is the only truth; ``UpdatesLog`` holds
what was learned and is the only way from trainer to server. Beside them,
``headwater.log.served`` keeps what was shown, and may lose its newest lines in a
crash.

Backends: ``headwater.log.sqlite`` (one machine, durable) and
``headwater.log.memory`` (one process, for replay and tests). Both pass
``headwater.testing.EventsLogContract`` and ``UpdatesLogContract``.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import msgspec

from headwater.log.chunks import Chunk
from headwater.types import Appended, DeadLetter, Entry, Record

MAX_AHEAD = 300.0
"""An event's timestamp may be this many seconds ahead of the server's clock. Its stream time is
then earlier than its timestamp, by so much at most."""

NO_TIME = 0.0
"""Own time of an entry that isn't an event: it must not move the stream time, or a catalogue that
goes in before its history would turn all of that history into now. It is the stream time of what
stands before the first event."""


class StoredUpdate(msgspec.Struct, frozen=True):
    """An encoded update as the log keeps it.

    ``digest`` is of ``payload``; ``report`` is JSON from the trainer (speed,
    metrics) that isn't part of what was learned, and so not of the digest. The
    log sets ``appended_at``, seconds since 1970, when it takes the update.
    """

    epoch: int
    sequence: int
    trained_through: int
    digest: str
    payload: bytes
    report: bytes
    appended_at: float = 0.0


class EventsLog(Protocol):
    """Ordered, durable, unique entries.

    Offsets start at 1 and increase by append order; offset 0 stands for "before
    everything". An ``Event`` is unique by (source, event_id): appended again, it
    is answered with the offset it has and ``duplicate=True``; so are a ``Rollback`` and
    a ``Promotion``, by their ids.

    The oldest entries can be dropped. Their ids are gone with them, so from then on an event
    that isn't in the log is refused (``Appended.older_than``) where its timestamp is not more
    than ``MAX_AHEAD`` later than the stream time of the oldest entry kept: it may have been one
    of them.
    """

    def submit(self, entries: Sequence[Entry], received_at: float) -> Future[list[Appended]]:
        """Queues entries for the next group commit; the future resolves once they are durable.

        Entries of one call are committed together and in order. The future can't be
        cancelled; when the entries can't be stored or the commit fails, its exception is a
        ``LogError``, and none of the call's entries is in the log.
        """

    def append(self, entries: Sequence[Entry], received_at: float) -> list[Appended]:
        """``submit`` and wait.

        Raises:
            LogError: the entries can't be stored, the commit failed or the log is closed.
        """

    def read(self, after: int, limit: int) -> list[Record]:
        """At most ``limit`` records with offset > ``after``, in order.

        Raises:
            Dropped: ``after`` < ``start()``: some that should come first are gone.
        """

    def chunk(self, after: int, limit: int) -> Chunk:
        """The same by the column, for who looks at every entry.

        Raises:
            Dropped: likewise.
        """

    def start(self) -> int:
        """The offset after which the log begins: 0 until something was dropped."""

    def end(self) -> int:
        """The newest offset, 0 when empty."""

    def size(self) -> int:
        """Bytes that the log takes, roughly."""

    def drop(self, through: int) -> None:
        """Drops the entries with offset <= ``through``, and the dead letters that came before
        the oldest one kept.

        The newest entry stays whatever its offset is. Appending goes on meanwhile. Dropping
        the same again changes nothing; what a power cut undoes is there again, as a whole.
        """

    def blank(self, offsets: Sequence[int]) -> None:
        """Replaces entries that are there by ``Blank``, durably.

        Offset and times stay, and of an event a hash of its id, by which it is still a
        duplicate when it is appended again.
        """

    def rollbacks(self, after: int) -> list[Record]:
        """Every ``Rollback`` with offset > ``after``, in order; found without reading the rest."""

    def promotions(self, after: int) -> list[Record]:
        """Every ``Promotion``, likewise."""

    def resumes(self, after: int) -> list[Record]:
        """Every ``Resume``, likewise."""

    def wait(self, after: int, timeout: float) -> bool:
        """Blocks until an offset > ``after`` exists (True) or ``timeout`` seconds passed."""

    def refuse(self, letters: Sequence[DeadLetter]) -> None:
        """Writes dead letters, durably."""

    def dead_letters(self, limit: int, before: int | None = None) -> list[DeadLetter]:
        """The newest dead letters with a number < ``before``, newest first; the log keeps the
        newest 100,000.
        """

    def dead_letter(self, number: int) -> DeadLetter | None:
        """The letter of that number; ``None`` where it was settled, dropped or never written."""

    def settle(self, number: int) -> None:
        """Takes a letter out, durably; what isn't there stays so."""

    def dead_letter_count(self) -> int:
        """Dead letters ever written, those dropped or settled since included."""

    def close(self) -> None:
        """Commits what was submitted, ends every ``wait`` and lets go of files; may be repeated."""


class UpdatesLog(Protocol):
    """What was learned, in order of ``sequence``; sequences increase by one, across epochs too.

    One trainer at a time: ``acquire`` gives a token that fences off every
    earlier one.
    """

    def acquire(self) -> int:
        """A fencing token, larger than every token before."""

    def append(self, update: StoredUpdate, token: int) -> None:
        """Appends; raises ``Fenced`` when a newer token exists, ``LogError`` when ``sequence``
        is not the next one.
        """

    def read(self, after: int, limit: int) -> list[StoredUpdate]:
        """At most ``limit`` updates with sequence > ``after``, in order."""

    def end(self) -> int:
        """The newest sequence; the highest one ever appended, even when dropped since."""

    def drop(self, through: int) -> None:
        """Drops updates with sequence <= ``through``."""

    def sync(self, token: int) -> None:
        """Makes durable what was appended so far; raises ``Fenced`` when a newer token exists.

        Appending doesn't: an update can be learned again. But a snapshot that names a
        sequence must not outlive that sequence in a power cut, so it is written after this, and
        by nobody who may no longer append.
        """

    def wait(self, after: int, timeout: float) -> bool:
        """Blocks until a sequence > ``after`` was appended (True) or ``timeout`` seconds passed."""

    def close(self) -> None:
        """Ends every ``wait`` and lets go of files; may be repeated."""
