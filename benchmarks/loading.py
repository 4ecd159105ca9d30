"""Open-loop load over HTTP/1.1: requests go out on a schedule, whatever becomes of those before.

A closed loop waits for a slow answer and so asks least when the server is slowest; here a latency
counts from the time at which the request was due, in the queue for a connection too (coordinated
omission; Tene, "How NOT to Measure Latency", 2015). It is lean, since it shares the machine with
the server that it measures, and says what processor time it took itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import msgspec
import numpy as np
import uvloop

from headwater.types import Doubles, Ints

_TICK = 0.0005
"""Seconds that a request may leave early: the loop's clock goes by milliseconds, and whoever waited
for the next one would count half of one, in the median, as the server's."""

LOST = 0
"""Status of a request that got no answer: the connection broke, or the time was over."""


@dataclass(slots=True)
class Answer:
    """What a request was answered, and when, in seconds of ``time.perf_counter``."""

    kind: str
    due: float
    sent: float
    done: float
    status: int
    head: bytes
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    def json(self) -> object:
        """The decoded body."""
        return msgspec.json.decode(self.body)


@dataclass(slots=True)
class Ask:
    """A request, as ``request`` makes it, and what is to follow upon its answer.

    ``then`` may give another request, which is due at once and goes out on the same connection.
    """

    kind: str
    data: bytes
    then: Callable[[Answer], Ask | None] | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """``rate`` requests a second, evenly spaced; ``make(n)`` gives the n-th of them."""

    rate: float
    make: Callable[[int], Ask]


@dataclass
class Load:
    """What became of every request, in the order in which they were done."""

    kinds: list[str]
    due: Doubles
    """(Q,) seconds since the load began."""
    late: Doubles
    """(Q,) seconds from due to sent."""
    latencies: Doubles
    """(Q,) seconds from due to done; infinite where no answer came."""
    statuses: Ints
    """(Q,) of HTTP, or ``LOST``."""
    seconds: float
    """Of the schedule."""
    cpu_seconds: float
    """Processor time of the generator's thread, the making of requests included."""

    def of(self, kind: str) -> Load:
        """Those of one kind alone; the processor time is that of all."""
        at = np.array([name == kind for name in self.kinds], np.bool_)
        return Load(
            [kind] * int(at.sum()),
            self.due[at],
            self.late[at],
            self.latencies[at],
            self.statuses[at],
            self.seconds,
            self.cpu_seconds,
        )

    @property
    def answered(self) -> int:
        """How many were answered with a status of 2xx."""
        return int((self.statuses // 100 == 2).sum())

    def milliseconds(self, percentile: float) -> float:
        """A percentile of the latencies, infinite where that many got no answer."""
        if not len(self.latencies):
            return float("nan")
        return 1_000 * float(np.percentile(self.latencies, percentile, method="higher"))


def request(method: str, path: str, body: bytes = b"", headers: Sequence[str] = ()) -> bytes:
    """A request of HTTP/1.1 as it goes over the wire; ``headers`` are whole lines."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def load(
    host: str,
    port: int,
    streams: Sequence[Stream],
    seconds: float,
    *,
    connections: int = 64,
    grace: float = 10.0,
) -> Load:
    """Sends the streams side by side for ``seconds``, and waits ``grace`` for what is left.

    Args:
        connections: kept alive, one request at a time on each; what finds none free waits.

    Raises:
        OSError: nobody listens there.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Generator(host, port, connections).run(streams, seconds, grace))


@dataclass(slots=True, eq=False)
class _Sent:
    ask: Ask
    due: float
    sent: float = 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._needed = 0
        self.work: _Sent | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, work: _Sent) -> None:
        assert self._transport is not None
        self.work = work
        work.sent = time.perf_counter()
        self._transport.write(work.ask.data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < self._needed:
            return
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = self._received[:end]
        lower = head.lower()
        at = lower.find(b"\r\ncontent-length:")
        length = int(lower[at + 17 : lower.index(b"\r\n", at + 17)]) if at >= 0 else 0
        self._needed = end + length
        if len(self._received) < self._needed:
            return
        body = self._received[end : self._needed]
        self._received, self._needed = self._received[self._needed :], 0
        work, self.work = self.work, None
        if work is not None:
            self._generator.done(self, work, int(head[9:12]), head, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.lost(self)


class _Generator:
    def __init__(self, host: str, port: int, connections: int) -> None:
        self._host, self._port, self._connections = host, port, connections
        self._free: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._waiting: deque[_Sent] = deque()
        self._log: list[tuple[str, float, float, float, int]] = []
        self._open = 0
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._closing = False

    async def run(self, streams: Sequence[Stream], seconds: float, grace: float) -> Load:
        for _ in range(self._connections):
            await self._connect()
        started, processor = time.perf_counter(), time.thread_time()
        await asyncio.gather(*(self._schedule(stream, started, seconds) for stream in streams))
        until = time.perf_counter() + grace
        while self._open and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        cpu_seconds = time.thread_time() - processor
        self._closing = True
        left = [connection.work for connection in self._all if connection.work is not None]
        for work in [*left, *self._waiting]:
            self._log.append((work.ask.kind, work.due, work.sent or work.due, np.inf, LOST))
        for connection in self._all:
            connection.close()
        kinds = [line[0] for line in self._log]
        numbers = np.array([line[1:] for line in self._log], np.float64).reshape(-1, 4)
        due, sent, done, statuses = numbers.T
        return Load(
            kinds,
            due - started,
            sent - due,
            done - due,
            statuses.astype(np.int32),
            seconds,
            cpu_seconds,
        )

    async def _schedule(self, stream: Stream, started: float, seconds: float) -> None:
        for n in range(int(stream.rate * seconds)):
            due = started + n / stream.rate
            if n % 64 == 0:
                await asyncio.sleep(0)  # behind the schedule: answers must still be taken in
            while (pause := due - time.perf_counter()) > _TICK:
                await asyncio.sleep(pause - _TICK)
            # What left early is due when it left: a clock is no slowness of the server's.
            self._start(_Sent(stream.make(n), min(due, time.perf_counter())))

    def _start(self, work: _Sent) -> None:
        self._open += 1
        if self._free:
            self._free.pop().send(work)
        else:
            self._waiting.append(work)

    def done(
        self, connection: _Connection, work: _Sent, status: int, head: bytes, body: bytes
    ) -> None:
        now = time.perf_counter()
        ask = work.ask
        self._log.append((ask.kind, work.due, work.sent, now, status))
        self._open -= 1
        if ask.then is not None:
            answer = Answer(ask.kind, work.due, work.sent, now, status, head, body)
            following = ask.then(answer)
            if following is not None:
                self._open += 1
                connection.send(_Sent(following, now))
                return
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._free.append(connection)

    def lost(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if self._closing:
            return
        if connection.work is not None:
            work = connection.work
            self._log.append((work.ask.kind, work.due, work.sent, np.inf, LOST))
            self._open -= 1
        task = asyncio.ensure_future(self._again())
        self._reconnecting.add(task)
        task.add_done_callback(self._reconnecting.discard)

    async def _again(self) -> None:
        """Another connection in a lost one's place, as soon as somebody listens."""
        while not self._closing:
            try:
                await self._connect()
                return
            except OSError:
                await asyncio.sleep(0.05)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self), self._host, self._port
        )
        self._all.add(connection)
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._free.append(connection)
