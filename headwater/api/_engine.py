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
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from headwater.api._asks import Ask, Asks, Work
from headwater.api._follows import Counted, Directory, Follows, Standing
from headwater.api._popular import PopularList
from headwater.api._problems import Failed, Unavailable
from headwater.errors import Dropped, Unfit
from headwater.feedback import Feedback
from headwater.log import EventsLog, UpdatesLog
from headwater.types import Explanation, Recommendations, Request, SimilarItems, SimilarUsers

T = TypeVar("T")

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


_Outcome = tuple[Ask, Any]
"""What an ask is answered: the answer, or the exception in its place."""


class Engine:
    """Answers requests from asyncio on the model thread.

    Args:
        follower: makes the follower; called on the model thread, where the
            follower then lives.
        max_queue, max_wait: see ``Asks``.
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
        self.folds = False
        """Whether the state follows the logs: not before it is ready, nor after an error."""
        self.caches: dict[str, Counted] = {}
        self._popular = PopularList()
        self._follower = follower
        self._events = events
        self._updates = updates
        self._feedback = feedback
        self._wait_seconds = wait_seconds
        self._died = died
        self._log = structlog.get_logger()
        self._asks = Asks(max_queue, max_wait)
        self._hurry = threading.Event()  # whether any waits for an offset
        self._followed = 0  # offset through which feedback was, and when
        self._followed_at = 0.0
        self._woken_at = 0.0  # the event loop's own
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
        self._asks.close()
        self._hurry.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    @property
    def ready(self) -> bool:
        """Whether the log was folded, and the model thread runs."""
        return self._asks.is_open

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
            asyncio.get_running_loop().call_soon(self._asks.wake)

    async def recommend(self, request: Request, min_offset: int = 0) -> Recommendations:
        """The answer to ``request`` by a state that holds ``min_offset``.

        Raises:
            Unavailable: still starting, too many waiting, or ``min_offset`` not reached in time.
            Failed: the model raised an error.
        """
        found: Recommendations = await self._ask(request, "recommending", min_offset)
        return found

    async def popular(
        self, n: int, exclude: frozenset[str] = frozenset(), min_offset: int = 0
    ) -> Recommendations:
        """What is popular now; raises like ``recommend``."""
        found: Recommendations = await self._ask(
            lambda follower, _: self._popular.of(follower, n, exclude),
            "ranking by popularity",
            min_offset,
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

    async def _ask(self, wanted: Request | Work, doing: str, min_offset: int = 0) -> Any:
        self._asks.refuse_if_late()
        answer = asyncio.get_running_loop().create_future()
        behind = min_offset > self.standing.offset
        self._asks.n_open += 1
        try:
            self._asks.put(Ask(wanted, doing, min_offset, answer))
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
            self._asks.n_open -= 1

    # --- the model thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            follower = self._made = self._follower()
            self.caches = {"popular": self._popular, **follower.caches}
            start = self._events.end()
            self._follow(start)
            retry = False
            while self._asks.wait(self._pause(follower, retry)):
                retry = not self._round(follower)
                # A little behind every round, and all of it where nobody waits.
                while not retry and follower.look_on() and not self._asks.are_due:
                    pass
                if not retry and follower.offset >= start:
                    self._asks.open()
                self.folds = self.ready and not retry
        except Exception as error:
            if not isinstance(error, (Unfit, Dropped)):  # those need no traceback
                self._log.exception("the model thread died")
            self._died(error)
        finally:
            self._deliver(
                [
                    (ask, Unavailable("stopping", "the server is stopping"))
                    for ask in self._asks.empty()
                ]
            )

    def _round(self, follower: Follows) -> bool:
        """Folds what is new and answers what waits for it; False when folding failed."""
        # The requests are taken before the fold: one that arrives meanwhile may know of an event
        # that this fold doesn't see.
        asks = self._asks.take()
        started = time.perf_counter()
        try:
            follower.catch_up()
        except Exception as error:
            self._log.exception("folding the logs failed")
            self._deliver([(ask, _failed("catching up with the logs", error)) for ask in asks])
            return False
        self.standing = Standing.of(follower)
        batch, is_behind = self._asks.batch(asks, follower.offset)
        if is_behind:
            self._hurry.set()
        elif self._hurry.is_set() and not self._asks.closing:
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
        self._asks.took(time.perf_counter() - started, len(batch))
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
        while not self._asks.closing:
            try:
                if log.wait(seen, WATCH_SECONDS):
                    end = log.end()
                    if log is self._updates and self._made is not None:
                        self._made.prepare()
                    seen = end  # not before: what couldn't be prepared is tried again
                    if log is self._updates or end > self.standing.offset:
                        self._asks.wake()
                    if log is self._events:
                        self._hurry.wait(ELSEWHERE_SECONDS)
                elif log is self._updates and self._made is not None and self._made.rest():
                    self._asks.wake()
            except Exception:
                self._log.exception("watching a log failed")
                time.sleep(RETRY_SECONDS)


def _recommend(follower: Follows, asks: list[tuple[Ask, Request]], now: float) -> list[_Outcome]:
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


def _worked(follower: Follows, work: Work, doing: str, now: float) -> Any:
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
