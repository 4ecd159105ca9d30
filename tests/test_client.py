"""The client against the application itself, over a network that loses what it is told to."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from msgspec.structs import replace

import headwater
from headwater.client import AsyncClient, Client, _exchange
from headwater.config import Config, Serve
from headwater.errors import HeadwaterError, Rejected, Unreachable
from headwater.types import Appended, Event, Item, ItemRemoval, User, UserRemoval
from tests.api.serving import Served, make, until

Fault = Callable[[httpx.Request], httpx.Response | None]


def lost_request(_: httpx.Request) -> httpx.Response | None:
    raise httpx.ConnectError("connection refused")


def lost_answer(_: httpx.Request) -> httpx.Response | None:
    return None


def refusing(status: int, **headers: str) -> Fault:
    return lambda _: httpx.Response(status, headers=headers, json={"detail": "not now"})


class Network(httpx.BaseTransport):
    """Sends on to ``inner``; the first requests meet one of ``faults`` each."""

    def __init__(self, inner: httpx.BaseTransport, *faults: Fault) -> None:
        self.inner = inner
        self.faults = list(faults)
        self.sent: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        if not self.faults:
            return self.inner.handle_request(request)
        fault = self.faults.pop(0)
        answer = fault(request)
        if answer is None:
            self.inner.handle_request(request)
            raise httpx.ReadError("connection reset")
        return answer


class AsyncNetwork(httpx.AsyncBaseTransport):
    """Loses the first answer."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        answer = await self.inner.handle_async_request(request)
        if len(self.sent) == 1:
            raise httpx.ReadError("connection reset")
        return answer


@contextmanager
def shop(
    *faults: Fault, config: Config | None = None, **options: Any
) -> Iterator[tuple[Client, Served, Network]]:
    served = make(config)
    with served.client() as test_client:
        network = Network(test_client._transport, *faults)
        with Client("http://test", transport=network, **options) as client:
            yield client, served, network


@asynccontextmanager
async def async_shop() -> AsyncIterator[tuple[AsyncClient, Served, AsyncNetwork]]:
    served = make()
    network = AsyncNetwork(httpx.ASGITransport(app=cast(Any, served.app)))
    async with served.app.lifespan(), AsyncClient("http://test", transport=network) as client:
        while not served.engine.ready:
            await asyncio.sleep(0.001)
        yield client, served, network


def view(item_id: str, user_id: str = "ada", **fields: Any) -> dict[str, Any]:
    return {"type": "view", "user_id": user_id, "item_id": item_id, **fields}


# --- what is sent, and what comes back -----------------------------------------------------------


def test_events_go_in_and_lists_come_out() -> None:
    with shop() as (client, served, _):
        assert client.send([view("mug"), view("pot"), view("pot")]) == [
            Appended(1, False),
            Appended(2, False),
            Appended(3, False),
        ]
        found = client.recommend("ada", n=1, min_offset=3)
        assert [item.item_id for item in found.items] == ["pot"]
        assert (found.version, found.sequence) == (1, 7)
        found = client.recommend("ada", exclude={"pot"})
        assert [item.item_id for item in found.items] == ["mug"]
        assert [item.item_id for item in client.recommend_session(["pot"]).items] == ["mug"]
        assert [item.item_id for item in client.popular(1).items] == ["pot"]
        assert [item.item_id for item in client.similar_items("pot", min_offset=3).items] == ["mug"]
        assert client.similar_items("pot", 5, exclude=["mug", "a,b"]).items == []
        assert client.similar_users("ada", min_offset=3).users == []
        client.send(view("mug", "bob/../?"))
        (like,) = client.similar_users("ada").users
        assert (like.user_id, like.similarity) == ("bob/../?", 0.5)
        assert client.similar_users(like.user_id).users[0].user_id == "ada"
        with pytest.raises(HeadwaterError, match="there is no item nothing"):
            client.similar_items("nothing")
        assert client.status().end == served.events.end() == 4


def test_an_event_arrives_as_it_was() -> None:
    event = Event("e-1", "rating", "ada", 1e9, "mug", value=4.0, context={"page": "home"})
    with shop() as (client, served, _):
        assert client.send(event) == [Appended(1, False)]
        assert served.events.read(0, 1)[0].entry == event
        assert client.send(event) == [Appended(1, True)]


def test_an_event_that_was_stored_is_sent_without_what_the_server_fills_in() -> None:
    event = Event("e-1", "view", "ada", 1e9, "mug")
    stored = replace(event, source="web", imported=True, passed_over=("pot",))
    with shop() as (client, served, _):
        assert client.send(stored) == [Appended(1, False)]
        assert served.events.read(0, 1)[0].entry == event


def test_ids_hold_what_they_like() -> None:
    with shop() as (client, served, _):
        for name in ("a/b", ".", "..", "ü?&=#%2F", "a,b"):
            client.send(view(name, name))
            stored = cast(Event, served.events.read(served.events.end() - 1, 1)[0].entry)
            assert (stored.user_id, stored.item_id) == (name, name)
            names = {item.item_id for item in client.recommend(name, exclude=[name]).items}
            assert name not in names
            assert client.explain(name).user_id == name
            client.similar_users(name)
            assert client.similar_items(name).item_id == name
            client.remove_user(name)
            client.remove_item(name)
            removed = [record.entry for record in served.events.read(served.events.end() - 2, 2)]
            assert removed == [UserRemoval(name), ItemRemoval(name)]


def test_items_are_set() -> None:
    mug = Item("mug", "Enamel mug", ("kitchen",), attributes={"colour": ["red"]}, available=False)
    with shop() as (client, served, _):
        assert client.put_item(mug) == Appended(1, False)
        assert client.put_items([Item("pot"), Item("tent")])[-1].offset == 3
        assert served.events.read(0, 1)[0].entry == mug


def test_users_are_set_and_items_and_users_removed() -> None:
    ada = User("ada/1", {"plan": "gold", "likes": ["tea"]})
    with shop(refusing(503)) as (client, served, _):
        assert client.put_user(ada) == Appended(1, False)
        assert client.put_users([User("bob"), User("cid")])[-1].offset == 3
        client.put_item(Item("pot"))
        assert client.remove_user("ada/1") == Appended(5, False)
        assert client.remove_item("pot") == Appended(6, False)
        stored = [record.entry for record in served.events.read(0, 9)]
        assert stored[0] == ada
        assert stored[-2:] == [UserRemoval("ada/1"), ItemRemoval("pot")]


def test_many_go_in_parts_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_exchange, "ENTRIES_PER_REQUEST", 3)
    with shop() as (client, served, network):
        placed = client.send([view(f"i{k}") for k in range(7)])
        assert [one.offset for one in placed] == list(range(1, 8))
        assert len(network.sent) == 3
        items = [cast(Event, record.entry).item_id for record in served.events.read(0, 9)]
        assert items == [f"i{k}" for k in range(7)]
        assert client.send([]) == []


def test_long_entries_go_in_parts_that_a_server_takes() -> None:
    vector = [k / 7 for k in range(1, 769)]
    items = [Item(f"i{k}", vectors={"text": vector}) for k in range(600)]
    with shop() as (client, served, network):
        assert [one.offset for one in client.put_items(items)] == list(range(1, 601))
        stored = [record.entry for record in served.events.read(0, 1_000)]
        assert [cast(Item, entry).item_id for entry in stored] == [one.item_id for one in items]
        assert max(len(request.content) for request in network.sent) < 4_100_000


@pytest.mark.parametrize("serve", [{"max_events_per_request": 3}, {"max_body_bytes": 1_000}])
def test_what_a_server_calls_too_large_goes_in_smaller_parts(serve: dict[str, int]) -> None:
    with shop(config=Config.model_validate({"serve": serve})) as (client, served, network):
        placed = client.send([view(f"i{k}") for k in range(30)])
        assert [one.offset for one in placed] == list(range(1, 31))
        entries = [cast(Event, record.entry) for record in served.events.read(0, 99)]
        assert [entry.item_id for entry in entries] == [f"i{k}" for k in range(30)]
        assert len(network.sent) <= 15, "what was too large once isn't tried again"
        if "max_body_bytes" in serve:
            with pytest.raises(HeadwaterError, match="answers 413"):
                client.send([view("i"), view("i" * 1_000)])


def test_a_refused_event_is_named_and_the_others_are_stored() -> None:
    with shop() as (client, served, _):
        with pytest.raises(Rejected, match="valeu is not a known field") as caught:
            client.send([view("mug"), view("pot", valeu=1), view("tent")])
        assert caught.value.field == "valeu"
        assert "did you mean value?" in caught.value.reason
        first, second, third = caught.value.results
        assert (first, third) == (Appended(1, False), Appended(2, False))
        assert isinstance(second, Rejected)
        assert served.events.end() == 2


def test_a_refused_request_names_its_field() -> None:
    with shop() as (client, _, network):
        with pytest.raises(Rejected, match=r"^n must be from 1 to") as caught:
            client.recommend("ada", n=0)
        assert caught.value.field == "n"
        assert len(network.sent) == 1


def test_the_key() -> None:
    locked = Config(serve=Serve(api_key="a-long-enough-key"))
    with shop(config=locked) as (client, _, network):
        with pytest.raises(HeadwaterError, match="API key is missing or wrong"):
            client.popular()
        assert len(network.sent) == 1
    with shop(config=locked, api_key="a-long-enough-key") as (client, _, _):
        assert client.popular().items == []


# --- trying again --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [lost_request, lost_answer, refusing(429), refusing(503)], ids=lambda f: f.__name__
)
def test_sent_twice_counted_once(fault: Fault) -> None:
    with shop(fault, fault) as (client, served, network):
        placed = client.send([view("mug"), view("mug")])
        assert [one.offset for one in placed] == [1, 2]
        assert len(network.sent) == 3
        assert len({request.content for request in network.sent}) == 1
        assert served.events.end() == 2
        until(lambda: served.follower.offset == 2)
        assert served.follower.counts == {"mug": 2}


def test_the_asynchronous_client_does_the_same() -> None:
    async def scenario() -> None:
        async with async_shop() as (client, served, network):
            assert await client.send(view("mug")) == [Appended(1, True)]
            assert len(network.sent) == 2
            assert served.events.end() == 1
            assert (await client.put_item(Item("pot"))).offset == 2
            with pytest.raises(Rejected, match="item_id is missing"):
                await client.send([{"type": "view", "user_id": "ada"}])
            found = await client.recommend("ada", n=1, exclude=["pot"], min_offset=2)
            assert [item.item_id for item in found.items] == ["mug"]
            assert (await client.recommend_session(["mug"])).items[0].item_id == "pot"
            assert (await client.popular(1)).items[0].item_id == "mug"
            assert (await client.similar_items("mug")).items[0].item_id == "pot"
            assert (await client.similar_users("ada")).user_id == "ada"
            assert (await client.status()).end == 2
            assert (await client.put_user(User("ada"))).offset == 3
            assert (await client.remove_user("ada")).offset == 4
            assert (await client.remove_item("pot")).offset == 5

    asyncio.run(scenario())


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)


def test_retry_after_is_honoured() -> None:
    with shop(refusing(503, **{"Retry-After": "1"})) as (client, _, network):
        started = time.monotonic()
        client.popular()
        assert 1.0 <= time.monotonic() - started < 3.0
        assert len(network.sent) == 2


def test_retry_after_may_be_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    with (
        shop(refusing(503, **{"Retry-After": later})) as (client, _, network),
        pytest.raises(Unreachable, match="answers 503: not now"),
    ):
        client.popular()
    assert len(network.sent) == 1


def test_pauses_grow_and_patience_ends() -> None:
    with shop(*[lost_request] * 50, patience=1.0) as (client, served, network):
        started = time.monotonic()
        with pytest.raises(Unreachable, match="http://test doesn't answer: connection refused"):
            client.send(view("mug"))
        assert time.monotonic() - started < 2.0
        assert 3 <= len(network.sent) <= 6  # pauses of 0.1, 0.2, 0.4 …, each from half of it up
        assert served.events.end() == 0


def test_without_patience_nothing_is_tried_again() -> None:
    with shop(lost_request, patience=0.0) as (client, _, network):
        with pytest.raises(Unreachable):
            client.popular()
        assert len(network.sent) == 1


def test_what_is_no_server_is_said_at_once() -> None:
    with Client("localhost:8080") as client, pytest.raises(HeadwaterError, match="can't be asked"):
        client.popular()
    for answer in (httpx.Response(200, text="<html>"), httpx.Response(404, text="<html>")):
        with (
            Client(transport=httpx.MockTransport(lambda _, a=answer: a)) as client,
            pytest.raises(HeadwaterError, match="answers"),
        ):
            client.popular()


# --- what the pages show -------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
EXAMPLES = [
    (page, code)
    for page in ("README.md", "docs/client.md")
    for code in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_an_example_runs(
    page: str, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with make().client() as test_client:
        connected = functools.partial(Client, transport=Network(test_client._transport))
        monkeypatch.setattr(headwater, "Client", connected)
        exec(compile(code, page, "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[-1] in {
        "learned through 0 of 1",
        "pot None 0.0",
        "item - is not a known field; did you mean item_id?",
    }
