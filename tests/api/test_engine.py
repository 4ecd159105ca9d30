"""The model thread: one state per answer, read-your-writes, shedding, and what errors do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from headwater.api import _engine
from headwater.api._asks import ALWAYS, BATCH, MEASURED
from headwater.api._engine import Engine
from headwater.api._problems import Failed, Unavailable
from headwater.config import Config
from headwater.errors import LogError
from headwater.feedback import Feedback
from headwater.log import StoredUpdate
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.log.served import ServedLog
from headwater.types import Recommendations, Request
from tests.api.serving import CountingFollower, view


def first(answer: Recommendations) -> str:
    return answer.items[0].item_id


class Running:
    """An engine over logs in memory, on the loop of the test."""

    def __init__(
        self,
        max_queue: int = 1000,
        max_wait: float = 0.05,
        wait_seconds: float = 2.0,
        **hooks: Any,
    ) -> None:
        self.events, self.updates = MemoryEventsLog(), MemoryUpdatesLog()
        self.follower = CountingFollower(self.events, **hooks)
        self.feedback = Feedback(ServedLog(None), Config())
        self.deaths = 0
        self.engine = Engine(
            self.make,
            self.events,
            self.updates,
            self.feedback,
            max_queue=max_queue,
            max_wait=max_wait,
            wait_seconds=wait_seconds,
            died=self.die,
        )

    def make(self) -> CountingFollower:
        return self.follower

    def die(self, _: Exception) -> None:
        self.deaths += 1

    async def until(self, what: str, value: Any = True) -> None:
        async with asyncio.timeout(10):
            while getattr(self.engine, what) != value:
                await asyncio.sleep(0.001)

    async def __aenter__(self) -> Running:
        self.engine.start()
        await self.until("ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(bounded())


def test_an_acknowledged_event_is_in_the_very_next_answer() -> None:
    async def test() -> None:
        async with Running() as running:
            for n in range(200):
                item_id = f"item-{n}"
                running.events.append([view(item_id, 1), view(item_id, 2)], 1.0)
                answer = await running.engine.recommend(Request(n=1000, user_id="u"))
                assert item_id in {item.item_id for item in answer.items}

    run(test())


def test_a_request_that_comes_during_a_fold_is_answered_after_the_next_one() -> None:
    held = threading.Event()
    held.set()
    folding = threading.Event()

    def hold() -> None:
        folding.set()
        held.wait(10)

    async def test() -> None:
        async with Running(after_fold=hold) as running:
            held.clear()
            folding.clear()
            running.events.append([view("early")], 1.0)
            while not folding.is_set():
                await asyncio.sleep(0.001)
            # The fold has read the log, and now this event is acknowledged.
            running.events.append([view("late", 1), view("late", 2)], 1.0)
            asked = asyncio.create_task(running.engine.recommend(Request(n=1)))
            await asyncio.sleep(0.05)
            held.set()
            assert first(await asked) == "late"

    run(test())


def test_one_thread_touches_the_follower_and_it_is_not_ours() -> None:
    async def test() -> None:
        async with Running() as running:
            await asyncio.gather(
                *(running.engine.recommend(Request(n=1)) for _ in range(100)),
                running.engine.popular(1),
            )
            assert len(running.follower.threads) == 1
            assert threading.get_ident() not in running.follower.threads

    run(test())


def test_updates_are_prepared_by_another_thread_than_answers() -> None:
    async def test() -> None:
        async with Running() as running:
            prepared: list[int] = []
            running.follower.prepare = lambda: prepared.append(  # type: ignore[method-assign]
                threading.get_ident()
            )
            token = running.updates.acquire()
            running.updates.append(StoredUpdate(1, 1, 0, "", b"", b""), token)
            async with asyncio.timeout(10):
                while not prepared:
                    await asyncio.sleep(0.001)
            assert not set(prepared) & running.follower.threads

    run(test())


def test_an_update_that_could_not_be_prepared_is_tried_again() -> None:
    async def test() -> None:
        async with Running() as running:
            tries: list[int] = []

            def prepare() -> None:
                tries.append(len(tries))
                if len(tries) == 1:
                    raise LogError("the disk is busy")

            running.follower.prepare = prepare  # type: ignore[method-assign]
            token = running.updates.acquire()
            running.updates.append(StoredUpdate(1, 1, 0, "", b"", b""), token)
            async with asyncio.timeout(30):
                while len(tries) < 2:
                    await asyncio.sleep(0.01)

    run(test())


def test_what_no_answer_waits_for_is_done_while_nobody_asks() -> None:
    async def test() -> None:
        async with Running() as running:
            running.follower.due = 50
            running.events.append([view("a")], 1.0)
            async with asyncio.timeout(5):
                while running.follower.due:
                    await asyncio.sleep(0.001)

    run(test())


def test_an_answer_does_not_wait_for_what_no_answer_waits_for() -> None:
    async def test() -> None:
        async with Running() as running:
            running.follower.due = 1_000_000_000
            async with asyncio.timeout(5):
                for _ in range(20):
                    await running.engine.recommend(Request(n=1))
            assert 0 < running.follower.due < 1_000_000_000
            running.follower.due = 0

    run(test())


def test_what_was_appended_here_is_folded_without_a_look_at_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def blind(_: int, timeout: float) -> bool:
        time.sleep(timeout)
        return False

    async def test() -> None:
        async with Running() as running:
            monkeypatch.setattr(running.events, "wait", blind)
            await asyncio.sleep(0.3)  # until nobody watches
            offset = running.events.append([view("a")], 1.0)[-1].offset
            await asyncio.sleep(0.3)
            assert running.engine.standing.offset < offset
            running.engine.appended()
            async with asyncio.timeout(5):
                while running.engine.standing.offset < offset:
                    await asyncio.sleep(0.001)

    run(test())


def test_waiting_requests_are_answered_together_and_in_bounded_batches() -> None:
    gate = threading.Event()

    def slow(_: Sequence[Request]) -> None:
        gate.wait(10)

    async def test() -> None:
        async with Running(before_answer=slow) as running:
            asked = [
                asyncio.create_task(running.engine.recommend(Request(n=n + 1))) for n in range(150)
            ]
            await asyncio.sleep(0.05)
            gate.set()
            await asyncio.gather(*asked)
            assert sum(running.follower.batches) == 150
            assert max(running.follower.batches) == BATCH
            assert len(running.follower.batches) <= 4

    run(test())


def test_every_answer_goes_to_the_request_that_asked() -> None:
    async def test() -> None:
        async with Running() as running:
            running.events.append([view(f"item-{n}") for n in range(300)], 1.0)
            answers = await asyncio.gather(
                *(running.engine.recommend(Request(n=n)) for n in range(1, 300))
            )
            assert [len(answer.items) for answer in answers] == list(range(1, 300))

    run(test())


def test_the_state_folds_without_requests() -> None:
    async def test() -> None:
        async with Running() as running:
            offset = running.events.append([view("a")], 1.0)[-1].offset
            async with asyncio.timeout(5):
                while running.engine.standing.offset < offset:
                    await asyncio.sleep(0.001)

    run(test())


def test_an_idle_engine_sleeps() -> None:
    folds = 0

    def count() -> None:
        nonlocal folds
        folds += 1

    async def test() -> None:
        async with Running(before_fold=count):
            await asyncio.sleep(0.1)
            before = folds
            await asyncio.sleep(1.2)
            assert folds == before

    run(test())


def test_where_no_update_comes_the_rest_is_done() -> None:
    async def test() -> None:
        async with Running() as running:
            running.follower.left = 5
            async with asyncio.timeout(5):
                while running.follower.left or running.follower.due:
                    await asyncio.sleep(0.001)

    run(test())


def test_min_offset_waits_for_the_offset() -> None:
    async def test() -> None:
        async with Running() as running:
            asked = asyncio.create_task(running.engine.recommend(Request(n=1), min_offset=2))
            running.events.append([view("a")], 1.0)
            await asyncio.sleep(0.05)
            assert not asked.done()
            running.events.append([view("b")], 1.0)
            assert first(await asked) == "b"

    run(test())


def test_min_offset_gives_up_and_others_are_served_meanwhile() -> None:
    async def test() -> None:
        async with Running(wait_seconds=0.2) as running:
            running.events.append([view("a")], 1.0)
            started = time.monotonic()
            asked = asyncio.create_task(running.engine.recommend(Request(n=1), min_offset=99))
            assert first(await running.engine.recommend(Request(n=1))) == "a"
            assert not asked.done()
            with pytest.raises(Unavailable, match=r"min_offset 99 .* holds offset 1") as error:
                await asked
            assert error.value.kind == "offset-not-reached"
            assert 0.2 <= time.monotonic() - started < 2.0

    run(test())


def test_a_full_queue_sheds_and_recovers() -> None:
    gate = threading.Event()

    def slow(_: Sequence[Request]) -> None:
        gate.wait(10)

    async def test() -> None:
        async with Running(max_queue=3, before_answer=slow) as running:
            asked = [asyncio.create_task(running.engine.recommend(Request(n=1))) for _ in range(3)]
            await asyncio.sleep(0.02)
            for ask in (running.engine.recommend(Request(n=1)), running.engine.popular(1)):
                with pytest.raises(Unavailable) as error:
                    await ask
                assert error.value.kind == "queue-full"
            gate.set()
            await asyncio.gather(*asked)
            await running.engine.recommend(Request(n=1))

    run(test())


def test_what_would_wait_too_long_is_shed_at_once_and_a_handful_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, cost = [0.0], [0.01]
    gate = threading.Event()

    def answering(requests: Sequence[Request]) -> None:
        gate.wait(10)
        clock[0] += cost[0] * len(requests)

    async def burst(running: Running, n: int) -> int:
        """How many of n requests, all of which come before one is answered, are shed."""
        gate.clear()
        first = asyncio.create_task(running.engine.recommend(Request(n=1)))
        while not running.engine._asks.n_open or running.engine._asks._fresh:
            await asyncio.sleep(0.001)
        asked = [asyncio.create_task(running.engine.recommend(Request(n=1))) for _ in range(n - 1)]
        await asyncio.sleep(0)
        gate.set()
        found = await asyncio.gather(first, *asked, return_exceptions=True)
        shed = [one for one in found if isinstance(one, Unavailable)]
        assert {one.kind for one in shed} <= {"queue-full"}
        return len(shed)

    async def test() -> None:
        async with Running(max_wait=0.195, before_answer=answering) as running:
            assert await burst(running, 40) == 0  # Nothing is known yet.
            # 20 of 0.01 s each would keep another waiting for 0.2 s.
            assert await burst(running, 40) == 40 - 20
            cost[0] = 10.0
            for _ in range(MEASURED):
                await burst(running, ALWAYS + 1)
            assert await burst(running, 40) == 40 - ALWAYS
            # It is found out that they are fast again.
            cost[0] = 0.001
            for _ in range(MEASURED):
                await burst(running, ALWAYS + 1)
            assert await burst(running, 40) == 0

    monkeypatch.setattr("headwater.api._engine.time.perf_counter", lambda: clock[0])
    run(test())


def test_requests_that_wait_for_an_offset_count_as_waiting() -> None:
    async def test() -> None:
        async with Running(max_queue=1, wait_seconds=0.1) as running:
            asked = asyncio.create_task(running.engine.recommend(Request(n=1), min_offset=9))
            await asyncio.sleep(0.01)
            with pytest.raises(Unavailable) as error:
                await running.engine.recommend(Request(n=1))
            assert error.value.kind == "queue-full"
            with pytest.raises(Unavailable):
                await asked
            await running.engine.recommend(Request(n=1))

    run(test())


def test_a_request_that_fails_does_not_take_its_neighbours_with_it() -> None:
    gate = threading.Event()

    def poisoned(requests: Sequence[Request]) -> None:
        gate.wait(10)
        if any(request.user_id == "poison" for request in requests):
            raise ZeroDivisionError("poison")

    async def test() -> None:
        async with Running(before_answer=poisoned) as running:
            asked = [
                asyncio.create_task(running.engine.recommend(Request(n=1, user_id=user_id)))
                for user_id in ("a", "poison", "b")
            ]
            await asyncio.sleep(0.02)
            gate.set()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(answers[0], Recommendations)
            assert isinstance(answers[1], Failed)
            assert isinstance(answers[1].__cause__, ZeroDivisionError)
            assert isinstance(answers[2], Recommendations)
            await running.engine.recommend(Request(n=1))

    run(test())


def test_a_fold_that_fails_is_tried_again() -> None:
    broken = False

    def fold() -> None:
        if broken:
            raise OSError("the disk is gone")

    async def test() -> None:
        nonlocal broken
        async with Running(before_fold=fold) as running:
            broken = True
            with pytest.raises(Failed, match="catching up"):
                await running.engine.recommend(Request(n=1))
            assert running.engine.alive
            running.events.append([view("a")], 1.0)
            await asyncio.sleep(0.05)
            broken = False
            # Nothing wakes it but its own patience.
            async with asyncio.timeout(5):
                while running.engine.standing.offset < 1:
                    await asyncio.sleep(0.01)
            assert first(await running.engine.recommend(Request(n=1))) == "a"

    run(test())


def test_feedback_that_fails_is_not_the_clients_problem() -> None:
    class Broken(Feedback):
        def record(self, *_: object) -> None:
            raise OSError("the disk is full")

    async def test() -> None:
        running = Running()
        running.engine._feedback = Broken(ServedLog(None), Config())
        async with running:
            await running.engine.recommend(Request(n=1))
            await running.engine.recommend(Request(n=1))

    run(test())


def test_what_was_answered_and_clicked_reaches_feedback() -> None:
    async def test() -> None:
        async with Running() as running:
            running.events.append([view("a"), view("b")], 1.0)
            shown = await running.engine.recommend(Request(n=2, user_id="u"))
            await running.engine.recommend(Request(n=2))
            click = view("a", 9, recommendation_id=shown.recommendation_id)
            running.events.append([click], 2.0)

            def joined() -> list[tuple[int, int]]:
                return [(r.served, r.clicked) for r in running.feedback.click_through()]

            async with asyncio.timeout(5):
                while joined() != [(2, 1)]:
                    await asyncio.sleep(0.01)

    run(test())


def test_what_was_clicked_is_looked_for_now_and_then_and_not_by_every_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follow = Feedback.follow
    through: list[int] = []

    def counted(feedback: Feedback, events: Any, offset: int) -> None:
        through.append(offset)
        follow(feedback, events, offset)

    monkeypatch.setattr(Feedback, "follow", counted)
    monkeypatch.setattr(_engine, "FOLLOWED_SECONDS", 3_600.0)

    async def test() -> None:
        async with Running() as running:
            for n in range(5):
                running.events.append([view("a", n)], 1.0)
                await running.engine.recommend(Request(n=1))
            assert len(through) == 1
            monkeypatch.setattr(_engine, "FOLLOWED_SECONDS", 0.01)
            running.events.append([view("a", 5)], 1.0)
            async with asyncio.timeout(5):
                while through[-1] < 6:
                    await asyncio.sleep(0.001)
            once = len(through)
            await asyncio.sleep(0.1)
            assert len(through) == once, "nothing is new"

    run(test())


def test_the_engine_is_not_ready_before_the_log_is_folded() -> None:
    gate = threading.Event()

    async def test() -> None:
        running = Running(before_fold=lambda: gate.wait(10))
        running.events.append([view("a")], 1.0)
        running.engine.start()
        try:
            await asyncio.sleep(0.05)
            assert not running.engine.ready
            assert running.engine.alive
            with pytest.raises(Unavailable) as error:
                await running.engine.recommend(Request(n=1))
            assert error.value.kind == "not-ready"
            gate.set()
            await running.until("ready")
            assert first(await running.engine.recommend(Request(n=1))) == "a"
        finally:
            gate.set()
            await running.engine.stop()

    run(test())


def test_a_follower_that_cannot_be_made_ends_the_thread_and_says_so() -> None:
    async def test() -> None:
        running = Running()

        def broken() -> CountingFollower:
            raise ValueError("the snapshot is torn")

        running.engine._follower = broken
        running.engine.start()
        await running.until("alive", False)
        assert running.deaths == 1
        with pytest.raises(Unavailable):
            await running.engine.recommend(Request(n=1))
        await running.engine.stop()

    run(test())


def test_stopping_refuses_what_still_waits() -> None:
    async def test() -> None:
        async with Running(wait_seconds=60) as running:
            asked = asyncio.create_task(running.engine.recommend(Request(n=1), min_offset=9))
            await asyncio.sleep(0.02)
        with pytest.raises(Unavailable) as error:
            await asked
        assert error.value.kind == "stopping"
        assert not running.engine.alive
        with pytest.raises(Unavailable):
            await running.engine.recommend(Request(n=1))

    run(test())


def test_a_client_that_went_away_is_skipped() -> None:
    gate = threading.Event()
    gate.set()

    def slow(_: Sequence[Request]) -> None:
        gate.wait(10)

    async def test() -> None:
        async with Running(before_answer=slow) as running:
            gate.clear()
            busy = asyncio.create_task(running.engine.recommend(Request(n=1)))
            await asyncio.sleep(0.02)
            gone = asyncio.create_task(running.engine.recommend(Request(n=1)))
            await asyncio.sleep(0.02)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            gate.set()
            await busy
            await running.engine.recommend(Request(n=1))
            assert sum(running.follower.batches) == 2

    run(test())
