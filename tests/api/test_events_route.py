"""POST /v1/events: what is acknowledged is in the log, and what isn't says why."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from headwater.api._events import LETTER_CHARACTERS, THREAD_BYTES
from headwater.config import Config, Serve
from headwater.errors import LogError
from headwater.log.memory import MemoryEventsLog
from headwater.types import Appended, Entry, Event
from tests.api.serving import Served, is_problem, make, until


@pytest.fixture
def served() -> Served:
    return make(Config(serve=Serve(max_events_per_request=50, max_body_bytes=200_000)))


@pytest.fixture
def client(served: Served) -> Iterator[TestClient[Litestar]]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def steady() -> Iterator[TestClient[Litestar]]:
    """A client for tests that change nothing."""
    with make().client() as client:
        yield client


def view(item_id: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"type": "view", "user_id": "u", "item_id": item_id, **fields}


def entries(served: Served) -> list[Entry]:
    return [record.entry for record in served.events.read(0, 10_000)]


def test_one_event(served: Served, client: TestClient[Litestar]) -> None:
    response = client.post("/v1/events", json=view(event_id="e1", timestamp=1_700_000_000))
    assert response.status_code == 200
    assert response.json() == {
        "accepted": 1,
        "duplicate": 0,
        "rejected": 0,
        "results": [{"event_id": "e1", "status": "accepted", "offset": 1}],
    }
    (event,) = entries(served)
    assert isinstance(event, Event)
    assert (event.event_id, event.item_id, event.timestamp) == ("e1", "a", 1_700_000_000)


def test_results_are_in_order_and_a_bad_event_spoils_nothing(
    served: Served, client: TestClient[Litestar]
) -> None:
    sent = [
        view("a", event_id="1"),
        view("b", event_id="2", value="much"),
        view("c", event_id="1"),
        {"type": "view", "item_id": "d"},
        "no event",
        view(5, event_id=6),
    ]
    answer = client.post("/v1/events", json=sent).json()
    assert (answer["accepted"], answer["duplicate"], answer["rejected"]) == (2, 1, 3)
    results = answer["results"]
    assert [result["status"] for result in results] == [
        "accepted",
        "rejected",
        "duplicate",
        "rejected",
        "rejected",
        "accepted",
    ]
    assert [result.get("offset") for result in results] == [1, None, 1, None, None, 2]
    assert [result.get("field") for result in results] == [
        None,
        "value",
        None,
        "user_id",
        "event",
        None,
    ]
    assert all(("reason" in result) == (result["status"] == "rejected") for result in results)
    assert results[1]["event_id"] == "2"
    assert [entry.item_id for entry in entries(served) if isinstance(entry, Event)] == ["a", "5"]


def test_what_is_rejected_becomes_a_dead_letter(
    served: Served, client: TestClient[Litestar]
) -> None:
    client.post("/v1/events", json=[view(), {"type": "view"}])
    is_problem(client.post("/v1/events", json=view(typo=1)), 422, "typo")
    newest, oldest = served.events.dead_letters(10)
    assert json.loads(newest.body) == view(typo=1)
    assert (newest.field, oldest.field) == ("typo", "user_id")
    assert newest.reason
    assert newest.received_at >= oldest.received_at > 1_700_000_000


def test_a_dead_letter_is_bounded(served: Served, client: TestClient[Litestar]) -> None:
    client.post("/v1/events", json=view(typo="x" * 2 * LETTER_CHARACTERS))
    assert len(served.events.dead_letters(1)[0].body) == LETTER_CHARACTERS


def test_a_single_rejected_event_is_422(client: TestClient[Litestar]) -> None:
    detail = is_problem(client.post("/v1/events", json={"type": "view"}), 422, "user_id")
    assert "anonymous_id" in detail


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"5", b"null", b'"text"', b"[1,", b"\xff", b'{"type": "\xff"}', b"[" * 100_000],
)
def test_what_cannot_be_parsed_is_400(body: bytes, steady: TestClient[Litestar]) -> None:
    is_problem(steady.post("/v1/events", content=body), 400, "body")


def test_an_empty_array_is_nothing(served: Served, client: TestClient[Litestar]) -> None:
    answer = client.post("/v1/events", content=b"[]").json()
    assert answer == {"accepted": 0, "duplicate": 0, "rejected": 0, "results": []}
    assert served.events.end() == 0


def test_sent_again_counts_once(served: Served, client: TestClient[Litestar]) -> None:
    first = client.post("/v1/events", json=[view("a", event_id="1"), view("b", event_id="2")])
    again = client.post("/v1/events", json=[view("b", event_id="2"), view("a", event_id="1")])
    assert [result["offset"] for result in first.json()["results"]] == [1, 2]
    assert [result["offset"] for result in again.json()["results"]] == [2, 1]
    assert again.json()["duplicate"] == 2
    assert served.events.end() == 2


def test_an_idempotency_key_stands_for_the_event_id(client: TestClient[Litestar]) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = client.post("/v1/events", json=view("a"), headers=headers).json()
    again = client.post("/v1/events", json=view("b"), headers=headers).json()
    assert first["results"][0] == {"event_id": "order-17", "status": "accepted", "offset": 1}
    assert again["results"][0] == {"event_id": "order-17", "status": "duplicate", "offset": 1}
    too_long = {"Idempotency-Key": "k" * 1000}
    is_problem(client.post("/v1/events", json=view(), headers=too_long), 400, "Idempotency-Key")


def test_too_many_events_and_too_many_bytes_are_413(
    served: Served, client: TestClient[Litestar]
) -> None:
    detail = is_problem(client.post("/v1/events", json=[view()] * 51), 413, "body")
    assert "at most 50" in detail
    detail = is_problem(client.post("/v1/events", content=b" " * 200_001), 413)
    assert "serve.max_body_bytes" in detail
    assert served.events.end() == 0
    assert served.events.dead_letter_count() == 0


def test_a_body_without_a_length_is_measured_too(served: Served) -> None:
    async def post() -> httpx.Response:
        async def chunks() -> Any:
            for _ in range(100):
                yield b" " * 10_000

        async with served.async_client() as client:
            return await client.post("/v1/events", content=chunks())

    is_problem(asyncio.run(post()), 413)


def test_a_client_that_goes_away_in_its_body_leaves_nothing(served: Served) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def test() -> None:
        async with served.async_client():
            scope: Any = {
                "type": "http",
                "method": "POST",
                "path": "/v1/events",
                "raw_path": b"/v1/events",
                "query_string": b"",
                "headers": [],
                "scheme": "http",
                "server": ("test", 80),
                "client": ("test", 1),
            }
            await served.app(scope, receive, send)

    asyncio.run(test())
    assert sent[0]["status"] == 500
    assert served.events.end() == 0
    assert served.events.dead_letter_count() == 0


def test_a_large_body_is_decoded_alike(served: Served, client: TestClient[Litestar]) -> None:
    sent = [view(f"item-{n}", context={"text": "x" * 2000}) for n in range(50)]
    assert len(json.dumps(sent)) > THREAD_BYTES
    answer = client.post("/v1/events", json=[*sent[:-1], {"type": "view"}]).json()
    assert (answer["accepted"], answer["rejected"]) == (49, 1)
    assert answer["results"][-1]["field"] == "user_id"
    assert served.events.end() == 49


def test_an_event_is_acknowledged_after_its_commit_only(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[Future[list[Appended]]] = []

    def submit(entries: Sequence[Entry], received_at: float) -> Future[list[Appended]]:
        commits.append(Future())
        return commits[-1]

    monkeypatch.setattr(served.events, "submit", submit)

    async def test() -> None:
        async with served.async_client() as client:
            asked = asyncio.create_task(client.post("/v1/events", json=view()))
            await asyncio.sleep(0.05)
            assert not asked.done()
            commits[0].set_result([Appended(41, False)])
            assert (await asked).json()["results"][0]["offset"] == 41

    asyncio.run(test())


def test_many_writers_at_once(served: Served) -> None:
    async def test() -> None:
        async with served.async_client() as client:
            answers = await asyncio.gather(
                *(
                    client.post("/v1/events", json=[view(f"{n}-{k}") for k in range(5)])
                    for n in range(50)
                )
            )
        offsets = [[result["offset"] for result in answer.json()["results"]] for answer in answers]
        assert sorted(offset for own in offsets for offset in own) == list(range(1, 251))
        assert all(own == sorted(own) for own in offsets)
        stored = [entry.item_id for entry in entries(served) if isinstance(entry, Event)]
        for n, own in enumerate(offsets):
            assert [stored[offset - 1] for offset in own] == [f"{n}-{k}" for k in range(5)]

    asyncio.run(test())


def test_waiting_commits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    served = make(Config(serve=Serve(max_backlog=2)))
    commits: list[tuple[Future[list[Appended]], Sequence[Entry]]] = []

    def submit(entries: Sequence[Entry], received_at: float) -> Future[list[Appended]]:
        commits.append((Future(), entries))
        return commits[-1][0]

    monkeypatch.setattr(served.events, "submit", submit)

    async def test() -> None:
        async with served.async_client() as client:
            asked = [asyncio.create_task(client.post("/v1/events", json=view())) for _ in range(2)]
            while len(commits) < 2:
                await asyncio.sleep(0.001)
            shed = await client.post("/v1/events", json=view())
            is_problem(shed, 503)
            assert shed.json()["type"] == "urn:headwater:backlog"
            assert int(shed.headers["retry-after"]) >= 1
            for future, sent in commits:
                future.set_result(served.events.append(sent, 2e9))
            assert [(await one).status_code for one in asked] == [200, 200]
            monkeypatch.undo()
            while served.engine.standing.offset < served.events.end():
                await asyncio.sleep(0.001)
            assert (await client.post("/v1/events", json=view())).status_code == 200

    asyncio.run(test())


def test_events_that_the_fold_cannot_follow_are_shed_and_none_that_were_acknowledged() -> None:
    gate = threading.Event()
    gate.set()

    def fold() -> None:
        gate.wait(10)

    served = make(Config(serve=Serve(max_backlog=10)), before_fold=fold)
    with served.client() as client:
        gate.clear()
        answers = [
            client.post("/v1/events", json=[view(f"{n}-{k}") for k in range(4)]) for n in range(9)
        ]
        taken = [n for n, answer in enumerate(answers) if answer.status_code == 200]
        assert taken == [0, 1]
        for answer in answers[2:]:
            is_problem(answer, 503)
            assert answer.json()["type"] == "urn:headwater:backlog"
            assert int(answer.headers["retry-after"]) >= 1
        assert served.events.end() == 8
        # A request is never larger than the room that there is once all the others are through.
        gate.set()
        until(lambda: served.engine.standing.offset == 8)
        whole = client.post("/v1/events", json=[view(f"whole-{k}") for k in range(40)])
        assert whole.json()["accepted"] == 40
        stored = {entry.item_id for entry in entries(served) if isinstance(entry, Event)}
        assert stored == {f"{n}-{k}" for n in taken for k in range(4)} | {
            f"whole-{k}" for k in range(40)
        }


def test_events_are_taken_in_while_nothing_can_be_folded() -> None:
    broken = threading.Event()

    def fold() -> None:
        if broken.is_set():
            raise ZeroDivisionError("a secret")

    served = make(Config(serve=Serve(max_backlog=10)), before_fold=fold)
    with served.client() as client:
        broken.set()
        assert client.post("/v1/events", json=view()).status_code == 200
        until(lambda: not served.engine.folds)
        for n in range(9):
            answer = client.post("/v1/events", json=[view(f"{n}-{k}") for k in range(4)])
            assert answer.status_code == 200
        assert served.events.end() == 37


def test_an_answer_says_how_far_learning_is_behind(
    served: Served, client: TestClient[Litestar]
) -> None:
    sent = [view(f"{n}") for n in range(5)]
    assert client.post("/v1/events", json=sent).headers["headwater-training-lag"] == "5"
    served.follower.trained_through = 4
    client.get("/v1/popular")
    assert client.post("/v1/events", json=view("x")).headers["headwater-training-lag"] == "2"


def test_learning_is_behind_what_others_appended_and_what_was_before_the_start() -> None:
    events = MemoryEventsLog()
    before = [Event(f"e{n}", "view", "u", 1.0, "mug") for n in range(40)]
    events.append(before[:30], 2e9)
    served = make(events=events)
    with served.client() as client:
        duplicate = view("mug", event_id="e0")
        assert client.post("/v1/events", json=duplicate).headers["headwater-training-lag"] == "30"
        events.append(before[30:], 2e9)
        served.engine.appended()
        until(lambda: served.engine.standing.offset == 40)
        assert client.post("/v1/events", json=duplicate).headers["headwater-training-lag"] == "40"


def test_a_log_that_fails_acknowledges_nothing(
    served: Served, client: TestClient[Litestar], monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(entries: Sequence[Entry], received_at: float) -> Future[list[Appended]]:
        failed: Future[list[Appended]] = Future()
        failed.set_exception(LogError("/secret/events.db: the disk is full"))
        return failed

    monkeypatch.setattr(served.events, "submit", submit)
    response = client.post("/v1/events", json=view())
    detail = is_problem(response, 503)
    assert "secret" not in detail
    assert "retry-after" in response.headers
    assert 'headwater_events_total{status="accepted"} 0.0' in client.get("/metrics").text


def test_events_are_counted_by_what_became_of_them(client: TestClient[Litestar]) -> None:
    client.post("/v1/events", json=[view("a", event_id="1"), view("b", event_id="1"), {}])
    client.post("/v1/events", json={})
    text = client.get("/metrics").text
    assert 'headwater_events_total{status="accepted"} 1.0' in text
    assert 'headwater_events_total{status="duplicate"} 1.0' in text
    assert 'headwater_events_total{status="rejected"} 2.0' in text


def test_an_event_shows_in_the_next_list(served: Served, client: TestClient[Litestar]) -> None:
    for n in range(20):
        client.post("/v1/events", json=[view(f"item-{n}"), view(f"item-{n}", value=1.0)])
        answer = client.get("/v1/users/u/recommendations?n=1").json()
        assert answer["items"][0]["item_id"] == f"item-{n}"
    until(lambda: served.engine.standing.offset == 40)


# --- what a click passed over --------------------------------------------------------------------


def test_a_click_is_stored_with_what_its_list_showed_above_it(
    served: Served, client: TestClient[Litestar]
) -> None:
    client.post("/v1/events", json=[view(item) for item in "abcd"])
    shown = client.get("/v1/users/u/recommendations?n=4").json()
    order = [item["item_id"] for item in shown["items"]]
    # A list is recorded behind its answer.
    until(lambda: [row.served for row in served.feedback.click_through()] == [1])
    click = view(order[2], recommendation_id=shown["recommendation_id"], position=2)
    sent = [click, click | {"position": 1}, click | {"user_id": "another"}, view("e")]
    answer = client.post("/v1/events", json=sent).json()
    assert answer["accepted"] == 4
    found = [event.passed_over for event in entries(served)[4:] if isinstance(event, Event)]
    assert found == [tuple(order[:2]), (), (), ()]
    again = client.post("/v1/events", json=click).json()
    assert again["duplicate"] == 1, "what is added to an event doesn't make it another one"


def test_a_client_cannot_say_what_was_passed_over(client: TestClient[Litestar]) -> None:
    response = client.post("/v1/events", json=view(passed_over=["b"]))
    assert "is not a known field" in is_problem(response, 422, "passed_over")


def test_a_served_log_that_fails_costs_no_event(
    served: Served, client: TestClient[Litestar], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> list[Event]:
        raise LogError("the disk is gone")

    monkeypatch.setattr(served.feedback, "passed_over", broken)
    click = view("a", recommendation_id="r", position=2)
    assert client.post("/v1/events", json=click).json()["accepted"] == 1


def test_reading_lists_appends_nothing(served: Served, client: TestClient[Litestar]) -> None:
    client.post("/v1/events", json=[view(item) for item in "abcd"])
    for _ in range(200):
        assert client.get("/v1/users/u/recommendations?n=4").is_success
    assert served.events.end() == 4


def test_what_may_have_been_dropped_is_refused(
    served: Served, client: TestClient[Litestar]
) -> None:
    early, late = 1_700_000_000, 1_700_100_000
    sent = [view(event_id=f"e{at}", timestamp=at) for at in (early, late)]
    client.post("/v1/events", json=sent)
    until(lambda: served.follower.offset == 2)
    served.events.drop(1)
    new = view(event_id="new", timestamp=late + 1_000)
    answer = client.post("/v1/events", json=[*sent, new]).json()
    assert [one["status"] for one in answer["results"]] == ["rejected", "duplicate", "accepted"]
    assert (answer["accepted"], answer["duplicate"], answer["rejected"]) == (1, 1, 1)
    refused = answer["results"][0]
    assert (refused["event_id"], refused["field"]) == (f"e{early}", "timestamp")
    assert "must be later than 2023-11-16T02:05:00Z" in refused["reason"]
    assert "log.keep_days" in refused["reason"]
    is_problem(client.post("/v1/events", json=sent[0]), 422, "timestamp")
    assert [record.offset for record in served.events.read(1, 9)] == [2, 3]
    assert client.get("/v1/status").json()["start"] == 1
