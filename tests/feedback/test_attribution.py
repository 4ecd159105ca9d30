"""A click counts for the list it came from, once, however early or often it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import Config
from headwater.feedback import Feedback
from headwater.intervals import wilson
from headwater.log.memory import MemoryEventsLog
from headwater.log.served import ServedLog
from headwater.types import (
    MAX_PASSED_OVER,
    Event,
    Item,
    ItemRemoval,
    Recommendations,
    RecommendedItem,
    Record,
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedLog]:
    log = ServedLog(tmp_path / "served.db")
    yield log
    log.close()


@pytest.fixture
def feedback(served: ServedLog) -> Feedback:
    return Feedback(served, Config())


def shown(name: str, *item_ids: str, version: int = 1) -> tuple[Recommendations, str | None]:
    items = [RecommendedItem(item_id, 1.0 / (k + 1), []) for k, item_id in enumerate(item_ids)]
    return Recommendations(name, version, 9, 4, items), "u"


def click(offset: int, name: str | None, item_id: str | None, **fields: Any) -> Record:
    event = Event(
        event_id=str(offset),
        type=fields.pop("type", "click"),
        user_id="u",
        timestamp=1.0,
        item_id=item_id,
        recommendation_id=name,
    )
    return Record(offset, 1.0, 1.0, event)


def counts(feedback: Feedback, served: ServedLog) -> list[tuple[int, int, int]]:
    served.flush()
    return [(row.version, row.served, row.clicked) for row in feedback.click_through()]


def test_a_list_is_kept_as_it_was_shown(feedback: Feedback, served: ServedLog) -> None:
    feedback.record([shown("r1", "a", "b"), (shown("r2", "c")[0], None)], 17.5)
    served.flush()
    kept = served.get("r1")
    assert kept is not None
    assert (kept.user_id, kept.version, kept.sequence, kept.served_at) == ("u", 1, 9, 17.5)
    assert (kept.items, kept.scores) == (("a", "b"), (1.0, 0.5))
    other = served.get("r2")
    assert other is not None
    assert other.user_id is None


def test_a_click_counts_for_its_list(feedback: Feedback, served: ServedLog) -> None:
    feedback.record([shown("r1", "a", "b"), shown("r2", "a")], 1.0)
    feedback.observe([click(1, "r1", "b")])
    assert counts(feedback, served) == [(1, 2, 1)]


def test_a_click_before_its_list_counts_too(feedback: Feedback, served: ServedLog) -> None:
    feedback.observe([click(1, "r1", "a")])
    assert counts(feedback, served) == []
    feedback.record([shown("r1", "a")], 1.0)
    assert counts(feedback, served) == [(1, 1, 1)]


def test_a_click_counts_once_however_often_it_is_folded(
    feedback: Feedback, served: ServedLog
) -> None:
    feedback.observe([click(1, "r1", "a")])
    feedback.record([shown("r1", "a", "b")], 1.0)
    for _ in range(3):
        feedback.observe([click(1, "r1", "a"), click(2, "r1", "b"), click(2, "r1", "b")])
    assert counts(feedback, served) == [(1, 1, 1)]


@pytest.mark.parametrize(
    "record",
    [
        click(1, "r1", "never shown"),
        click(1, "another", "a"),
        click(1, "r1", None, type="search"),
        click(1, "r1", "a", type="impression"),
        click(1, "r1", "a", type="dislike"),
        click(1, "r1", "a", type="an unknown type"),
        Record(1, 1.0, 1.0, Item("a")),
        Record(1, 1.0, 1.0, ItemRemoval("a")),
    ],
)
def test_what_is_no_success_does_not_count(
    record: Record, feedback: Feedback, served: ServedLog
) -> None:
    feedback.record([shown("r1", "a")], 1.0)
    feedback.observe([record])
    assert counts(feedback, served) == [(1, 1, 0)]


@pytest.mark.parametrize("kind", ["view", "purchase", "rating"])
def test_every_positive_event_is_a_success(
    kind: str, feedback: Feedback, served: ServedLog
) -> None:
    feedback.record([shown("r1", "a")], 1.0)
    feedback.observe([click(1, "r1", "a", type=kind)])
    assert counts(feedback, served) == [(1, 1, 1)]


def test_versions_are_counted_apart_and_in_order(feedback: Feedback, served: ServedLog) -> None:
    feedback.record([shown("r2", "a", version=2), shown("r1", "a")], 1.0)
    feedback.record([shown(f"other-{n}", "a") for n in range(3)], 2.0)
    feedback.observe([click(1, "r1", "a")])
    assert counts(feedback, served) == [(1, 4, 1), (2, 1, 0)]
    old, new = feedback.click_through()
    assert old.rate == wilson(1, 4)
    assert new.rate == wilson(0, 1)


def test_nothing_is_written_for_nothing(feedback: Feedback, served: ServedLog) -> None:
    feedback.record([], 1.0)
    feedback.observe([])
    assert counts(feedback, served) == []


def test_counts_outlive_the_process(tmp_path: Path) -> None:
    feedback = Feedback(ServedLog(tmp_path / "served.db"), Config())
    feedback.record([shown("r1", "a")], 1.0)
    feedback.observe([click(1, "r1", "a")])
    feedback.close()
    again = Feedback(ServedLog(tmp_path / "served.db"), Config())
    assert [(row.served, row.clicked) for row in again.click_through()] == [(1, 1)]
    again.close()


def test_events_folded_into_a_snapshot_are_searched_after_a_restart(tmp_path: Path) -> None:
    """What another process folded while this one was down must not be lost to the click rate."""
    events = MemoryEventsLog()
    first = Feedback(ServedLog(tmp_path / "served.db"), Config())
    first.record([shown("r1", "a", "b"), shown("r2", "a", "b")], served_at=1.0)
    clicks = [
        Event(f"e{k}", "click", "u1", 2.0, item_id="a", recommendation_id=name)
        for k, name in enumerate(("r1", "r2"))
    ]
    events.append(clicks[:1], 2.0)
    first.observe(events.read(0, 1))
    first.close()
    events.append(clicks[1:], 3.0)

    again = Feedback(ServedLog(tmp_path / "served.db"), Config())
    again.follow(events, through=events.end())
    again.close()
    final = Feedback(ServedLog(tmp_path / "served.db"), Config())
    assert [(row.served, row.clicked) for row in final.click_through()] == [(2, 2)]
    final.close()


def test_what_came_before_the_first_start_is_not_searched(tmp_path: Path) -> None:
    events = MemoryEventsLog()
    events.append([Event("e", "click", "u", 2.0, item_id="a", recommendation_id="r1")], 2.0)
    feedback = Feedback(ServedLog(tmp_path / "served.db"), Config())
    feedback.follow(events, through=events.end())
    feedback.record([shown("r1", "a")], 1.0)
    feedback.close()
    again = Feedback(ServedLog(tmp_path / "served.db"), Config())
    assert [(row.served, row.clicked) for row in again.click_through()] == [(1, 0)]
    again.close()


# --- by window -----------------------------------------------------------------------------------

HOUR = 3600.0


def by(feedback: Feedback, served: ServedLog) -> list[tuple[int, int, int, int]]:
    served.flush()
    rows = feedback.click_through()
    return [(row.served, row.clicked, row.by_id, row.by_window) for row in rows]


def act(
    offset: int,
    item_id: str,
    at: float,
    user_id: str = "u",
    type: str = "view",
    imported: bool = False,
) -> Record:
    event = Event(str(offset), type, user_id, at, item_id=item_id, imported=imported)
    return Record(offset, at, at, event)


@pytest.mark.parametrize(
    ("record", "counted"),
    [
        (act(1, "b", 10.0), 1),
        (act(1, "b", 10.0 + HOUR), 1),
        (act(1, "b", 10.5 + HOUR), 0),
        (act(1, "b", 9.0), 0),
        (act(1, "c", 11.0), 0),
        (act(1, "b", 11.0, user_id="another"), 0),
        (act(1, "b", 11.0, type="dislike"), 0),
        (act(1, "b", 11.0, type="impression"), 0),
        (act(1, "b", 11.0, imported=True), 0),
    ],
)
def test_an_event_that_names_no_list_counts_for_one_shown_to_its_user_within_the_window(
    record: Record, counted: int, feedback: Feedback, served: ServedLog
) -> None:
    feedback.record([shown("r1", "a", "b")], 10.0)
    feedback.observe([record])
    assert by(feedback, served) == [(1, counted, 0, counted)]


def test_a_list_counts_once_by_what_came_first(feedback: Feedback, served: ServedLog) -> None:
    feedback.record([shown("r1", "a", "b"), shown("r2", "a", "b")], 10.0)
    feedback.observe([click(1, "r1", "a"), act(2, "a", 11.0), act(3, "b", 12.0)])
    feedback.observe([click(4, "r2", "b"), act(5, "b", 13.0)])
    assert by(feedback, served) == [(2, 2, 1, 1)]
    (row,) = feedback.click_through()
    assert row.rate == wilson(2, 2)


def test_an_act_counts_for_the_newest_list_that_showed_the_item(
    feedback: Feedback, served: ServedLog
) -> None:
    feedback.record([shown("r1", "a")], 10.0)
    feedback.record([shown("r2", "a", version=2)], 20.0)
    feedback.record([shown("r3", "b", version=3)], 30.0)
    feedback.observe([act(1, "a", 40.0), act(2, "a", 41.0)])
    assert by(feedback, served) == [(1, 0, 0, 0), (1, 1, 0, 1), (1, 0, 0, 0)]


def test_a_click_that_names_a_list_which_is_not_there_counts_for_no_other(
    feedback: Feedback, served: ServedLog
) -> None:
    feedback.record([shown("r1", "a")], 0.5)
    feedback.observe([click(1, "lost", "a")])
    assert by(feedback, served) == [(1, 0, 0, 0)]


# --- what a click passed over --------------------------------------------------------------------


def named(item_id: str | None, position: int | None, **fields: Any) -> Event:
    own = {"type": "click", "user_id": "u", "recommendation_id": "r1"} | fields
    return Event("e", timestamp=1.0, item_id=item_id, position=position, **own)


@pytest.mark.parametrize(
    ("event", "above"),
    [
        (named("c", 2), ("a", "b")),
        (named("a", 0), ()),
        (named("c", 1), ()),
        (named("c", None), ()),
        (named("c", 900), ()),
        (named("z", 2), ()),
        (named(None, 2, type="search"), ()),
        (named("c", 2, type="impression"), ()),
        (named("c", 2, type="dislike"), ()),
        (named("c", 2, user_id="another"), ()),
        (named("c", 2, recommendation_id="unknown"), ()),
        (named("c", 2, recommendation_id=None), ()),
        (named("c", 2, recommendation_id="session", user_id="another"), ("a", "b")),
    ],
)
def test_what_stood_above_a_click_was_passed_over(
    event: Event, above: tuple[str, ...], feedback: Feedback, served: ServedLog
) -> None:
    feedback.record([shown("r1", "a", "b", "c", "d"), (shown("session", *"abcd")[0], None)], 1.0)
    served.flush()
    (found,) = feedback.passed_over([event])
    assert found.passed_over == above
    assert msgspec.structs.replace(found, passed_over=()) == event


def test_only_so_many_are_said_to_be_passed_over(feedback: Feedback, served: ServedLog) -> None:
    feedback.record([shown("r1", *(f"i{n}" for n in range(100)))], 1.0)
    served.flush()
    (found,) = feedback.passed_over([named("i50", 50)])
    assert found.passed_over == tuple(f"i{n}" for n in range(50 - MAX_PASSED_OVER, 50))


# --- the interval --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert interval.value == successes / n
    assert interval.n == n


def test_nothing_seen_says_nothing() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high, wilson(0, 0).n) == (0.0, 1.0, 0)


@given(st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate_and_is_symmetric(pair: tuple[int, int]) -> None:
    successes, n = pair
    interval, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0.0 <= interval.low <= interval.value + 1e-12
    assert interval.value - 1e-12 <= interval.high <= 1.0
    assert interval.low == pytest.approx(1.0 - mirrored.high, abs=1e-9)


@given(st.integers(0, 100), st.integers(2, 1000))
def test_more_evidence_is_a_narrower_interval(percent: int, times: int) -> None:
    few, many = wilson(percent, 100), wilson(percent * times, 100 * times)
    assert many.high - many.low < few.high - few.low
