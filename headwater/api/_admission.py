"""How many requests may be in work at once: as many as are answered in time.

What a request waits for changes with the load: the event loop, a commit, the model thread, a
processor that others want. So nothing of it is foretold. Where answers come late, fewer requests
are let in, until they no longer do (additive increase, multiplicative decrease; Chiu and Jain,
1989). What is looked at is the whole stay of lists in this process, as in CoDel (Nichols and
Jacobson, 2012); an array of events takes as long as it is large, and nobody looks at it meanwhile.
"""

from __future__ import annotations

LEAST = 8
"""Requests that may always be in work, however late answers are: as many as may always wait for
the model thread."""
OF_EACH = 4
"""Lists that may always be in work, whatever holds events up: a slow disk, or a commit behind that
of another process. As many requests with events may, while nothing says that there are too many:
where lists hold the places of all, the model thread stands still. Under pressure events are over so
soon that these four would be beyond the limit all the time: p99 at twice what is carried was 47 ms
instead of 31."""
MOST, BURST = 128, 32
"""What is let in at first, two rounds of the model thread, and what late answers alone leave of it:
for less, as many have to be in work as well. A stall, or a burst of a few tens, is no overload."""
WINDOW_SECONDS = 0.05
"""From one look at how late answers were to the next: fifty of them, at 1,000 a second. By tenths
of a second answers were late for half a second when an overload began, now for a quarter."""
LATE = 1 / 3
"""Of the longest that a request should wait. At twice what is carried p99 was 35 ms by a half of
50, 26 by a third, with an eighth fewer answers."""
LATE_SHARE = 0.02
"""Of the lists of a window; where more are late, fewer requests are let in."""
LESS, MUCH_LESS = 0.85, 0.5
"""Of those that were in work; the second where most answers were late."""
MORE, MUCH_MORE = 0.5, 8.0
"""In each window without; the second where fewer were in work than might have been."""


class Admission:
    """Counts requests from the last of their bytes to their answer. For the event loop alone.

    Args:
        max_wait: seconds that a request should wait at most; a list that took ``LATE`` of it
            was late.
    """

    def __init__(self, max_wait: float) -> None:
        self._late = LATE * max_wait
        self._limit = float(MOST)
        self._since = 0.0
        self._lists = self._too_late = self._peak = 0
        self._of_kind = [0, 0]  # events and lists in work

    @property
    def in_work(self) -> int:
        """Requests that are in work."""
        return sum(self._of_kind)

    @property
    def is_at_limit(self) -> bool:
        """Whether one more may be too many, as its kind will tell."""
        return self.in_work >= self._limit

    def is_full(self, is_list: bool) -> bool:
        """Whether one more of its kind would be too many."""
        spared = OF_EACH if is_list or self._limit >= MOST else 0
        return self.is_at_limit and self._of_kind[is_list] >= spared

    def enter(self, is_list: bool) -> None:
        """Notes that a request is in work: for a list, or with events."""
        self._of_kind[is_list] += 1
        self._peak = max(self._peak, self.in_work)

    def leave(self, is_list: bool, seconds: float, now: float) -> None:
        """Notes that one was answered.

        Args:
            is_list: as it entered.
            seconds: how long it was in work.
            now: seconds on a clock that never goes back.
        """
        self._of_kind[is_list] -= 1
        if is_list:
            self._lists += 1
            self._too_late += seconds > self._late
        passed = now - self._since
        if passed < WINDOW_SECONDS:
            return
        reached = self._peak >= self._limit
        if self._too_late > LATE_SHARE * self._lists:
            less = MUCH_LESS if 2 * self._too_late > self._lists else LESS
            least = LEAST if reached else min(BURST, self._limit)
            self._limit = max(float(least), less * min(self._limit, self._peak))
        else:
            more = MORE if reached else MUCH_MORE
            self._limit = min(float(MOST), self._limit + more * passed / WINDOW_SECONDS)
        self._since = now
        self._lists = self._too_late = 0
        self._peak = self.in_work

    def lose(self, is_list: bool) -> None:
        """Notes that one is in work no longer, though nobody knows when its answer arrives."""
        self._of_kind[is_list] -= 1
