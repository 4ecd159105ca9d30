"""What waits for the model thread, and who is turned away lest the others wait too long."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from headwater.api._follows import Follows
from headwater.api._problems import Unavailable
from headwater.types import Request

ALWAYS = 8
"""Requests that may wait whatever they take: the one that finds out that it is fast again."""
MEASURED = 15
"""Newest rounds by which it is known what a request takes: those of half of ``ALWAYS`` or more, as
one of few takes longer than one of many. Of two rounds that answer ``ALWAYS``, one is such."""
BATCH = 64
"""Requests answered together at most; bounds how long the last of them waits for the first."""

Work = Callable[[Follows, float], Any]
"""Answers by itself, at a time in seconds since 1970."""


@dataclass(slots=True, eq=False)
class Ask:
    """One request, and where its answer goes."""

    wanted: Request | Work
    """Requests that wait are answered together."""
    doing: str
    min_offset: int
    answer: asyncio.Future[Any]


class Asks:
    """The queue between the event loop, which puts asks, and the model thread, which takes them.

    Args:
        max_queue: asks that may be open; one more is shed.
        max_wait: seconds; an ask that would wait longer is shed, if ``ALWAYS`` others wait.
    """

    def __init__(self, max_queue: int, max_wait: float) -> None:
        self.n_open = 0
        """Without an answer yet; the event loop's own."""
        self._max_queue = max_queue
        self._max_wait = max_wait
        self._condition = threading.Condition()
        self._fresh: list[Ask] = []  # guarded by the condition, as the next three are
        self._is_open = False
        self._woken = True
        self._closing = False
        self._parked: list[Ask] = []  # the model thread's own, as the next one is
        self._measured: deque[float] = deque(maxlen=MEASURED)
        self._seconds_each = 0.0  # that the model thread takes for one

    # --- for the event loop ----------------------------------------------------------------------

    def refuse_if_late(self) -> None:
        """Sheds an ask now that would be answered late: then those that wait aren't.

        Raises:
            Unavailable: too many are open.
        """
        # Those that wait for an offset cost nothing until it is there.
        ahead = self.n_open - len(self._parked)
        seconds = ahead * self._seconds_each
        if self.n_open >= self._max_queue or (ahead >= ALWAYS and seconds > self._max_wait):
            raise Unavailable("queue-full", f"{self.n_open} requests wait already; try again later")

    def put(self, ask: Ask) -> None:
        """Has the model thread answer it.

        Raises:
            Unavailable: before ``open``, or behind ``empty``.
        """
        with self._condition:
            if not self._is_open:
                raise Unavailable("not-ready", "the log isn't folded yet; /readyz says when it is")
            self._fresh.append(ask)
            self._condition.notify_all()

    # --- for any thread --------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether any are taken in."""
        return self._is_open

    @property
    def closing(self) -> bool:
        """Whether the model thread should end."""
        return self._closing

    def wake(self) -> None:
        """Says that there is something to do for the model thread beside the asks."""
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def close(self) -> None:
        """Has the model thread end, after what is in work."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()

    # --- for the model thread --------------------------------------------------------------------

    def open(self) -> None:
        """From now on they are taken in."""
        with self._condition:
            self._is_open = True

    @property
    def are_due(self) -> bool:
        """Whether there is something to do."""
        return self._closing or self._woken or bool(self._fresh)

    def wait(self, timeout: float | None) -> bool:
        """Sleeps until there is something to do; False when it is time to stop."""
        with self._condition:
            self._condition.wait_for(lambda: self.are_due, timeout)
            return not self._closing

    def take(self) -> list[Ask]:
        """All that wait, those that were parked first."""
        with self._condition:
            taken = self._parked + self._fresh
            self._fresh = []
            self._woken = False
        self._parked = []
        return taken

    def batch(self, taken: Sequence[Ask], offset: int) -> tuple[list[Ask], bool]:
        """Those of what was taken that are answered now, by the state that holds ``offset``.

        The others wait for the next round. Also, whether any of them waits for a later offset.
        """
        waiting = [ask for ask in taken if not ask.answer.done()]
        able = [ask for ask in waiting if ask.min_offset <= offset]
        behind = [ask for ask in waiting if ask.min_offset > offset]
        self._parked = able[BATCH:] + behind
        if len(able) > BATCH:
            self.wake()
        return able[:BATCH], bool(behind)

    def took(self, seconds: float, n: int) -> None:
        """Notes what a round took that answered so many."""
        if 2 * n >= ALWAYS:
            self._measured.append(seconds / n)
            self._seconds_each = median(self._measured)

    def empty(self) -> list[Ask]:
        """Takes in no more, and returns all that are left."""
        with self._condition:
            self._is_open = False
            left, self._fresh = self._parked + self._fresh, []
        return left
