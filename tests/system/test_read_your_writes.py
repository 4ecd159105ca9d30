"""A client that was told "accepted" sees its event in the next answer, and can check it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.system.running import System, ratings, until

EVENTS = 1_500
LEARNED_WITHIN = 15.0
"""Seconds; a second is the goal, and what a busy test machine gives is another matter."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("live"), "[recommend]\nwait_seconds = 0.3\n")
    try:
        system.start().wait_until_ready()
        for start in range(0, EVENTS, 500):
            system.post(ratings(500, start))
        system.wait_until_learned()
        yield system
    finally:
        system.end()


def users(system: System, n: int) -> list[str]:
    counted: dict[str, int] = {}
    for event in ratings(EVENTS):
        counted[event["user_id"]] = counted.get(event["user_id"], 0) + 1
    return sorted(counted, key=lambda user: (-counted[user], user))[:n]


def items_of(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def rate(system: System, user_id: str, item_id: str) -> int:
    """The offset of a new rating."""
    [result] = system.post([{"type": "rating", "user_id": user_id, "item_id": item_id, "value": 9}])
    assert result["status"] == "accepted"
    return int(result["offset"])


def test_the_next_answer_reflects_the_event(system: System) -> None:
    for user in users(system, 10):
        before = items_of(system.recommend(user))
        assert len(before) == 20
        rate(system, user, before[0])
        after = items_of(system.recommend(user))
        assert before[0] not in after
        assert after[: len(before) - 1] != before[1:], "the rest of the list moves with the history"


def test_a_new_user_and_a_new_item_are_known_with_their_first_event(system: System) -> None:
    nobody = items_of(system.recommend("newcomer"))
    rate(system, "newcomer", "brand new")
    after = items_of(system.recommend("newcomer", n=100))
    assert "brand new" not in after
    assert after[:20] != nobody
    everywhere = items_of(system.get("/v1/popular", n=100))
    assert "brand new" in everywhere


def test_the_model_has_learned_from_it_soon_and_the_answer_says_so(system: System) -> None:
    """``trained_through`` reaches the offset, and never goes back while nothing restarts."""
    waited = []
    for user in users(system, 20)[10:]:
        item = items_of(system.recommend(user))[3]
        started = time.monotonic()
        offset = rate(system, user, item)
        first = system.recommend(user, min_offset=offset)
        assert item not in items_of(first)
        seen = [(first["sequence"], first["trained_through"])]

        def learned(user: str = user, offset: int = offset, seen: list[Any] = seen) -> bool:
            answer = system.recommend(user, min_offset=offset)
            seen.append((answer["sequence"], answer["trained_through"]))
            return bool(answer["trained_through"] >= offset)

        until(learned, LEARNED_WITHIN)
        waited.append(time.monotonic() - started)
        assert seen == sorted(seen)
        assert seen[-1][0] > 0
    assert sorted(waited)[len(waited) // 2] < LEARNED_WITHIN / 3


def test_who_asks_again_is_answered_from_what_is_kept(system: System) -> None:
    [user] = users(system, 1)

    def hits(cache: str) -> float:
        text = system.client.get(f"{system.url()}/metrics").text
        return float(text.split(f'headwater_cache_hits_total{{cache="{cache}"}} ')[1].split()[0])

    before = {cache: hits(cache) for cache in ("user_vectors", "popular")}
    for _ in range(2):
        system.recommend(user)
        system.get("/v1/popular")
    assert all(hits(cache) > count for cache, count in before.items())


def test_an_offset_that_is_not_reached_in_time_is_refused(system: System) -> None:
    end = system.get("/v1/status")["end"]
    answer = httpx.get(
        f"{system.url()}/v1/users/anyone/recommendations", params={"min_offset": end + 1}
    )
    assert answer.status_code == 503
    assert f"min_offset {end + 1} was not reached" in answer.text
    assert "retry-after" in answer.headers


def test_what_was_sent_twice_counts_once(system: System) -> None:
    event = {"event_id": "once", "type": "rating", "user_id": "twice", "item_id": "i", "value": 5}
    [first], [second] = system.post([event]), system.post([event])
    assert (first["status"], second["status"]) == ("accepted", "duplicate")
    assert first["offset"] == second["offset"] == system.get("/v1/status")["end"]
