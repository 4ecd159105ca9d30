"""The real-time benchmark: the arithmetic of its figures, and that no delay can hide."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import pytest

from benchmarks.loading import LOST, Answer, Ask, Load, Stream, load, request
from benchmarks.realtime import overload
from benchmarks.realtime.figures import (
    Figure,
    at_least,
    at_most,
    number,
    percentile,
    percentile_curve,
)
from benchmarks.realtime.freshness import EVENTS, REQUESTS, Clock, Requests
from benchmarks.realtime.world import CATEGORIES, World

# --- figures --------------------------------------------------------------------------------------


def test_a_figure_is_the_median_of_its_runs_and_judged_by_it() -> None:
    figure = Figure("p99", "ms", [9.0, 30.0, 10.0], at_most(10.0))
    assert (figure.value, figure.spread, figure.met) == (10.0, (9.0, 30.0), True)
    assert Figure("p99", "ms", [9.0, 30.0, 11.0], at_most(10.0)).met is False
    assert Figure("rate", "/s", [4.9], at_least(5.0)).met is False
    assert Figure("rate", "/s", [5.0]).met is None
    assert str(at_least(50_000.0)) == "≥ 50,000"


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, q) for q in (1, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([1.0, 1000.0], 99) == 1000.0
    curve = percentile_curve("p", values)
    assert dict(zip(curve.x, curve.y, strict=True))[99.9] == 100.0


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.0123456, "0.0123"), (9.996, "10"), (1234.5, "1,234")]
)
def test_numbers_are_rounded_to_what_matters(value: float, text: str) -> None:
    assert number(value) == text


# --- freshness ------------------------------------------------------------------------------------


def test_the_load_is_the_one_that_is_asked_for() -> None:
    assert (EVENTS, REQUESTS) == (1_000, 500)
    of_schedule = sum(stream.rate for stream in Requests(World(CATEGORIES, 2)).streams())
    assert of_schedule == 300.0, "and 200 lists follow upon events"


def test_an_event_is_live_with_the_first_answer_that_says_so() -> None:
    clock = Clock(
        acknowledged=[(10.0, 5, 1), (10.2, 105, 100), (10.3, 106, 1)],
        # An answer of an older state may come behind one of a newer.
        trained=[(10.4, 5), (10.5, 105), (10.45, 3), (10.9, 105)],
    )
    at, delays = clock.live()
    assert at.tolist() == [10.0] + 100 * [10.2] + [10.3]
    assert delays[0] == pytest.approx(0.4)
    assert delays[1:101] == pytest.approx(np.full(100, 0.3))
    assert delays[101] == pytest.approx(0.6), "at least until the last answer"


def answered(body: object, done: float = 1.0) -> Answer:
    return Answer("", 0.0, 0.0, done, 200, b"", json.dumps(body).encode())


def listing(*items: str) -> dict[str, object]:
    return {"trained_through": 3, "items": [{"item_id": item} for item in items]}


def test_an_answer_that_still_offers_what_was_used_up_is_counted_as_stale() -> None:
    requests = Requests(World(CATEGORIES, 2))
    ask = requests._single(0)
    event = json.loads(ask.data.partition(b"\r\n\r\n")[2])
    assert ask.then is not None
    follow = ask.then(answered({"results": [{"status": "accepted", "offset": 7}]}))
    assert follow is not None
    assert b"min_offset=7" in follow.data
    assert follow.then is not None
    follow.then(answered(listing("other"), done=1.25))
    assert (requests.clock.reflected, requests.clock.stale) == ([0.25], 0)
    follow.then(answered(listing("other", event["item_id"])))
    assert (requests.clock.reflected, requests.clock.stale) == ([0.25], 1)


# --- overload -------------------------------------------------------------------------------------


def done(due: list[float], latencies: list[float], statuses: list[int]) -> Load:
    n = len(due)
    return Load(
        ["list"] * n,
        np.array(due),
        np.zeros(n),
        np.array(latencies),
        np.array(statuses, np.int32),
        2.0,
        0.0,
    )


def test_what_was_shed_isn_t_a_failure_and_no_latency() -> None:
    one = done([0.0, 0.1, 0.2, 0.3], [0.5, 0.001, np.inf, 2.7], [200, 503, LOST, 200])
    assert overload.accepted(one) == [500.0, 2_700.0]
    assert overload.share(one, overload.shed) == 0.25
    assert overload.share(one, overload.failed) == 0.25
    assert overload.taken(one) == pytest.approx(3.0)
    assert overload.rate_of(one) == pytest.approx(2 / 3)


def test_recovery_counts_the_backlog_and_the_last_bad_second() -> None:
    over = done([0.0], [3.0], [200])
    calm = done([0.5, 1.5, 2.5], [0.01, 0.01, 0.01], [200, 200, 200])
    slow = done([0.5, 1.5, 2.5], [0.01, 0.09, 0.01], [200, 200, 200])
    shed = done([0.5, 1.5, 2.5], [0.01, 0.01, 0.01], [200, 200, 503])
    assert overload.recovery(over, calm, 20.0) == 1.0
    assert overload.recovery(over, slow, 20.0) == 3.0
    assert overload.recovery(over, shed, 20.0) == 4.0


# --- load -----------------------------------------------------------------------------------------


@contextmanager
def stalling(seconds: float, after: int) -> Iterator[tuple[str, int]]:
    """A server that answers at once, but pauses before its ``after``-th answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    state = {"left": after}

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65_536):
                with lock:
                    state["left"] -= data.count(b"\r\n\r\n")
                    if state["left"] == 0:
                        time.sleep(seconds)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    lock = threading.Lock()
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()
    finally:
        listener.close()


def test_a_stall_shows_in_the_latency_of_everything_that_was_due_meanwhile() -> None:
    stream = Stream(200.0, lambda n: Ask("get", request("GET", "/")))
    with stalling(0.4, after=20) as (host, port):
        found = load(host, port, [stream], 1.0, connections=2)
    assert found.answered == len(found.latencies) == 200
    # 0.4 s of 200/s: about 80 requests were due, though only two were sent into the stall.
    assert (found.latencies > 0.05).sum() >= 60
    assert found.milliseconds(99) >= 300.0


# --- the made-up world ----------------------------------------------------------------------------


def test_events_of_a_world_are_of_its_users_and_items_and_the_same_for_a_seed() -> None:
    one, other = World(1_000, 50, seed=3), World(1_000, 50, seed=3)
    pairs = list(islice(one.pairs(), 2_000))
    assert pairs == list(islice(other.pairs(), 2_000))
    items = np.array([int(item[1:]) for _, item in pairs])
    assert 0 <= items.min() <= items.max() < 1_000
    assert {user for user, _ in pairs} <= {f"u{n}" for n in range(50)}
    assert (items < 100).mean() > 0.2, (
        "a tenth of the items has far more than a tenth of the events"
    )
    assert len(one.catalogue()) == 1_000
