"""What is forgotten at a sweep, against a plain model of it, and that nothing of it is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import DAY, Config, Preprocess, Recommend
from headwater.deploy import state_digest
from headwater.preprocess import Preprocessor
from headwater.types import Entry, Event, Item, ItemRemoval, Record, User, UserRemoval
from tests.preprocess.plain import Plain, Remembered, batch_words, cut, records, views
from tests.preprocess.test_batches import CUTS, STREAMS


@dataclass
class Known:
    """The ids that have a row: where and when each was last named."""

    after: int
    most: int
    idle: float | None
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    lasting: set[str] = field(default_factory=set)
    sightings: Counter[str] = field(default_factory=Counter)
    expired: int = 0

    def see(self, id: str, record: Record) -> bool:
        if id not in self.last:
            self.sightings[id] += 1
            if self.sightings[id] < self.after:
                return False
        self.name(id, record)
        return True

    def name(self, id: str, record: Record) -> None:
        self.last[id] = (record.offset, record.stream_time)

    def sweep(self, now: float) -> set[str]:
        gone = {
            id
            for id, (_, time) in self.last.items()
            if self.idle is not None and id not in self.lasting and time < now - self.idle
        }
        left = sorted(set(self.last) - gone, key=lambda id: self.last[id])
        if len(left) > self.most:
            gone |= set(left[: len(left) - (self.most - self.most // 20)])
        for id in gone:
            del self.last[id]
        self.lasting -= gone
        self.expired += len(gone)
        return gone


class Forgetful(Plain):
    """``Plain``, with admission, a bound on what is used up, and sweeps."""

    def __init__(self, config: Config, grouped: bool = False) -> None:
        super().__init__(config, grouped)
        own = config.preprocess
        self.every, self.consumed_most = own.sweep_events, own.consumed_per_user
        days = own.user_idle_days, own.item_idle_days
        idle_users, idle_items = (None if d is None else d * DAY for d in days)
        self.users = Known(own.admit_users_after, own.max_users, idle_users)
        self.items = Known(own.admit_items_after, own.max_items, idle_items)
        self.beyond: set[int] = set()  # identities of uses that were beyond the newest at a sweep

    def batch(self, stream: Sequence[Record]) -> list[dict[str, Any]]:
        said = []
        for record in stream:
            entry = record.entry
            if isinstance(entry, Event):
                said.append(self._of_known(record, entry))
            elif isinstance(entry, Item | ItemRemoval):
                self.items.name(entry.item_id, record)
                self.items.lasting.add(entry.item_id)
            elif isinstance(entry, User):
                self.users.name(entry.user_id, record)
                self.users.lasting.add(entry.user_id)
            elif isinstance(entry, UserRemoval):
                self._forget_user(entry.user_id)
                self.users.lasting.discard(entry.user_id)
            if record.offset % self.every == 0:
                self._sweep(record.stream_time)
        return said

    def _of_known(self, record: Record, event: Event) -> dict[str, Any]:
        if event.item_id is not None and not self.items.see(event.item_id, record):
            event = msgspec.structs.replace(event, item_id=None)
        if self.users.see(event.user_id, record):
            return self._event(record, event)
        said = self._event(record, msgspec.structs.replace(event, user_id="somebody"))
        self._forget_user("somebody")
        return {**said, "user": None}

    def context(self, user: str | None, time: float, session: str | None) -> dict[str, Any]:
        found = super().context(user, time, session)
        found["history"] = [event for event in found["history"] if event[0] is not None]
        used = self._used(self.histories.get(user, []) if user is not None else [])
        found["excluded"] = {event.item for event in used[-self.consumed_most :]}
        return found

    def _used(self, history: list[Remembered]) -> list[Remembered]:
        return [
            event
            for event in history
            if event.item is not None
            and not self._again(event.type)
            and id(event) not in self.beyond
        ]

    def _forget_user(self, user: str) -> None:
        self.histories.pop(user, None)
        self.groups.pop(user, None)

    def _sweep(self, now: float) -> None:
        gone = self.items.sweep(now)
        for user in self.users.sweep(now):
            self._forget_user(user)
        self.named = [item for item in self.named if item not in gone]
        for history in self.histories.values():
            self.beyond |= {id(event) for event in self._used(history)[: -self.consumed_most]}
            for event in history:
                if event.item in gone:
                    event.item = None  # type: ignore[assignment]
        for group in self.groups.values():
            group.events = [event for event in group.events if event.item not in gone]
            group.targets -= gone


def config(**own: Any) -> Config:
    repeats = own.pop("repeats", None)
    values = {"history_length": 4, "sweep_events": 7, **own}
    return Config(preprocess=Preprocess(**values), recommend=Recommend(repeats=repeats))


def said(
    preprocessor: Preprocessor, stream: Sequence[Record], every: int, ends: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """What is said of every event of a stream that is cut at ``ends`` and wherever it is swept."""
    found = []
    sweeps = [k + 1 for k, record in enumerate(stream) if record.offset % every == 0]
    for piece in cut(stream, [*ends, *sweeps]):
        batch, _ = preprocessor.batch(piece)
        users, items = list(preprocessor.users), list(preprocessor.items)
        found += batch_words(batch, users, items, preprocessor.type_names)
        swept = preprocessor.sweep(piece)
        assert (swept is not None) == (bool(piece) and piece[-1].offset % every == 0)
    return found


CONFIGS = st.builds(
    config,
    max_users=st.sampled_from([1, 2, 100]),
    max_items=st.sampled_from([1, 3, 5, 100]),
    user_idle_days=st.sampled_from([None, 0.5]),
    item_idle_days=st.sampled_from([None, 0.01, 1.5]),
    admit_users_after=st.sampled_from([1, 1, 2]),
    admit_items_after=st.sampled_from([1, 1, 2, 3]),
    consumed_per_user=st.sampled_from([1, 3, 5_000]),
    sweep_events=st.sampled_from([1, 7, 20]),
    repeats=st.sampled_from([None, False]),
)


@settings(max_examples=200)
@given(STREAMS, CUTS, CONFIGS, st.booleans())
def test_every_event_stands_beside_what_was_not_forgotten(stream, ends, own, grouped):
    plain, preprocessor = Forgetful(own, grouped), Preprocessor(own, grouped=grouped)
    every = own.preprocess.sweep_events
    assert said(preprocessor, stream, every, ends) == plain.batch(stream)
    assert preprocessor.expired == {"users": plain.users.expired, "items": plain.items.expired}
    for vocabulary, known in ((preprocessor.users, plain.users), (preprocessor.items, plain.items)):
        named = {id for id, used in zip(vocabulary, vocabulary.in_use(), strict=True) if used}
        assert named == set(known.last)


@settings(max_examples=50)
@given(STREAMS, CUTS, CUTS, CONFIGS, st.integers(0, 60))
def test_neither_where_batches_end_nor_a_restart_makes_a_difference(
    stream, ends, others, own, place
):
    every = own.preprocess.sweep_events
    one, other = Preprocessor(own), Preprocessor(own)
    expected = said(one, stream, every, ends)
    found = said(other, stream[:place], every, others)
    again = Preprocessor(own)
    again.load({name: value.copy() for name, value in other.state().items()})
    assert found + said(again, stream[place:], every, others) == expected
    assert state_digest(again.state()) == state_digest(one.state())


@settings(max_examples=50)
@given(STREAMS, CONFIGS)
def test_no_array_names_a_row_that_was_given_up(stream, own):
    preprocessor = Preprocessor(own)
    every = own.preprocess.sweep_events
    stream = stream[: len(stream) // every * every]
    said(preprocessor, stream, every)
    state = preprocessor.state()
    free = np.flatnonzero(~preprocessor.items.in_use())
    for name in ("histories.items", "histories.nodes", "catalogue.rows", "catalogue.withheld"):
        assert not np.isin(state[name], free).any(), name
    assert not state["item_events"][free].any()
    gone = np.flatnonzero(~preprocessor.users.in_use())
    assert not np.isin(state["profiles.rows"], gone).any()
    for name in ("counts", "last_times", "session_counts", "session_hashes", "consumed_counts"):
        assert not state[f"histories.{name}"][gone].any(), name


def test_what_the_catalogue_lists_goes_for_want_of_room_only():
    entries: list[Entry] = [Item("listed"), User("set"), Event("e", "view", "seen", 0.0, "named")]
    later: list[Entry] = [Event(f"l{n}", "view", "u", 0.0, "i") for n in range(4)]
    stream = records([*entries, *later], [0.0] * 3 + [10 * DAY] * 4)
    preprocessor = Preprocessor(config(user_idle_days=1.0, item_idle_days=1.0))
    said(preprocessor, stream, 7)
    assert [id for id in preprocessor.items if id] == ["listed", "i"]
    assert [id for id in preprocessor.users if id] == ["set", "u"]
    crowded = Preprocessor(config(max_items=1, max_users=1))
    said(crowded, stream, 7)
    assert ([*filter(None, crowded.items)], [*filter(None, crowded.users)]) == (["i"], ["u"])
    assert crowded.item("listed") is None
    assert crowded.user("set") is None


def test_a_put_is_a_sign_of_life():
    entries: list[Entry] = [Item("a"), Item("b"), Event("e", "view", "u", 0.0, "c"), Item("a")]
    preprocessor = Preprocessor(config(max_items=2, sweep_events=4))
    said(preprocessor, records(entries, range(4)), 4)
    assert {id for id in preprocessor.items if id} == {"a", "c"}


@pytest.mark.parametrize("most", [1, 3])
def test_the_newest_items_that_are_used_up_are_kept(most):
    stream = views([("u", n, float(n)) for n in range(6)], "rating")
    preprocessor = Preprocessor(config(consumed_per_user=most, sweep_events=1_000))
    assert said(preprocessor, stream, 1_000)[-1]["excluded"] == {str(n) for n in range(5 - most, 5)}


def test_the_pool_of_used_up_items_stays_within_its_bound():
    own = config(consumed_per_user=3, sweep_events=50)
    preprocessor = Preprocessor(own)
    stream = views([(n % 5, n % 40, float(n)) for n in range(2_000)], "rating")
    sizes = []
    for start in range(0, 2_000, 50):
        said(preprocessor, stream[start : start + 50], 50)
        sizes.append(len(preprocessor.state()["histories.nodes"]))
    assert max(sizes) <= 2 * 5 * 3


def test_a_user_who_goes_takes_nobody_elses_used_up_items_along():
    rated = views([("w", "old", 0.0), ("v", "a", 1.0), ("u", "b", 2.0), ("u", "c", 3.0)], "rating")
    asking = views([("v", "d", 9.0)])
    own = config(max_items=3, consumed_per_user=1, sweep_events=4)
    preprocessor = Preprocessor(own)
    said(preprocessor, rated, 4)
    assert preprocessor.expired["items"] == 1
    said(preprocessor, records([UserRemoval("u")], [4.0], after=4), 4)
    [found] = said(preprocessor, records([asking[0].entry], [9.0], after=5), 4)
    assert found["excluded"] == {"a"}


def test_a_running_group_holds_back_nothing_that_expired():
    basket = views([("u", "a", 0.0), ("u", "b", 0.0), ("u", "c", 5.0)])
    own = config(max_items=1, sweep_events=2)
    assert said(Preprocessor(own, grouped=True), basket, 2)[-1]["history"] == [("b", "view", 0.0)]
