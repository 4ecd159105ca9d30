"""The door: what is refused before it is parsed, what is not, and that both speak HTTP."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from headwater.api._admission import MOST, OF_EACH, Admission
from headwater.api._metrics import ApiMetrics
from headwater.api._protocol import Protocol, is_whole

LIST = b"GET /v1/users/ann/recommendations?n=5 HTTP/1.1\r\nHost: h\r\n\r\n"
EVENTS = b"POST /v1/events HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n[]"
STATUS = b"GET /v1/status HTTP/1.1\r\nHost: h\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Served:
    """One client's connection to an application that answers when the test lets it."""

    def __init__(self) -> None:
        self.service = SimpleNamespace(admission=Admission(0.05), metrics=ApiMetrics())
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.app.__func__.state = SimpleNamespace(service=self.service)  # type: ignore[attr-defined]
        self.config = uvicorn.Config(
            cast(Any, self.app), interface="asgi3", log_config=None, lifespan="off"
        )
        self.config.load()
        self.state = ServerState()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        await self.gate.wait()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
        )
        await send({"type": "http.response.body", "body": b""})

    def connect(self) -> tuple[Protocol, Transport]:
        protocol, transport = Protocol(self.config, self.state, {}), Transport()
        protocol.connection_made(transport)
        return protocol, transport

    def fill(self) -> None:
        for is_list in (True, False):
            while not self.service.admission.is_full(is_list):
                self.service.admission.enter(is_list)

    def count(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0


def statuses(transport: Transport) -> list[int]:
    return [int(part[:3]) for part in transport.written.split(b"HTTP/1.1 ")[1:]]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("data", [LIST, EVENTS])
def test_what_is_too_much_is_refused_without_a_task_and_says_when_to_come_again(
    data: bytes,
) -> None:
    async def test() -> None:
        served = Served()
        served.fill()
        protocol, transport = served.connect()
        for _ in range(2):
            protocol.data_received(data)
        assert not served.state.tasks
        assert statuses(transport) == [503, 503]
        head, _, body = transport.written.partition(b"\r\n\r\n")
        assert b"retry-after: 1\r\n" in head + b"\r\n"
        assert b"urn:headwater:queue-full" in body
        assert not transport.closed
        method = data.split()[0].decode()
        requests = {"method": method, "route": "none", "status": "503"}
        assert served.count("headwater_http_requests_total", **requests) == 2
        assert served.count("headwater_shed_total", reason="queue-full") == 2

    asyncio.run(test())


@pytest.mark.parametrize("cut", [5, 30, len(EVENTS) - 1])
def test_what_comes_in_parts_is_refused_all_the_same(cut: int) -> None:
    async def test() -> None:
        served = Served()
        served.fill()
        protocol, transport = served.connect()
        for _ in range(2):
            protocol.data_received(EVENTS[:cut])
            protocol.data_received(EVENTS[cut:])
            await settled()
        assert statuses(transport) == [503, 503]
        assert b"retry-after: 1\r\n" in transport.written
        assert served.asked == []
        assert served.count("headwater_shed_total", reason="queue-full") == 2

    asyncio.run(test())


def test_what_tells_how_it_stands_is_always_answered() -> None:
    async def test() -> None:
        served = Served()
        served.gate.set()
        served.fill()
        protocol, transport = served.connect()
        protocol.data_received(STATUS)
        await settled()
        assert statuses(transport) == [200]
        assert served.asked == ["/v1/status"]

    asyncio.run(test())


def test_a_request_is_in_work_until_its_answer() -> None:
    async def test() -> None:
        served = Served()
        clients = [served.connect() for _ in range(MOST)]
        for protocol, _ in clients:
            protocol.data_received(LIST)
        assert served.service.admission.is_full(True)
        served.gate.set()
        await settled()
        assert all(statuses(transport) == [200] for _, transport in clients)
        clients[0][0].data_received(EVENTS)
        await settled()
        assert statuses(clients[0][1]) == [200, 200]

    asyncio.run(test())


def test_a_client_that_goes_away_is_in_work_no_longer() -> None:
    async def test() -> None:
        served = Served()
        for _ in range(2 * MOST):
            protocol, _ = served.connect()
            protocol.data_received(LIST)
            protocol.connection_lost(None)
        assert served.service.admission.in_work == 0
        served.gate.set()
        await settled()

    asyncio.run(test())


@pytest.mark.parametrize("first", ["asks", "stops reading"])
def test_a_client_that_does_not_read_its_answer_is_in_work_no_longer(first: str) -> None:
    async def test() -> None:
        served = Served()
        protocol, transport = served.connect()
        for step in sorted(("asks", "stops reading"), key=lambda step: step != first):
            if step == "asks":
                protocol.data_received(LIST)
            else:
                protocol.pause_writing()
        in_work = served.service.admission.in_work
        served.gate.set()
        await settled()
        protocol.resume_writing()  # before anything is asserted: nothing else ends what waits
        await settled()
        assert in_work == 0
        assert statuses(transport) == [200]
        assert served.service.admission.in_work == 0
        protocol.data_received(LIST)
        await settled()
        assert statuses(transport) == [200, 200]

    asyncio.run(test())


@pytest.mark.parametrize(("stands_still", "other"), [(EVENTS, LIST), (LIST, EVENTS)])
def test_where_one_kind_stands_still_the_other_goes_on(stands_still: bytes, other: bytes) -> None:
    async def test() -> None:
        served = Served()
        for _ in range(2 * MOST):
            served.connect()[0].data_received(stands_still)
        assert served.service.admission.in_work == MOST
        served.asked.clear()
        clients = [served.connect() for _ in range(OF_EACH + 1)]
        for protocol, _ in clients:
            protocol.data_received(other)
        await settled()
        assert [statuses(transport) for _, transport in clients] == [[]] * OF_EACH + [[503]]
        served.gate.set()
        await settled()
        assert [statuses(transport) for _, transport in clients[:-1]] == [[200]] * OF_EACH
        assert served.service.admission.in_work == 0

    asyncio.run(test())


def test_a_length_that_only_the_parser_understands_is_left_to_it() -> None:
    async def test() -> None:
        served = Served()
        served.fill()
        protocol, transport = served.connect()
        served.gate.set()
        long = EVENTS.replace(b"Length: 2", b"Length: 1000000000").removesuffix(b"[]")
        protocol.data_received(long)
        protocol.data_received(STATUS)  # what a proxy takes for the body
        await settled()
        assert served.asked == []
        assert statuses(transport) == [503]

    asyncio.run(test())


def test_what_is_half_sent_and_what_waits_for_an_offset_is_not_in_work() -> None:
    async def test() -> None:
        served = Served()
        for _ in range(MOST):
            served.connect()[0].data_received(EVENTS[:-1])
            served.connect()[0].data_received(LIST.replace(b"n=5", b"min_offset=9"))
        assert served.service.admission.in_work == 0
        served.gate.set()
        await settled()

    asyncio.run(test())


def test_requests_that_are_sent_at_once_are_answered_in_their_order() -> None:
    async def test() -> None:
        served = Served()
        protocol, transport = served.connect()
        protocol.data_received(STATUS)
        served.fill()
        protocol.data_received(LIST)  # not before the answer to the first
        assert transport.written == b""
        served.gate.set()
        await settled()
        assert statuses(transport) == [200, 503]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (LIST, True),
        (EVENTS, True),
        (LIST.replace(b"Host", b"Connection: keep-alive\r\nHost"), True),
        (LIST[:-1], False),
        (EVENTS[:-1], False),
        (LIST + LIST, False),
        (EVENTS + b"x", False),
        (EVENTS.replace(b"Length: 2", b"Length: 2\r\ncontent-length: 2"), False),
        (EVENTS.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked"), False),
        (LIST.replace(b"Host", b"connection: Close\r\nHost"), False),
        (EVENTS.replace(b"Host", b"Expect: 100-continue\r\nHost"), False),
        (LIST.replace(b"1.1", b"1.0"), False),
        (EVENTS.replace(b"Length: 2", b"Length: 1000000000"), False),
        (EVENTS.replace(b"Length: 2", b"Length: 0000000002"), False),
        (EVENTS.replace(b"Length: 2", b"Length: 2, 2"), False),
        (EVENTS.replace(b"Length: 2", b"Length : 2"), False),
        (LIST.replace(b"Host: h", b"Host: h\nTransfer-Encoding: chunked"), False),
        (LIST.replace(b"Host: h", b"Host: h\r\n Content-Type: x"), False),
        (b"", False),
    ],
)
def test_only_what_is_one_request_and_nothing_else_is_refused_unparsed(
    data: bytes, whole: bool
) -> None:
    assert is_whole(data) == whole
