"""The answering benchmark's load generator, ladder and verdicts; no times are judged."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from benchmarks.loading import LOST, Ask, Stream, load, request
from benchmarks.recommend.__main__ import _figures
from benchmarks.recommend.answering import Run, Rung
from benchmarks.recommend.searching import Found

HOST = "127.0.0.1"


class Slow:
    """Answers each request after a pause, one at a time; the first one after a long one."""

    def __init__(self, first: float = 0.0, hang_up: bool = False) -> None:
        self.first, self.hang_up = first, hang_up
        self.seen: list[bytes] = []
        self.port = 0

    def __enter__(self) -> Slow:
        ready = threading.Event()

        async def main() -> None:
            lock = asyncio.Lock()

            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                while head := await reader.read(10_000):
                    async with lock:
                        self.seen.append(head)
                        if len(self.seen) == 1:
                            await asyncio.sleep(self.first)
                    if self.hang_up:
                        break
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nx-a: B\r\n\r\n")
                    writer.write(b'{"a": 1}')
                writer.close()

            server = await asyncio.start_server(handle, HOST, 0)
            self.port = server.sockets[0].getsockname()[1]
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await self._stop.wait()
            server.close()

        self._thread = threading.Thread(target=lambda: asyncio.run(main()))
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


def get(n):
    return Ask("get", request("GET", f"/{n}"))


def test_a_slow_answer_is_counted_for_all_that_were_due_meanwhile():
    with Slow(first=0.5) as server:
        done = load(HOST, server.port, [Stream(100, get)], 0.5, connections=4)
    assert len(server.seen) == done.answered == 50
    # Due every hundredth second, and all held up by the first one.
    held = np.sort(done.latencies)[::-1][:40]
    assert (held > 0.09).all()
    assert held[0] >= 0.5


def test_every_stream_keeps_its_own_schedule():
    with Slow() as server:
        streams = [Stream(100, get), Stream(20, lambda n: Ask("post", request("POST", "/", b"{}")))]
        done = load(HOST, server.port, streams, 0.5)
    assert (len(done.of("get").due), len(done.of("post").due)) == (50, 10)
    # What left early is due when it left, at most half a millisecond sooner.
    early = np.arange(10) / 20 - np.sort(done.of("post").due)
    assert ((early > -1e-6) & (early < 0.0006)).all()
    assert (done.late >= 0).all()


def test_what_follows_an_answer_sees_it_whole():
    answers = []

    def then(answer):
        answers.append((answer.status, answer.headers["x-a"], answer.json()))
        return Ask("again", request("GET", "/again"), lambda _: None)

    with Slow() as server:
        first = Stream(20, lambda n: Ask("first", request("GET", "/"), then))
        done = load(HOST, server.port, [first], 0.2)
    assert answers == [(200, "B", {"a": 1})] * 4
    assert sorted(done.kinds) == ["again"] * 4 + ["first"] * 4


def test_a_request_without_an_answer_has_no_end():
    with Slow(hang_up=True) as server:
        done = load(HOST, server.port, [Stream(40, get)], 0.2, grace=0.5)
    assert done.answered == 0
    assert (done.statuses == LOST).all()
    assert np.isinf(done.milliseconds(50))


# --- verdicts ------------------------------------------------------------------------------------


def run(*p99s, rates=(500, 1_500, 2_000)):
    cpu = {"api": 1.0}
    rungs = [Rung(r, float(r), 3.0, p, 0.1, cpu) for r, p in zip(rates, p99s, strict=False)]
    return Run(2.0, rungs)


def verdicts(small, large, recall=0.99):
    found = Found(0.1, 0.05, recall, 0.1, 0.98, 8, 400)
    figures = _figures({100: small, 1_000: large}, {100: found, 1_000: found})
    return [figure.met for figure in figures if figure.goal]


def test_a_rate_holds_while_its_tail_is_short_and_all_is_answered():
    assert run(5.0, 20.0, 30.0).highest == 1_500
    assert run(30.0).highest == 0
    lost = Rung(500, 400.0, 1.0, 2.0, 0.1, {})
    assert not lost.holds


@pytest.mark.parametrize(
    ("small", "large", "recall", "met"),
    [
        (run(5.0, 20.0, 30.0), run(9.0, 39.0), 0.99, [True, True, True, True]),
        (run(5.0, 26.0), run(9.0, 60.0), 0.97, [False, True, True, False]),
        (run(5.0, 20.0), run(9.0, 41.0), 0.99, [True, True, False, True]),
    ],
)
def test_goals_are_judged_by_the_median_run(small, large, recall, met):
    assert verdicts([small] * 3, [large] * 3, recall) == met
