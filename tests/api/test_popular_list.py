"""The popular list that is kept: never older than the state, and never twice under one id."""

from __future__ import annotations

import re

from litestar import Litestar
from litestar.testing import TestClient

from headwater.api._popular import PopularList
from headwater.log.memory import MemoryEventsLog
from tests.api.serving import CountingFollower, make, until, view


def shown(client: TestClient[Litestar]) -> int:
    return sum(row["served"] for row in client.get("/v1/status").json()["clicks"])


def follower() -> CountingFollower:
    events = MemoryEventsLog()
    events.append([view("a"), view("b"), view("b", 1), view("c")], 1.0)
    made = CountingFollower(events)
    made.catch_up()
    return made


def test_one_state_ranks_once() -> None:
    made, kept = follower(), PopularList()
    lists = [kept.of(made, 2) for _ in range(3)]
    assert made.answered == 1
    assert (kept.hits, kept.misses) == (2, 1)
    assert len({one.recommendation_id for one in lists}) == 3
    assert [[item.item_id for item in one.items] for one in lists] == [["b", "c"]] * 3


def test_a_shorter_list_is_its_beginning_and_a_longer_one_is_new() -> None:
    made, kept = follower(), PopularList()
    longest = kept.of(made, 3)
    assert kept.of(made, 1).items == longest.items[:1] == made.popular(1).items
    assert kept.misses == 1
    assert kept.of(made, 9).items == longest.items
    assert kept.misses == 2
    assert kept.of(made, 5).items == longest.items
    assert kept.misses == 2


def test_what_is_excluded_makes_place_for_the_next() -> None:
    made, kept = follower(), PopularList()
    for exclude, shown in (("b", ["c", "a"]), ("bc", ["a"]), ("x", ["b", "c"]), ("", ["b", "c"])):
        found = kept.of(made, 2, frozenset(exclude))
        assert [item.item_id for item in found.items] == shown, exclude
    assert (kept.hits, kept.misses) == (2, 2)


def test_every_change_of_the_state_makes_a_new_one() -> None:
    made, kept = follower(), PopularList()
    kept.of(made, 3)
    made.events.append([view("a", 1), view("a", 2)], 2.0)
    made.catch_up()
    assert kept.of(made, 3).items[0].item_id == "a"
    for change in ("sequence", "version", "epoch"):
        setattr(made, change, getattr(made, change) + 1)
        answer = kept.of(made, 3)
        assert (answer.version, answer.sequence) == (made.version, made.sequence)
    assert (kept.hits, kept.misses) == (0, 5)


def test_what_was_acknowledged_is_in_the_next_list_and_the_share_is_counted() -> None:
    served = make()
    with served.client() as client:
        for k in range(5):
            client.post("/v1/events", json={"type": "view", "user_id": "u", "item_id": f"i{k}"})
            for _ in range(2):
                items = client.get("/v1/popular?n=1").json()["items"]
                assert [item["item_id"] for item in items] == [f"i{k}"]
        text = client.get("/metrics").text
        counts = dict(re.findall(r'headwater_cache_(\w+)_total\{cache="popular"\} (\d+)', text))
        assert counts == {"hits": "5", "misses": "5"}
        until(lambda: shown(client) == 10)
