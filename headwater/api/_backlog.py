"""What came in and isn't in the state that answers yet: bounded, so that it is soon."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from headwater.api._engine import Engine
from headwater.api._problems import Unavailable
from headwater.errors import Dropped
from headwater.log import EventsLog
from headwater.types import Appended


def seconds_behind(events: EventsLog, offset: int, now: float) -> float:
    """Seconds since the oldest entry behind ``offset`` was received, 0 where there is none."""
    with suppress(Dropped):
        for record in events.read(offset, 1):
            return max(0.0, now - record.received_at)
    return 0.0


class Backlog:
    """Entries on their way from a request, through the log, into the state.

    An answer is of a state that holds all that was acknowledged before, so whatever waits to be
    folded makes the next answer wait as well. More than ``most`` are turned away before they
    are looked at; what has been acknowledged stays. For the event loop alone.

    Args:
        engine: whose state it is.
        most: entries that may be on their way; a request that finds none may bring more.
        end: of the log, as it is found.
    """

    def __init__(self, engine: Engine, most: int, end: int) -> None:
        self._engine = engine
        self._most = most
        self._end = end
        self._committing = 0
        self._folding: deque[tuple[int, int]] = deque()  # (offset through which, entries)
        self._to_fold = 0

    @property
    def end(self) -> int:
        """Newest offset that is known, be it of this process's entries or of another's."""
        return max(self._end, self._engine.standing.offset)

    @property
    def size(self) -> int:
        """Entries that aren't committed, or not folded, when it was last looked.

        Where nothing is folded, as at the start or after an error, none is waited for.
        """
        return self._committing + (self._to_fold if self._engine.folds else 0)

    def check(self, n: int = 0) -> None:
        """Whether there is room for ``n`` entries.

        Raises:
            Unavailable: there isn't.
        """
        folded = self._engine.standing.offset
        while self._folding and self._folding[0][0] <= folded:
            self._to_fold -= self._folding.popleft()[1]
        waiting = self.size
        if waiting >= self._most or (waiting and waiting + n > self._most):
            raise Unavailable("backlog", f"{waiting} entries wait for the log; try again later")

    @contextmanager
    def entering(self, n: int) -> Iterator[None]:
        """Holds the room of ``n`` entries while they are committed.

        Raises:
            Unavailable: there is none.
        """
        self.check(n)
        self._committing += n
        try:
            yield
        finally:
            self._committing -= n

    def entered(self, appended: Sequence[Appended]) -> None:
        """Notes what was committed."""
        new = [place.offset for place in appended if place.offset > self._end]
        if new:
            self._end = max(new)
            self._folding.append((self._end, len(new)))
            self._to_fold += len(new)
