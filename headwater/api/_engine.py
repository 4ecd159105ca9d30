"""The model thread: the one place that touches the follower.

Requests queue up while the thread works; it takes all that wait (at most
``BATCH``), catches up with both logs once, and answers them together. So every
answer is by one (version, sequence), and an event that was acknowledged before
a request is in the state that answers it. Between requests the thread is woken
by either log and folds what is new, so that a request finds little left to do.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol, TypeVar

import structlog

from headwater.api._popular import PopularList
from headwater.api._problems import Failed, Unavailable
from headwater.errors import Dropped, Unfit
from headwater.feedback import Feedback
from headwater.log import EventsLog, UpdatesLog
from headwater.types import (
    Explanation,
    Item,
    Recommendations,
    Request,
    SimilarItems,
    SimilarUsers,
    User,
)

T = TypeVar("T")

ALWAYS = 8
"""Requests that may wait whatever they take: the one that finds out that it is fast again."""
MEASURED = 15
"""Newest rounds by which it is known what a request takes: those of half of ``ALWAYS`` or more, as
one of few takes longer than one of many. Of two rounds that answer ``ALWAYS``, one is such."""
BATCH = 64
"""Requests answered together at most; bounds how long the last of them waits for the first."""
TOGETHER_SECONDS = 0.02
"""From one fold of events that were taken in here to the next, while nobody asks: a fold of one
event takes nearly as long as one of many, and whoever asks has them folded."""
ELSEWHERE_SECONDS = 0.1
"""Longest that the last of them, and what others have appended, are left unfolded while nobody
asks: a thread that is woken by each commit takes a tenth of what an event takes."""
FOLLOWED_SECONDS = 0.1
"""From one look at which events acted on a list to the next: each decodes them once more, and one
takes nearly as long as ten."""
RETRY_SECONDS = 1.0
"""Pause before folding again after a fold that failed."""
WATCH_SECONDS = 0.2
"""Longest that a watching thread sleeps without looking whether it should stop."""


class Directory(Protocol):
    """What was set of items and users, as a ``headwater.preprocess.Preprocessor`` has it."""

    def item(self, item_id: str) -> Item | None: ...

    def dimensions(self) -> dict[str, int]: ...

    def user(self, user_id: str) -> User | None: ...

    def listed_items(self, after: int, n: int) -> tuple[list[Item], int | None]: ...

    def listed_users(self, after: int, n: int) -> tuple[list[User], int | None]: ...


class Counted(Protocol):
    """How often a cache had what was asked for, and how often not; may be read from any thread."""

    hits: int
    misses: int


class Follows(Protocol):
    """What the API asks of a ``headwater.loop.Follower``."""

    @property
    def offset(self) -> int: ...

    @property
    def directory(self) -> Directory: ...

    @property
    def caches(self) -> Mapping[str, Counted]: ...

    epoch: int
    version: int
    sequence: int
    trained_through: int
    gradient_through: int
    report: dict[str, Any]

    def prepare(self) -> None: ...

    def catch_up(self) -> None: ...

    def look_on(self) -> bool: ...

    def recommend(self, requests: Sequence[Request], now: float) -> list[Recommendations]: ...

    def popular(self, n: int, now: float) -> Recommendations: ...

    def explain(self, user_id: str, n: int, now: float) -> Explanation: ...

    def similar_items(
        self, item_id: str, n: int, exclude: frozenset[str]
    ) -> SimilarItems | None: ...

    def similar_users(self, user_id: str, n: int) -> SimilarUsers: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the follower stood after a fold; safe to read from any thread."""

    offset: int = 0
    epoch: int = 0
    version: int = 0
    sequence: int = 0
    trained_through: int = 0
    gradient_through: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, follower: Follows) -> Standing:
        return cls(
            offset=follower.offset,
            epoch=follower.epoch,
            version=follower.version,
            sequence=follower.sequence,
            trained_through=follower.trained_through,
            gradient_through=follower.gradient_through,
            report=follower.report,
        )


_Work = Callable[[Follows, float], Any]
"""Answers by itself, at a time in seconds since 1970."""


@dataclass(slots=True, eq=False)
class _Ask:
    wanted: Request | _Work
    """Requests that wait are answered together."""
    doing: str
    min_offset: int
    answer: asyncio.Future[Any]


_Outcome = tuple[_Ask, Any]
"""What an ask is answered: the answer, or the exception in its place."""


class Engine:
    """Answers requests from asyncio on the model thread.

    Args:
        follower: makes the follower; called on the model thread, where the
            follower then lives.
        max_queue: requests that may wait; one more is shed.
        max_wait: seconds; a request that would wait longer is shed, if ``ALWAYS`` others wait.
        wait_seconds: longest that ``min_offset`` makes a request wait.
        died: called, on the model thread, with the error by which that thread ends.
    """

    def __init__(
        self,
        follower: Callable[[], Follows],
        events: EventsLog,
        updates: UpdatesLog,
        feedback: Feedback,
        *,
        max_queue: int,
        max_wait: float,
        wait_seconds: float,
        died: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.standing = Standing()
        self.ready = False
        self.folds = False
        """Whether the state follows the logs: not before it is ready, nor after an error."""
        self.caches: dict[str, Counted] = {}
        self._popular = PopularList()
        self._follower = follower
        self._events = events
        self._updates = updates
        self._feedback = feedback
        self._max_queue = max_queue
        self._max_wait = max_wait
        self._measured: deque[float] = deque(maxlen=MEASURED)
        self._seconds_each = 0.0  # that the model thread takes for a request
        self._wait_seconds = wait_seconds
        self._died = died
        self._log = structlog.get_logger()
        self._condition = threading.Condition()
        self._fresh: list[_Ask] = []  # guarded by the condition, as the next two are
        self._woken = True
        self._closing = False
        self._parked: list[_Ask] = []  # the model thread's own
        self._hurry = threading.Event()  # whether any are
        self._followed = 0  # offset through which feedback was, and when
        self._followed_at = 0.0
        self._woken_at = 0.0  # the event loop's own, as the next one is
        self._open = 0  # asks without an answer yet
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._made: Follows | None = None  # the model thread's, but for what it lets others do

    # --- the asyncio side ------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the threads; call it on the event loop that will await the answers."""
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._run, name="model", daemon=True),
            threading.Thread(
                target=self._watch, args=(self._events,), name="watch-events", daemon=True
            ),
            threading.Thread(
                target=self._watch, args=(self._updates,), name="watch-updates", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """Ends the threads after the batch in work; requests that still wait are refused."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._hurry.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    @property
    def alive(self) -> bool:
        """Whether the model thread runs."""
        return bool(self._threads) and self._threads[0].is_alive()

    def appended(self) -> None:
        """Says, on the event loop, that something was appended: it is folded soon."""
        now = time.monotonic()
        if now - self._woken_at >= TOGETHER_SECONDS:
            self._woken_at = now
            # Behind the acknowledgement, which would have to share the interpreter with the fold.
            asyncio.get_running_loop().call_soon(self._wake)

    async def recommend(self, request: Request, min_offset: int = 0) -> Recommendations:
        """The answer to ``request`` by a state that holds ``min_offset``.

        Raises:
            Unavailable: still starting, too many waiting, or ``min_offset`` not reached in time.
            Failed: the model raised an error.
        """
        found: Recommendations = await self._ask(request, "recommending", min_offset)
        return found

    async def popular(self, n: int) -> Recommendations:
        """What is popular now; raises like ``recommend``."""
        found: Recommendations = await self._ask(
            lambda follower, now: self._popular.of(follower, n, now), "ranking by popularity"
        )
        return found

    async def explain(self, user_id: str, n: int) -> Explanation:
        """What the user's list is made from, without counting it as shown; raises alike."""
        found: Explanation = await self._ask(
            lambda follower, now: follower.explain(user_id, n, now), "explaining"
        )
        return found

    async def similar_items(
        self, item_id: str, n: int, exclude: frozenset[str], min_offset: int = 0
    ) -> SimilarItems | None:
        """What goes with an item, ``None`` where there is no such item; raises alike."""
        found: SimilarItems | None = await self._ask(
            lambda follower, _: follower.similar_items(item_id, n, exclude),
            "looking for similar items",
            min_offset,
        )
        return found

    async def similar_users(self, user_id: str, n: int, min_offset: int = 0) -> SimilarUsers:
        """Who is like a user; raises alike."""
        found: SimilarUsers = await self._ask(
            lambda follower, _: follower.similar_users(user_id, n),
            "looking for similar users",
            min_offset,
        )
        return found

    async def look(self, look: Callable[[Directory], T]) -> tuple[T, int]:
        """What ``look`` finds, and the offset that it stands for; raises like ``recommend``."""
        found: tuple[T, int] = await self._ask(
            lambda follower, _: (look(follower.directory), follower.offset), "looking it up"
        )
        return found

    async def _ask(self, wanted: Request | _Work, doing: str, min_offset: int = 0) -> Any:
        self._refuse_if_late()
        answer = asyncio.get_running_loop().create_future()
        behind = min_offset > self.standing.offset
        self._open += 1
        try:
            with self._condition:
                if not self.ready:
                    raise Unavailable(
                        "not-ready", "the log isn't folded yet; /readyz says when it is"
                    )
                self._fresh.append(_Ask(wanted, doing, min_offset, answer))
                self._condition.notify_all()
            if not behind:
                return await answer
            async with asyncio.timeout(self._wait_seconds):
                return await answer
        except TimeoutError:
            raise Unavailable(
                "offset-not-reached",
                f"min_offset {min_offset} was not reached within {self._wait_seconds:g} seconds: "
                f"the state holds offset {self.standing.offset}; try again",
            ) from None
        finally:
            self._open -= 1

    def _refuse_if_late(self) -> None:
        """Sheds a request now that would be answered late: then those that wait aren't."""
        # Those that wait for an offset cost nothing until it is there.
        ahead = self._open - len(self._parked)
        seconds = ahead * self._seconds_each
        if self._open >= self._max_queue or (ahead >= ALWAYS and seconds > self._max_wait):
            raise Unavailable("queue-full", f"{self._open} requests wait already; try again later")

    # --- the model thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            follower = self._made = self._follower()
            self.caches = {"popular": self._popular, **follower.caches}
            start = self._events.end()
            self._follow(start)
            retry = False
            while self._wait(self._pause(follower, retry)):
                retry = not self._round(follower)
                # A little behind every round, and all of it where nobody waits.
                while not retry and follower.look_on() and not self._is_called:
                    pass
                self.ready = self.ready or (not retry and follower.offset >= start)
                self.folds = self.ready and not retry
        except Exception as error:
            if not isinstance(error, (Unfit, Dropped)):  # those need no traceback
                self._log.exception("the model thread died")
            self._died(error)
        finally:
            with self._condition:
                self.ready = False
                left = self._parked + self._fresh
                self._fresh = []
            self._deliver(
                [(ask, Unavailable("stopping", "the server is stopping")) for ask in left]
            )

    @property
    def _is_called(self) -> bool:
        """Whether there is something to do."""
        return self._closing or self._woken or bool(self._fresh)

    def _wait(self, timeout: float | None) -> bool:
        """Sleeps until there is something to do; False when it is time to stop."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_called, timeout)
            return not self._closing

    def _round(self, follower: Follows) -> bool:
        """Folds what is new and answers what waits for it; False when folding failed."""
        # The requests are taken before the fold: one that arrives meanwhile may know of an event
        # that this fold doesn't see.
        with self._condition:
            asks = self._parked + self._fresh
            self._fresh = []
            self._woken = False
        self._parked = []
        started = time.perf_counter()
        try:
            follower.catch_up()
        except Exception as error:
            self._log.exception("folding the logs failed")
            self._deliver([(ask, _failed("catching up with the logs", error)) for ask in asks])
            return False
        self.standing = Standing.of(follower)
        waiting = [ask for ask in asks if not ask.answer.done()]
        able = [ask for ask in waiting if ask.min_offset <= follower.offset]
        batch, later = able[:BATCH], able[BATCH:]
        behind = [ask for ask in waiting if ask.min_offset > follower.offset]
        self._parked = later + behind
        if later:
            self._wake()
        if behind:
            self._hurry.set()
        elif self._hurry.is_set() and not self._closing:
            self._hurry.clear()
        now = time.time()
        outcomes = _recommend(
            follower, [(ask, ask.wanted) for ask in batch if isinstance(ask.wanted, Request)], now
        )
        self._deliver(outcomes)
        for ask in batch:
            if not isinstance(ask.wanted, Request):
                # Each by itself: what goes with an item takes as long as some lists.
                worked = [(ask, _worked(follower, ask.wanted, ask.doing, now))]
                self._deliver(worked)
                outcomes = [*outcomes, *worked]
        self._feed_back(outcomes, now)
        if time.monotonic() - self._followed_at >= FOLLOWED_SECONDS:
            self._follow(follower.offset)
        if 2 * len(batch) >= ALWAYS:
            self._measured.append((time.perf_counter() - started) / len(batch))
            self._seconds_each = median(self._measured)
        return True

    def _pause(self, follower: Follows, retry: bool) -> float | None:
        """Longest that is waited for something to do."""
        if retry:
            return RETRY_SECONDS
        return FOLLOWED_SECONDS if self._followed < follower.offset else None

    def _feed_back(self, outcomes: Sequence[_Outcome], now: float) -> None:
        try:
            self._feedback.record(
                [
                    (answer, ask.wanted.user_id if isinstance(ask.wanted, Request) else None)
                    for ask, answer in outcomes
                    if isinstance(answer, Recommendations)
                ],
                now,
            )
        except Exception:
            self._log.exception("what was shown was not recorded")

    def _follow(self, through: int) -> None:
        # Not again at once where it fails: the next one begins where this one did.
        self._followed, self._followed_at = through, time.monotonic()
        try:
            self._feedback.follow(self._events, through)
        except Exception:
            self._log.exception("what was clicked was not recorded")

    def _deliver(self, outcomes: Sequence[_Outcome]) -> None:
        if outcomes and self._loop is not None:
            self._loop.call_soon_threadsafe(_settle, outcomes)

    # --- the watching threads --------------------------------------------------------------------

    def _watch(self, log: EventsLog | UpdatesLog) -> None:
        seen = 0
        while not self._closing:
            try:
                if log.wait(seen, WATCH_SECONDS):
                    end = log.end()
                    if log is self._updates and self._made is not None:
                        self._made.prepare()
                    seen = end  # not before: what couldn't be prepared is tried again
                    if log is self._updates or end > self.standing.offset:
                        self._wake()
                    if log is self._events:
                        self._hurry.wait(ELSEWHERE_SECONDS)
            except Exception:
                self._log.exception("watching a log failed")
                time.sleep(RETRY_SECONDS)

    def _wake(self) -> None:
        with self._condition:
            self._woken = True
            self._condition.notify_all()


def _recommend(follower: Follows, asks: list[tuple[_Ask, Request]], now: float) -> list[_Outcome]:
    if not asks:
        return []
    try:
        answers = follower.recommend([request for _, request in asks], now)
        return [(ask, answer) for (ask, _), answer in zip(asks, answers, strict=True)]
    except Exception as error:
        if len(asks) == 1:
            ask = asks[0][0]
            return [(ask, _failed(ask.doing, error))]
    # One request that can't be answered must not take its neighbours with it.
    return [outcome for one in asks for outcome in _recommend(follower, [one], now)]


def _worked(follower: Follows, work: _Work, doing: str, now: float) -> Any:
    try:
        return work(follower, now)
    except Exception as error:
        return _failed(doing, error)


def _failed(what: str, error: Exception) -> Failed:
    failed = Failed(f"{what} failed")
    failed.__cause__ = error
    return failed


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for ask, outcome in outcomes:
        if ask.answer.done():
            continue
        if isinstance(outcome, Exception):
            ask.answer.set_exception(outcome)
        else:
            ask.answer.set_result(outcome)
