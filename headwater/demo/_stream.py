"""Streams ratings over HTTP as fast as they are learned, and measures how fast that is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headwater.demo._ratings import Ratings
from headwater.demo._server import Server

ARRAY = 100
"""Events per request: as many as a micro-batch holds."""
LAG_SECONDS = 0.35
"""Work that may wait for the trainer: what it learns between two updates (0.25 s), and a batch.
Less would leave it idle between two requests; more would only wait, and show as delay."""
FEWEST_WAITING, MOST_WAITING = 200, 2_000
POLL_SECONDS = 0.02
"""Between two looks at ``trained_through``; a delay comes out longer than it is by up to that."""
METRICS_SECONDS = 1.0
SPEED_SECONDS = 5.0
DRAIN_SECONDS = 20.0


@dataclass
class Progress:
    """What has become of the stream so far."""

    total: int
    acknowledged: int = 0
    learned: int = 0
    seconds: float = 0.0
    speed: float = 0.0
    """Events learned per second, over the last few seconds."""
    delays: list[float] = field(default_factory=list)
    """Seconds from an array's acknowledgement until its last event was learned and served."""
    version: int = 0
    sequence: int = 0
    ndcg: dict[str, float] = field(default_factory=dict)
    """NDCG@10 of the newest predictions: of the mixture that is served, and of each expert."""

    def delay(self, share: float) -> float | None:
        """The quantile ``share`` of the delays, in seconds."""
        if not self.delays:
            return None
        ordered = sorted(self.delays)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class Stream:
    """Sends arrays of ratings, in order, with a bounded number of them waiting to be learned."""

    def __init__(self, server: Server, ratings: Ratings, limit: int | None = None) -> None:
        total = len(ratings) if limit is None else min(limit, len(ratings))
        self.progress = Progress(total)
        self._server = server
        self._ratings = ratings
        self._waiting: deque[tuple[int, float]] = deque()
        self._marks: deque[tuple[float, int]] = deque()
        self._before = self._through = 0
        self._metrics_at = 0.0

    def run(self, seconds: float, refresh: Callable[[], None] = lambda: None) -> None:
        """Streams for ``seconds``, or to the end, and until all that was sent is learned.

        Args:
            refresh: called whenever ``progress`` has changed.
        """
        progress = self.progress
        self._before = self._server.status()["end"]
        started = time.monotonic()
        while progress.acknowledged < progress.total and progress.seconds < seconds:
            self._look(started)
            if progress.acknowledged - progress.learned < self._allowed():
                self._send()
            else:
                time.sleep(POLL_SECONDS)
            refresh()
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._waiting and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            self._look(started)
            refresh()

    def _send(self) -> None:
        start = self.progress.acknowledged
        stop = min(start + ARRAY, self.progress.total)
        offset = self._server.send(self._ratings.events(start, stop))
        self._waiting.append((offset, time.monotonic()))
        self.progress.acknowledged = stop

    def _look(self, started: float) -> None:
        progress = self.progress
        status = self._server.status()
        now = time.monotonic()
        progress.seconds = now - started
        progress.version, progress.sequence = status["version"], status["sequence"]
        through = status["trained_through"]
        while self._waiting and self._waiting[0][0] <= through:
            progress.delays.append(now - self._waiting.popleft()[1])
        progress.learned = max(0, through - self._before)
        if through > self._through:
            self._through = through
            self._marks.append((now, progress.learned))
        while len(self._marks) > 2 and self._marks[0][0] < now - SPEED_SECONDS:
            self._marks.popleft()
        # Before a second has passed, one update would pass for a speed.
        if self._marks and now - self._marks[0][0] >= 1.0:
            (since, low), (_, high) = self._marks[0], self._marks[-1]
            progress.speed = (high - low) / (now - since)

        if now >= self._metrics_at:
            self._metrics_at = now + METRICS_SECONDS
            progress.ndcg = ndcg(self._server.metrics()) or progress.ndcg

    def _allowed(self) -> float:
        return min(MOST_WAITING, max(FEWEST_WAITING, LAG_SECONDS * self.progress.speed))


def ndcg(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """NDCG@10 by model, of all events, where metrics are there already."""
    for of_segment in metrics:
        if of_segment["segment"] == "all":
            return {
                name.removesuffix(".ndcg@10"): metric["value"]
                for name, metric in of_segment["values"].items()
                if name.endswith(".ndcg@10")
            }
    return {}
