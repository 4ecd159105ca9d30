"""Which events teach nothing: by rule, by reason, and against the same rules written plainly."""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate
from math import exp, inf
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import Cleaning, Config, Preprocess
from headwater.deploy import state_digest
from headwater.preprocess import Preprocessor, _influence
from headwater.types import Event, Record
from tests.preprocess.plain import batch_words, cut

NOW = 1_700_000_000.0
DAY = 86_400.0
OFF = {
    "max_age_days": 0.0,
    "duplicate_seconds": 0.0,
    "burst_events": 0,
    "hammered_events": 0,
    "influence_events": 0,
    "pushed_times": 0.0,
    "flooded_share": 0.0,
}


def config(**rules):
    """Only the rules that are given, on few events and a short history."""
    return Config(preprocess=Preprocess(history_length=4, cleaning=Cleaning(**OFF | rules)))


def live(rows, late=0.0, imported=False):
    """Records of (user, item, stream time, type?, seconds that the client's clock is behind?)."""
    made = []
    for offset, row in enumerate(rows, 1):
        user, item, time = row[:3]
        kind = row[3] if len(row) > 3 else "view"
        behind = row[4] if len(row) > 4 else 0.0
        event = Event(
            f"e{offset}", kind, str(user), NOW + time - behind, str(item), imported=imported
        )
        made.append(Record(offset, NOW + time + late, NOW + time, event))
    return made


def folded(stream, rules, ends=()):
    preprocessor = Preprocessor(rules)
    return preprocessor, [preprocessor.batch(piece)[0] for piece in cut(stream, ends)]


def taught(stream, rules, ends=()):
    """Per event, whether it teaches, and the counts by reason that aren't 0."""
    preprocessor, batches = folded(stream, rules, ends)
    weights = np.concatenate([batch.weights for batch in batches])
    counts = {reason: n for reason, n in preprocessor.cleaning.counts.items() if n}
    return (weights > 0).tolist(), counts


class Plain:
    """The rules with a dictionary for each, which forgets nothing."""

    def __init__(self, rules):
        self.rules = rules.preprocess.cleaning
        self.types = rules.event_types
        self.acts: dict[Any, float] = {}
        self.levels: dict[Any, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self.taught: dict[Any, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))

    def reason(self, record):
        event, now, rules = record.entry, record.stream_time, self.rules
        if event.type not in self.types:
            return "unknown_type"
        if event.imported or record.received_at - now > DAY or not self.types[event.type].weight:
            return None
        act = (event.user_id, event.item_id, event.type)
        since = now - self.acts.get(act, -inf)
        self.acts[act] = now
        hammered = self.count(act[:2], now, rules.hammered_hours * 3600.0)
        burst = self.count(event.user_id, now, rules.burst_seconds)
        window = rules.influence_days * DAY
        active = self.count(("active", event.user_id), now, window)
        own = self.count(("own", *act[:2]), now, window)
        if rules.max_age_days and now - event.timestamp > rules.max_age_days * DAY:
            return "impossible_time"
        if rules.duplicate_seconds and since <= rules.duplicate_seconds:
            return "duplicate"
        if rules.burst_events and burst > rules.burst_events:
            return "burst"
        if rules.hammered_events and hammered > rules.hammered_events:
            return "hammered"
        if rules.influence_events and active > rules.influence_events:
            return "overactive"
        return self.pushed(event.item_id, own, now, window) if rules.pushed_times else None

    def pushed(self, item, own, now, window):
        kind = "voice" if own <= 1.5 else "repeat"
        if kind == "repeat":
            usual = self.level("repeat", now, window) / max(self.level("voice", now, window), 1.0)
            carried = self.level(("voice", item), now, window) + 1.0
            carried = max(3.0, self.rules.pushed_times * usual * carried)
            warm = self.level("voice", now, window) >= _influence._WARM
            if warm and self.level(("repeat", item), now, window) + 1.0 > carried:
                return "pushed"
        for key in (kind, (kind, item)):
            self.taught[key] = (self.level(key, now, window) + 1.0, now)
        return None

    def level(self, key, now, window):
        level, time = self.taught[key]
        return level * exp((time - now) / window)

    def count(self, key, now, window):
        level, time = self.levels[key]
        level = level * exp((time - now) / window) + 1.0
        self.levels[key] = (level, now)
        return level


RULES = st.builds(
    config,
    max_age_days=st.sampled_from([0.0, 2.0]),
    duplicate_seconds=st.sampled_from([0.0, 10.0]),
    burst_events=st.sampled_from([0, 3]),
    hammered_events=st.sampled_from([0, 2]),
    influence_events=st.sampled_from([0, 10]),
)
ROWS = st.tuples(
    st.sampled_from("uv"),
    st.sampled_from("ab"),
    st.sampled_from([0.0, 1.0, 11.0, 3_000.0, 50_000.0]),
    st.sampled_from(["view", "view", "purchase", "dislike", "impression", "teleported"]),
    st.sampled_from([0.0, 0.0, 3 * DAY]),
)
LATE = st.sampled_from([0.0, 0.0, 2 * DAY])


@st.composite
def streams(draw):
    rows = draw(st.lists(ROWS, max_size=60))
    times = accumulate(row[2] for row in rows)
    rows = [(*row[:2], time, *row[3:]) for row, time in zip(rows, times, strict=True)]
    stream = live(rows, draw(LATE))
    flags = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    return [
        msgspec.structs.replace(r, entry=msgspec.structs.replace(r.entry, imported=flag))
        if draw(st.integers(0, 3)) == 0
        else r
        for r, flag in zip(stream, flags, strict=True)
    ]


CUTS = st.lists(st.integers(0, 60), max_size=8)


@settings(max_examples=150)
@given(streams(), RULES, CUTS)
def test_every_event_has_the_reason_that_the_plain_rules_give(stream, rules, ends):
    plain = Plain(rules)
    reasons = [plain.reason(record) for record in stream]
    teaches, counts = taught(stream, rules, ends) if stream else ([], {})
    types = rules.event_types
    assert teaches == [
        reason is None and types[record.entry.type].weight > 0
        for reason, record in zip(reasons, stream, strict=True)
    ]
    assert counts == {reason: reasons.count(reason) for reason in set(reasons) - {None}}


@settings(max_examples=50)
@given(streams(), RULES, CUTS, CUTS)
def test_where_batches_end_makes_no_difference(stream, rules, ends, other_ends):
    (one, _), (other, _) = folded(stream, rules, ends), folded(stream, rules, other_ends)
    assert state_digest(one.state()) == state_digest(other.state())


@settings(max_examples=50)
@given(streams(), RULES, st.integers(0, 60))
def test_a_loaded_state_goes_on_as_the_one_that_was_saved(stream, rules, place):
    one, other = Preprocessor(rules), Preprocessor(rules)
    one.batch(stream[:place])
    other.load({name: value.copy() for name, value in one.state().items()})
    rest = stream[place:]
    assert other.batch(rest)[0].weights.tolist() == one.batch(rest)[0].weights.tolist()
    assert state_digest(other.state()) == state_digest(one.state())


@settings(max_examples=50)
@given(streams(), RULES, st.booleans())
def test_histories_targets_and_counts_of_events_are_untouched(stream, rules, grouped):
    """All that differs from a run without rules is weights, and the mark in histories."""
    said: list[Any] = []
    for used in (rules, config()):
        preprocessor = Preprocessor(used, grouped=grouped)
        batch, _ = preprocessor.batch(stream)
        names = (list(preprocessor.users), list(preprocessor.items), preprocessor.type_names)
        said.append([{**event, "weight": None} for event in batch_words(batch, *names)])
        said.append(preprocessor.item_events.tolist())
    assert said[:2] == said[2:]


# --- by example ----------------------------------------------------------------------------------


def test_the_same_again_within_seconds_is_a_duplicate():
    rows: list[Any] = [("u", "a", 0.0), ("u", "a", 10.0), ("u", "a", 20.0), ("u", "a", 30.5)]
    rows += [("u", "b", 30.5), ("v", "a", 30.5), ("u", "a", 30.5, "purchase")]
    expected = [True, False, False, True, True, True, True]
    assert taught(live(rows), config(duplicate_seconds=10.0)) == (expected, {"duplicate": 2})
    assert taught(live(rows), config()) == ([True] * 7, {})


@pytest.mark.parametrize(("days", "found"), [(1.9, 0), (2.1, 1)])
def test_a_live_event_of_long_ago_has_an_impossible_time(days, found):
    rows = [("u", "a", 0.0, "view", days * DAY), ("u", "b", 1.0)]
    teaches, counts = taught(live(rows), config(max_age_days=2.0))
    assert teaches == [not found, True]
    assert counts == ({"impossible_time": 1} if found else {})
    assert taught(live(rows), config())[1] == {}


def test_a_user_faster_than_people_teaches_nothing_while_it_lasts():
    fast = [("bot", f"i{n}", 0.01 * n) for n in range(500)]
    person = [("u", f"i{n}", 5.0 + n) for n in range(30)]
    again = [("bot", "i0", 200.0)]
    teaches, counts = taught(live([*fast, *person, *again]), config(burst_events=100))
    assert all(teaches[:100])
    assert not any(teaches[110:500])
    assert all(teaches[500:])
    assert counts == {"burst": 500 - sum(teaches[:500])}


def test_a_burst_that_goes_on_is_not_taught_from_again():
    steady = [("bot", f"i{n % 97}", 0.05 * n) for n in range(4_000)]
    teaches, _ = taught(live(steady), config(burst_events=100))
    assert not any(teaches[500:])


def test_one_item_again_and_again_is_hammered():
    rows = [("u", "a", 60.0 * n) for n in range(30)]
    rows += [("u", "b", 1_800.0), ("v", "a", 1_800.0), ("u", "a", 1_800.0 + 5 * DAY)]
    teaches, counts = taught(live(rows), config(hammered_events=20))
    assert teaches == [True] * 20 + [False] * 10 + [True] * 3
    assert counts == {"hammered": 10}


def test_a_user_teaches_so_much_within_the_window_and_no_more():
    rows = [("u", f"i{n}", 120.0 * n) for n in range(300)]
    rows += [("v", "a", 36_000.0), ("u", "a", 36_000.0 + 3 * DAY)]
    teaches, counts = taught(live(rows), config(influence_events=100, influence_days=1.0))
    assert teaches[:100] == [True] * 100
    assert not any(teaches[120:300])
    assert teaches[300:] == [True, True]
    assert counts == {"overactive": teaches.count(False)}


def crowd(repeats, people=300):
    """Of each of many people an event with one of ten items, and so many more with the same."""
    return [
        (f"p{n}", f"i{n % 10}", 60.0 * n + again)
        for n in range(people)
        for again in range(1 + repeats)
    ]


def pushers(users, each):
    return [(f"f{n % users}", "pushed", 20_000.0 + n) for n in range(users * each)]


@pytest.mark.parametrize(("users", "each", "let_through"), [(1, 50, 4), (10, 5, 13), (50, 1, 50)])
def test_few_users_can_not_push_an_item_however_often_they_act(users, each, let_through):
    rows = [*crowd(0), *pushers(users, each)]
    teaches, counts = taught(live(rows), config(pushed_times=4.0))
    assert all(teaches[:300])
    assert sum(teaches[300:]) == let_through
    assert counts == ({"pushed": users * each - let_through} if each > 1 else {})


def test_what_is_pushed_is_what_the_plain_rule_finds():
    random = np.random.default_rng(5)
    rows = [
        (f"u{random.zipf(1.5) % 400}", f"i{random.zipf(1.5) % 30}", 60.0 * n) for n in range(3_000)
    ]
    rules = config(pushed_times=0.3, influence_days=2.0)
    plain = Plain(rules)
    reasons = [plain.reason(record) for record in live(rows)]
    assert taught(live(rows), rules, [7, 1_000]) == (
        [reason is None for reason in reasons],
        {"pushed": reasons.count("pushed")},
    )
    assert reasons.count("pushed") > 10


def test_where_repeats_are_usual_as_many_are_let_through():
    rows = [*crowd(3), *pushers(10, 5)]
    assert taught(live(rows), config(pushed_times=4.0)) == ([True] * len(rows), {})


def test_nothing_is_pushed_before_there_is_a_crowd():
    rows = [*crowd(0, people=100), *pushers(1, 50)]
    assert taught(live(rows), config(pushed_times=4.0))[1] == {}


def shoppers(n, items, start=0.0):
    """Each event by a user of its own, of one of so many items in turn."""
    return [(f"s{start}-{k}", f"i{k % items}", start + 30.0 * k) for k in range(n)]


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["x", "x", "y", "i0", "i1", "i2"]), max_size=150), CUTS)
def test_what_is_flooded_is_what_the_plain_rule_finds(items, ends):
    crowd = shoppers(1_000, 40)
    rows = [*crowd, *((f"f{k}", item, 40_000.0 + k) for k, item in enumerate(items))]
    share, newest, wanted = 0.04, [row[1] for row in crowd], []
    for place, (_, item, _) in enumerate(rows[1_000:], 1_000):
        weights = [exp((age - place) / 10_000.0) for age in range(place)]
        own = sum(w for w, row in zip(weights, rows, strict=False) if row[1] == item)
        usual = 150.0 * own / 10_000.0
        allowed = max(100.0 * share, usual, 2.0 * newest[-200:-100].count(item))
        wanted.append(newest[-100:].count(item) + 1 <= allowed)
        if wanted[-1]:
            newest.append(item)
    teaches, counts = taught(live(rows), config(flooded_share=share), ends)
    assert teaches == [True] * 1_000 + wanted
    assert counts.get("flooded", 0) == wanted.count(False)


def test_an_item_teaches_up_to_its_share_of_the_newest_events_whoever_names_it():
    flood = [(f"f{k}", "x", 40_000.0 + k) for k in range(200)]
    rows = [*shoppers(1_200, 200), *flood]
    teaches, counts = taught(live(rows), config(flooded_share=0.3))
    assert teaches == [True] * 1_230 + [False] * 170
    assert counts == {"flooded": 170}


def test_a_flooded_item_teaches_again_as_other_events_come():
    flood = [(f"f{k}", "x", 40_000.0 + k) for k in range(200)]
    rows = [*shoppers(1_200, 200), *flood, *shoppers(90, 90, 50_000.0), ("u", "x", 60_000.0)]
    teaches, _ = taught(live(rows), config(flooded_share=0.3))
    assert teaches[1_400:] == [True] * 91


def test_what_an_item_usually_has_is_no_flood_and_what_stays_becomes_usual():
    few = live(shoppers(3_000, 3))
    assert taught(few, config(flooded_share=0.3)) == ([True] * 3_000, {})
    flood = [(f"f{k}", "x", 50_000.0 + k) for k in range(12_000)]
    teaches, counts = taught(live([*shoppers(1_200, 200), *flood]), config(flooded_share=0.3))
    assert counts["flooded"] > 1_000
    assert teaches[-100:] == [True] * 100


def test_a_hit_that_others_come_beside_may_double_with_each_hundred():
    crowd, hit = shoppers(1_200, 200), []
    for k in range(1_600):
        hit.append((f"h{k}", f"i{k % 200}" if k % 4 == 0 else "x", 40_000.0 + 30.0 * k))
    teaches, _ = taught(live([*crowd, *hit]), config(flooded_share=0.3))
    assert not all(teaches[1_200:1_400])
    assert teaches[2_600:] == [True] * 200


def test_nothing_is_flooded_before_anything_is_usual():
    rows = [(f"u{k}", "x", 1.0 * k) for k in range(900)]
    assert taught(live(rows), config(flooded_share=0.3))[1] == {}


def test_an_unknown_type_is_counted_imported_or_not():
    rows = [("u", "a", 0.0, "teleported"), ("u", "a", 1.0), ("u", "a", 2.0, "impression")]
    for imported in (False, True):
        stream = live(rows, imported=imported)
        assert taught(stream, config()) == ([False, True, False], {"unknown_type": 1})


NOISE = [("u", "a", 0.1 * n, "view", 30 * DAY * (n % 2)) for n in range(300)]


@pytest.mark.parametrize(
    "stream", [live(NOISE, imported=True), live(NOISE, late=1.1 * DAY)], ids=["imported", "old"]
)
def test_what_is_imported_and_what_is_history_sent_again_is_not_judged(stream):
    assert taught(stream, Config()) == ([True] * 300, {})
    assert sum(taught(live(NOISE), Config())[0]) == 1


def test_impressions_are_no_burst_and_make_none():
    rows = [("u", f"i{n}", 0.0, "impression") for n in range(500)] + [("u", "a", 0.0)]
    assert taught(live(rows), Config())[1] == {}


def test_a_history_marks_what_was_cleaned():
    rows = [("u", "a", 0.0), ("u", "a", 1.0), ("u", "b", 30.0), ("u", "c", 60.0)]
    preprocessor, (batch,) = folded(live(rows), config(duplicate_seconds=10.0))
    last = batch.contexts
    named = [list(preprocessor.items)[row] for row in last.history_items[3] if row >= 0]
    assert named == ["a", "a", "b"]
    assert last.history_cleaned[3].tolist() == [False, False, True, False]


# --- memory --------------------------------------------------------------------------------------


def test_memory_is_bounded_and_the_loud_are_remembered_before_the_quiet():
    found = {"hammered_events": 20, "burst_events": 100, "duplicate_seconds": 10.0}
    rules = config(**found, influence_events=1_000, pushed_times=4.0, remembered=64)
    random = np.random.default_rng(3)
    rows, time = [], 0.0
    for n in range(3_000):
        time += 20.0
        rows.append((f"u{random.integers(5_000)}", f"i{random.integers(5_000)}", time))
        if n % 10 == 0:
            rows.append(("bot", "a", time))
    stream = live(rows)
    preprocessor = Preprocessor(rules)
    size = sum(value.nbytes for value in preprocessor.cleaning.state().values())
    batch, _ = preprocessor.batch(stream)
    assert sum(value.nbytes for value in preprocessor.cleaning.state().values()) == size < 14_000
    bots = [b for b, row in enumerate(rows) if row[0] == "bot"]
    assert (batch.weights[bots] > 0).sum() == 20
    others = np.delete(batch.weights, bots)
    assert (others > 0).mean() > 0.99


def test_users_that_are_not_remembered_yet_are_not_taken_for_one_who_is_fast():
    rules = Cleaning.model_validate({**OFF, "burst_events": 3, "hammered_events": 3})
    own = Config(preprocess=Preprocess(admit_users_after=2, cleaning=rules))
    many = live([(f"u{n}", "a", n / 100) for n in range(20)])
    assert taught(many, own) == ([True] * 20, {})
    fast = live([("u", "a", n / 100) for n in range(20)])
    assert taught(fast, own)[1].keys() == {"burst"}
