"""Which impressions were ignored: that depends on the events and their times alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import Config
from headwater.deploy import state_digest
from headwater.feedback import Impressions
from headwater.model import gap_buckets
from headwater.preprocess import Preprocessor
from headwater.types import Entry, Event, Gone, Labels, Record, State, UserRemoval

MINUTE = 60.0
LENGTH = 5
START = 3600.0 * 1000


class Stream:
    """The fold of entries at minutes, and what it has said so far."""

    def __init__(self, admit_users_after: int = 1, **feedback: Any) -> None:
        preprocess = {"history_length": LENGTH, "admit_users_after": admit_users_after}
        self.config = Config.model_validate({"preprocess": preprocess, "feedback": feedback})
        self.preprocess = Preprocessor(self.config)
        self.impressions = Impressions(self.config, self.preprocess.type_names)
        self.offset = 0

    def see(self, *entries: tuple[float, Entry]) -> None:
        records = []
        for minute, entry in entries:
            self.offset += 1
            at = START + minute * MINUTE
            records.append(Record(self.offset, at, at, entry))
        batch, _ = self.preprocess.batch(records)
        known = self.preprocess
        self.impressions.observe(batch, records, known.items.find, known.users.find)

    def take(self) -> list[tuple[str, float]]:
        return named(self, self.impressions.take())


def named(stream: Stream, labels: Labels) -> list[tuple[str, float]]:
    ids = [stream.preprocess.items.id(row) for row in labels.items.tolist()]
    weights = [round(weight, 4) for weight in labels.weights.tolist()]
    return list(zip(ids, weights, strict=True))


def event(type: str, item_id: str, user_id: str = "u", **fields: Any) -> Event:
    return Event("e", type, user_id, 0.0, item_id=item_id, **fields)


def shown(item_id: str, position: int | None = None, list_: str | None = "r", user_id: str = "u"):
    return event("impression", item_id, user_id, recommendation_id=list_, position=position)


def started(*users: str, **feedback: Any) -> Stream:
    """A stream in which users (``u``) have a history of one item."""
    stream = Stream(**feedback)
    stream.see(*((0, event("view", "old", user)) for user in users or ("u",)))
    return stream


TICK = event("view", "elsewhere", "somebody")


# --- by time -------------------------------------------------------------------------------------


def test_an_impression_is_ignored_once_its_time_is_over() -> None:
    stream = started(ignore_after_minutes=30)
    stream.see((1, shown("a")), (31, TICK))
    assert stream.take() == []
    stream.see((31.1, TICK))
    assert stream.take() == [("a", -0.1)]
    stream.see((500, TICK))
    assert stream.take() == [], "once"


@pytest.mark.parametrize("type", ["view", "purchase", "rating"])
def test_what_was_acted_on_in_time_was_not_ignored(type: str) -> None:
    stream = started()
    stream.see((1, shown("a")), (2, shown("b")), (31, event(type, "a")), (500, TICK))
    assert stream.take() == [("b", -0.1)]


@pytest.mark.parametrize(
    "other", [event("dislike", "a"), event("skip", "a"), event("view", "a", "v"), shown("a")]
)
def test_nothing_else_says_that_it_was_wanted(other: Event) -> None:
    stream = started()
    stream.see((1, shown("a")), (2, other), (500, TICK))
    assert stream.take() == [("a", -0.1)]


def test_the_label_stands_beside_the_history_before_the_impression() -> None:
    stream = started()
    stream.see((1, event("click", "next")), (5, shown("a")), (6, event("view", "later")))
    stream.see((500, TICK))
    labels = stream.impressions.take()
    rows = [stream.preprocess.items.find(id) for id in ("old", "next")]
    assert labels.history_items.tolist() == [[-1] * (LENGTH - 2) + rows]
    types = [stream.preprocess.type_names[code] for code in labels.history_types[0, -2:]]
    assert types == ["view", "click"]
    times = np.array([[START, START + MINUTE]])
    expected = gap_buckets(times, np.zeros((1, 2), np.int32), np.array([START + 5 * MINUTE]))
    assert labels.history_gaps[0, -2:].tolist() == expected[0].tolist()


def test_a_user_without_a_history_teaches_nothing() -> None:
    stream = Stream()
    stream.see((1, shown("a")), (500, TICK))
    assert stream.take() == []


def test_users_that_are_not_admitted_yet_are_passed_over() -> None:
    stream = Stream(admit_users_after=3)
    stream.see((1, shown("a")), (2, event("click", "b", "v")), (3, event("click", "c", "w")))
    assert stream.take() == []
    stream.see(*((4, event("view", "old")) for _ in range(3)), (5, shown("a")), (500, TICK))
    assert stream.take() == [("a", -0.1)]


def test_what_the_user_has_just_acted_on_is_not_taken_up() -> None:
    stream = started()
    stream.see((1, event("click", "a")), (2, shown("a")), (500, TICK), (501, shown("a")))
    stream.see((600, TICK))
    assert stream.take() == [("a", -0.1)], "only the second time"


def test_one_that_waits_is_not_taken_up_again() -> None:
    stream = started()
    stream.see(*((n, shown("a", list_=f"r{n}")) for n in range(1, 10)), (500, TICK))
    stream.see((501, shown("a", list_="r1")), (900, TICK))
    assert stream.take() == [("a", -0.1)], "nor one of the same list ever"
    stream.see((901, shown("a", list_="new")), (1500, TICK))
    assert stream.take() == [("a", -0.1)]


# --- by position ---------------------------------------------------------------------------------


def test_what_stands_above_a_click_was_ignored_at_once() -> None:
    stream = started()
    stream.see(*((1, shown(id, position)) for position, id in enumerate("abcd")))
    stream.see((2, event("click", "c", recommendation_id="r", position=2)))
    assert stream.take() == [("a", -0.1), ("b", -0.1)]
    stream.see((500, TICK))
    assert stream.take() == [("d", -0.1)]


def test_the_impression_says_where_a_click_without_a_position_was() -> None:
    stream = started()
    stream.see(*((1, shown(id, position)) for position, id in enumerate("abc")))
    stream.see((2, event("click", "b", recommendation_id="r")))
    assert stream.take() == [("a", -0.1)]


def test_a_click_in_another_list_says_nothing_of_this_one() -> None:
    stream = started()
    stream.see((1, shown("a", 0)), (1, shown("b", 1)))
    stream.see((2, event("click", "b", recommendation_id="other", position=1)))
    stream.see((2, event("click", "c", position=1)))
    assert stream.take() == []


def test_what_was_clicked_itself_was_not_passed_over() -> None:
    stream = started()
    stream.see(*((1, shown(id, position)) for position, id in enumerate("abc")))
    stream.see((2, event("click", "a", recommendation_id="r", position=0)))
    stream.see((3, event("click", "c", recommendation_id="r", position=2)))
    assert stream.take() == [("b", -0.1)]


def test_without_impressions_the_event_itself_says_what_was_passed_over() -> None:
    stream = started()
    stream.see(*((0, event("view", id, "v")) for id in "abc"))
    fields: dict[str, Any] = {"recommendation_id": "r", "position": 3}
    stream.see((2, event("click", "a", recommendation_id="r", position=0)))
    stream.see((3, event("click", "d", passed_over=("a", "b", "unknown", "c"), **fields)))
    assert stream.take() == [("b", -0.1), ("c", -0.1)]
    stream.see((4, event("click", "e", passed_over=("a", "b", "c", "d"), **fields)))
    stream.see((500, TICK))
    assert stream.take() == [], "once per list, and nothing that was clicked"


def test_both_ways_to_say_it_are_one_label() -> None:
    stream = started()
    stream.see((1, shown("a", 0)), (1, shown("b", 1)))
    click = event("click", "b", recommendation_id="r", position=1, passed_over=("a",))
    stream.see((2, click), (500, TICK))
    assert stream.take() == [("a", -0.1)]


# --- taking it back ------------------------------------------------------------------------------


def test_a_late_action_takes_the_label_back_beside_the_same_history() -> None:
    stream = started()
    stream.see((1, shown("a")), (40, TICK))
    taught = stream.impressions.take()
    stream.see((50, event("view", "between")), (60, event("view", "a")))
    back = stream.impressions.take()
    assert named(stream, taught) == [("a", -0.1)]
    assert named(stream, back) == [("a", 0.2)]
    assert np.array_equal(taught.history_items, back.history_items)
    assert np.array_equal(taught.history_gaps, back.history_gaps)
    stream.see((70, event("view", "a")), (500, TICK))
    assert stream.take() == [], "once"
    assert stream.impressions.figures() == {"ignored": 1, "taken_back": 1, "waiting": 0}


def test_a_label_that_was_not_taken_yet_is_just_dropped() -> None:
    stream = started()
    stream.see((1, shown("a")), (40, TICK), (41, event("view", "a")), (500, TICK))
    assert stream.take() == []


# --- bounds --------------------------------------------------------------------------------------


def test_a_user_is_taken_up_so_often_an_hour() -> None:
    stream = started("u", "v", negatives_per_user=3)
    stream.see(*((1, shown(f"i{n}", list_=None)) for n in range(10)))
    stream.see((2, shown("i9", list_=None, user_id="v")))
    stream.see(*((61, shown(f"j{n}", list_=None)) for n in range(10)))
    stream.see((500, TICK))
    found = [id for id, _ in stream.take()]
    assert found == ["i0", "i1", "i2", "i9", "j0", "j1", "j2"]


def test_while_all_that_are_remembered_wait_new_ones_are_not_taken_up() -> None:
    users = [f"u{n}" for n in range(10)]
    stream = started(*users, impressions=4)
    stream.see(*((1, shown("a", user_id=user)) for user in users), (40, TICK))
    assert len(stream.take()) == 4
    stream.see(*((41, shown("b", user_id=user)) for user in users), (100, TICK))
    assert stream.take() == [("b", -0.1)] * 4


def test_a_step_takes_no_more_than_a_hundred() -> None:
    users = [f"u{n}" for n in range(250)]
    stream = started(*users)
    stream.see(*((1, shown(f"i{n}", user_id=user)) for n, user in enumerate(users)), (40, TICK))
    found = [stream.take() for _ in range(4)]
    assert [len(labels) for labels in found] == [100, 100, 50, 0]
    assert [id for labels in found for id, _ in labels] == [f"i{n}" for n in range(250)]


def test_a_weight_of_zero_remembers_nothing() -> None:
    stream = started(negative_weight=0)
    stream.see((1, shown("a")), (500, TICK))
    assert stream.take() == []
    assert stream.impressions.figures() == {"ignored": 0, "taken_back": 0, "waiting": 0}


def test_a_hidden_users_impressions_are_gone_and_others_are_not() -> None:
    stream = started("u", "v")
    stream.see((1, shown("a")), (1, shown("b", user_id="v")), (2, UserRemoval("u")))
    stream.see((3, UserRemoval("unknown")), (500, TICK))
    assert stream.take() == [("b", -0.1)]
    row = stream.preprocess.items.find("old")
    kept = stream.impressions.state()["history_items"]
    assert (kept == row).sum() == 1, "the history that stood beside it is gone too"


def test_a_removed_items_impressions_are_gone() -> None:
    stream = started()
    stream.see((1, shown("a")), (1, shown("b")))
    item = np.array([stream.preprocess.items.find("a")], np.int32)
    stream.impressions.forget(Gone(item, np.zeros(0, np.int32)))
    stream.see((500, TICK))
    assert stream.take() == [("b", -0.1)]


def test_a_row_that_goes_to_another_user_brings_no_impressions_along() -> None:
    stream = started("u", "v")
    stream.see((1, shown("a")), (1, shown("b", user_id="v")))
    users = np.array([stream.preprocess.users.find("u")], np.int32)
    stream.impressions.forget(Gone(np.zeros(0, np.int32), users))
    stream.see((500, TICK))
    assert stream.take() == [("b", -0.1)]


# --- a fold --------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["view", "impression", "impression", "impression", "dislike", "hide"]),
        st.integers(0, 3),  # user
        st.integers(0, 5),  # item
        st.sampled_from([None, "r", "s"]),
        st.sampled_from([None, 0, 1, 2]),
        st.floats(0, 40),  # minutes since the one before
    ),
    min_size=1,
    max_size=60,
)


def entries(steps: Sequence[tuple[Any, ...]]) -> list[tuple[float, Entry]]:
    found: list[tuple[float, Entry]] = []
    minute = 0.0
    for type, user, item, list_, position, pause in steps:
        minute += pause
        if type == "hide":
            found.append((minute, UserRemoval(f"u{user}")))
            continue
        over = tuple(f"i{n}" for n in range(item)) if type == "view" and list_ else ()
        fields = {"recommendation_id": list_, "position": position, "passed_over": over}
        found.append((minute, event(type, f"i{item}", f"u{user}", **fields)))
    return found


def copied(state: State) -> State:
    return {name: value.copy() for name, value in state.items()}


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(1, 60), st.sampled_from([3, 50]))
def test_where_batches_end_makes_no_difference(steps: Any, size: int, ring: int) -> None:
    whole, cut = Stream(impressions=ring), Stream(impressions=ring)
    found = entries(steps)
    whole.see(*found)
    for start in range(0, len(found), size):
        cut.see(*found[start : start + size])
    assert state_digest(whole.impressions.state()) == state_digest(cut.impressions.state())
    assert whole.take() == cut.take()


@settings(max_examples=40, deadline=None)
@given(STEPS, STEPS, st.sampled_from([3, 50]))
def test_a_loaded_state_goes_on_bit_for_bit(before: Any, after: Any, ring: int) -> None:
    stream = Stream(impressions=ring)
    first, then = entries(before), entries(after)
    stream.see(*first)
    stream.take()
    again = Stream(impressions=ring)
    again.preprocess.load(copied(stream.preprocess.state()))
    again.impressions.load(copied(stream.impressions.state()))
    again.offset = stream.offset
    later = [(first[-1][0] + minute, entry) for minute, entry in then]
    for one in (stream, again):
        one.see(*later)
    assert state_digest(stream.impressions.state()) == state_digest(again.impressions.state())
    assert stream.take() == again.take()


@pytest.mark.parametrize("ring", [2, 100])
def test_a_ring_of_another_size_keeps_the_newest(ring: int) -> None:
    users = [f"u{n}" for n in range(6)]
    stream = started(*users, impressions=4)
    stream.see(*((1, shown(f"i{n}", user_id=user)) for n, user in enumerate(users[:4])))
    other = started(*users, impressions=ring)
    other.preprocess.load(copied(stream.preprocess.state()))
    other.impressions.load(copied(stream.impressions.state()))
    other.see((2, event("view", "i3", "u3")), (40, TICK))
    expected = ["i0", "i1", "i2"] if ring == 100 else ["i2"]
    assert [id for id, _ in other.take()] == expected


def test_a_state_from_before_impressions_is_none() -> None:
    stream = started()
    stream.impressions.load({})
    stream.see((1, shown("a")), (500, TICK))
    assert stream.take() == [("a", -0.1)]
