from __future__ import annotations

import numpy as np
import pytest

from headwater.config import Config
from headwater.config import Popularity as Settings
from headwater.deploy import state_digest
from headwater.model import Popularity, _leaders
from headwater.model._leaders import Leaders
from tests.model.arrays import batches, copied, stream

HOURS = (0.01, 1.0, 500.0)
"""In a test stream the first is rescaled often, the second rarely, the last never."""


def taught(rows, hours=HOURS, ends=(), grow_to=0):
    """The expert after (user, item, time, type) rows, and the items by row."""
    expert = Popularity(Settings(half_lives_hours=hours))
    expert.grow(grow_to)
    made, items = batches(Config(), stream(rows), ends)
    for batch in made:
        expert.grow(len(items))
        expert.learn(batch)
    return expert, items


def random_rows(n, seed=0, pause=600.0):
    rng = np.random.default_rng(seed)
    times = 1e9 + np.cumsum(rng.exponential(pause, n))
    kinds = ("view", "purchase", "rating", "dislike", "impression", "unheard of")
    return [
        (rng.integers(4), int(rng.zipf(1.5)) % 12, float(time), kinds[rng.integers(len(kinds))])
        for time in times
    ]


def plain_shares(rows, items, hours=HOURS):
    """(N, H) share of each item in the decayed weights, by the formula."""
    types = Config().event_types
    counts = np.zeros((len(items), len(hours)))
    for _, item, time, type in rows:
        if type in types and types[type].polarity > 0:
            ages = (rows[-1][2] - time) / (np.array(hours) * 3600.0)
            counts[items.index(str(item))] += types[type].weight * 0.5**ages
    return counts / counts.sum(axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_the_decayed_counts_of_the_formula(seed):
    rows = [*random_rows(400, seed), (0, 0, 1e9 + 1e6, "view")]
    expert, items = taught(rows, ends=range(0, 400, 50))
    found = expert.shares(np.arange(len(items), dtype=np.int32))
    np.testing.assert_allclose(found, plain_shares(rows, items), rtol=1e-5, atol=1e-12)


def test_the_stream_of_that_test_crosses_the_rescale_boundary():
    span = random_rows(400)[-1][2] - 1e9
    assert span > 5 * 60 * HOURS[0] * 3600.0
    assert span > 60 * HOURS[1] * 3600.0 > 0.1 * span
    assert span < 60 * HOURS[2] * 3600.0


def test_a_pause_of_years_leaves_numbers_that_can_be_used():
    rows = [(0, "a", 1e9, "view"), (0, "b", 1.3e9, "view")]
    expert, _ = taught(rows)
    assert expert.shares(np.array([0, 1])).tolist() == [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert expert.scores().tolist() == pytest.approx([0.0, 1.0])


def test_the_served_popularity_is_the_mixture_of_the_shares():
    expert, items = taught(random_rows(400))
    shares = expert.shares(np.arange(len(items), dtype=np.int32))
    np.testing.assert_allclose(expert.scores(), shares @ expert.mix, rtol=1e-5)
    assert expert.scores().sum() == pytest.approx(1.0)
    assert expert.mix.sum() == pytest.approx(1.0)


def test_events_and_their_times_are_those_of_the_wanted_events():
    rows = random_rows(60)
    expert, items = taught(rows, ends=[20, 40])
    types = Config().event_types
    for row, item in enumerate(items):
        times = [
            time
            for _, named, time, type in rows
            if str(named) == item and type in types and types[type].polarity > 0
        ]
        assert expert.events[row] == len(times)
        assert expert.eligible()[row] == bool(times)
        assert expert.first_times[row] == (times[0] if times else 0.0)
        assert expert.last_times[row] == (times[-1] if times else 0.0)
    assert not expert.eligible().all(), "the stream has items that were never wanted"


def test_nothing_is_popular_before_the_first_event():
    expert = Popularity(Settings())
    assert (len(expert.scores()), len(expert.eligible())) == (0, 0)
    expert.grow(3)
    assert expert.scores().tolist() == [0.0, 0.0, 0.0]
    assert expert.shares(np.array([0, 2])).tolist() == [[0.0] * 6] * 2
    assert not expert.eligible().any()


def test_where_batches_end_and_how_tables_grow_makes_no_difference():
    rows = random_rows(300)
    one, items = taught(rows)
    other, _ = taught(rows, ends=range(0, 300, 7), grow_to=len(items))
    assert state_digest(one.state()) == state_digest(other.state())


def test_a_loaded_state_goes_on_as_the_one_that_was_saved():
    made, items = batches(Config(), stream(random_rows(200)), [100])
    one, other = Popularity(Settings()), Popularity(Settings())
    one.grow(len(items))
    one.learn(made[0])
    other.load(copied(one.state()))
    for expert in (one, other):
        expert.learn(made[1])
    assert state_digest(one.state()) == state_digest(other.state())


# --- the mixture of half-lives -------------------------------------------------------------------


def drifting(n):
    """Every half hour another item is wanted, and nothing else."""
    return [(k % 5, f"{k // 30}", 1e9 + 60.0 * k, "view") for k in range(n)]


def steady(n):
    """Five events a day from ever the same uneven distribution."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(50, n, p=1.0 / np.arange(1, 51) / np.sum(1.0 / np.arange(1, 51)))
    return [(k % 5, f"{item}", 1e9 + 17_000.0 * k, "view") for k, item in enumerate(chosen)]


@pytest.mark.parametrize(("rows", "best"), [(drifting(3000), 0), (steady(3000), 2)])
def test_the_half_life_that_foretells_best_is_served(rows, best):
    expert, _ = taught(rows, hours=(0.5, 24.0, 2880.0))
    assert expert.mix[best] > 0.7
    assert expert.mix[best] == max(expert.mix)


def test_the_mixture_follows_a_stream_that_changes_its_ways():
    start = steady(3000)
    late = [(user, f"late {item}", 1e9 + time, type) for user, item, time, type in drifting(3000)]
    before, _ = taught(start, hours=(0.5, 24.0, 2880.0))
    after, _ = taught(start + late, hours=(0.5, 24.0, 2880.0))
    assert before.mix[2] > 0.7
    assert after.mix[0] > 0.7


# --- removal -------------------------------------------------------------------------------------


def test_a_forgotten_item_is_as_if_no_event_had_named_it():
    rows = random_rows(300)
    expert, items = taught(rows)
    gone = [items.index("1"), items.index("3")]
    expert.forget(np.array(gone, np.int32))
    left = [row for row in rows if str(row[1]) not in ("1", "3")]
    # Ages are counted from the newest event, which may be one of the forgotten ones.
    expected = plain_shares([*left, (0, items[0], rows[-1][2], "impression")], items)
    rows_left = np.arange(len(items), dtype=np.int32)
    np.testing.assert_allclose(expert.shares(rows_left), expected, rtol=1e-5, atol=1e-9)
    assert not expert.eligible()[gone].any()
    assert expert.events[gone].tolist() == expert.last_times[gone].tolist() == [0, 0]


def test_what_is_left_after_the_loudest_item_is_a_whole_again():
    hour = 3600.0
    rows = [(0, "one", 1e9), (0, "other", 1e9), (0, "loud", 1e9 + 59 * hour)]
    expert, _ = taught(rows, hours=(1.0,))
    expert.forget(np.array([2], np.int32))
    assert expert.shares(np.array([0, 1, 2])).ravel().tolist() == [0.5, 0.5, 0.0]


# --- the leaders ---------------------------------------------------------------------------------


def ranked(found):
    """Every item that has a score, by it."""
    scores = found.scores()
    order = np.lexsort((np.arange(len(scores)), -scores))
    return order[scores[order] > 0].tolist()


def many_rows(seed):
    """A stream over some 60 items, the popular ones others in its second half."""
    rng = np.random.default_rng(seed)
    items = (rng.zipf(1.5, 800) % 60 + 20 * (np.arange(800) > 400)).tolist()
    return [(0, item, 1e9 + 600.0 * n) for n, item in enumerate(items)]


def after_each_batch(seed):
    config = Config()
    made, items = batches(config, stream(many_rows(seed)), range(20, 800, 20))
    expert = Popularity(Settings(half_lives_hours=(4.0, 40.0, 500.0)))
    for batch in made:
        expert.grow(len(items))
        expert.learn(batch)
        yield expert


@pytest.mark.parametrize(("leaders", "front"), [(5, 1_000), (5, 6), (8, 12), (10_000, 6)])
@pytest.mark.parametrize("seed", [0, 1])
def test_leaders_are_exactly_the_first(monkeypatch, leaders, front, seed):
    monkeypatch.setattr(_leaders, "_LEADERS", leaders)
    monkeypatch.setattr(_leaders, "_FRONT", front)
    known = []
    for n, expert in enumerate(after_each_batch(seed)):
        if n == 10:
            expert.forget(np.array(ranked(expert)[:2], np.int32))
        rows, scores, all_of_them = expert.leaders()
        order = ranked(expert)
        assert rows[scores > 0].tolist() == order[: (scores > 0).sum()]
        np.testing.assert_allclose(scores, expert.scores()[rows], rtol=1e-12)
        assert not all_of_them or (scores > 0).sum() == len(order)
        for few in (0, 1, 4):
            some = expert.leaders(few)
            assert some[0].tolist() == rows[:few].tolist()
            assert some[1].tolist() == scores[:few].tolist()
        known.append((scores > 0).sum() / len(order))
    assert np.mean(known) == 1.0 if leaders == 10_000 else 0.1 < np.mean(known) < 1.0


@pytest.mark.parametrize("seed", range(5))
def test_of_items_that_are_as_good_the_lower_rows_lead_whenever_that_was_asked(monkeypatch, seed):
    """By weights under which sums of the same counts may differ in their last bit."""
    monkeypatch.setattr(_leaders, "_LEADERS", 20)
    monkeypatch.setattr(_leaders, "_FRONT", 25)
    rng = np.random.default_rng(seed)
    counts = np.full((400, 4), 1.0 / 3.0)
    early = Leaders(4)
    for _ in range(40):
        weights = rng.random(4)
        named = np.unique(rng.integers(400, size=30)).astype(np.int32)
        early.first(10, counts, weights)
        early.note(named)
        late = Leaders(4)
        for found, scores, _ in (early.first(10, counts, weights), late.first(10, counts, weights)):
            assert len(found) == len(scores) == 0, "of equal ones it isn't known which are first"
        counts[named] *= 1.0 + 0.5 * rng.random((len(named), 1))
        early.note(named)
        order = np.lexsort((np.arange(400), -(counts @ weights)))
        found, scores, _ = early.first(10, counts, weights)
        assert found.tolist() == order[: len(found)].tolist()
        assert len(found) == 10
        counts[:] = 1.0 / 3.0
        early.forget()


@pytest.mark.parametrize("seed", range(5))
def test_who_led_is_not_who_leads_once_other_counts_weigh_more(monkeypatch, seed):
    monkeypatch.setattr(_leaders, "_LEADERS", 30)
    monkeypatch.setattr(_leaders, "_FRONT", 10)
    counts = np.random.default_rng(seed).random((200, 2))
    leaders = Leaders(2)
    for weights in ([1.0, 0.01], [1.0, 0.02], [0.01, 1.0], [0.5, 0.5], [1.0, 0.01]):
        found, _, _ = leaders.first(2, counts, np.array(weights))
        assert found.tolist() == np.argsort(-(counts @ weights))[:2].tolist()


def drawn(monkeypatch, what):
    """A list that grows whenever a circle is drawn anew."""
    found = []
    honest = getattr(_leaders._Circle, what)

    def draw(circle, rows, n_items):
        found.append(len(rows))
        honest(circle, rows, n_items)

    monkeypatch.setattr(_leaders._Circle, what, draw)
    return found


def test_leaders_are_found_without_looking_at_every_item_each_time(monkeypatch):
    monkeypatch.setattr(_leaders, "_LEADERS", 5)
    looked = drawn(monkeypatch, "draw")
    asked = [len(expert.leaders()[0]) for expert in after_each_batch(0)]
    assert len(looked) < len(asked)
    assert min(asked) > 0


def test_a_few_are_found_without_looking_at_all_that_might_lead_each_time(monkeypatch):
    monkeypatch.setattr(_leaders, "_LEADERS", 10)
    monkeypatch.setattr(_leaders, "_FRONT", 12)
    scored = []
    honest = _leaders._lead

    def lead(pool, *rest):
        scored.append(len(pool))
        return honest(pool, *rest)

    monkeypatch.setattr(_leaders, "_lead", lead)
    pools = []
    for expert in after_each_batch(0):
        expert.leaders(3)
        pools.append(expert._leaders._pool.n)
    assert sum(scored) < 0.7 * sum(pools)


@pytest.mark.parametrize("seed", range(3))
def test_shares_before_a_batch_are_those_that_were(seed):
    rows = random_rows(600, seed, pause=3_000.0)
    expert = Popularity(Settings(half_lives_hours=(1.0, 24.0, 500.0)))
    made, items = batches(Config(), stream(rows), (50, 60, 200, 590))
    expert.grow(len(items))
    everything = np.arange(len(items), dtype=np.int32)
    for batch in made:
        were, earlier = expert.shares(everything), expert.before(batch.items)
        expert.learn(batch)
        found = expert.shares_before(earlier, everything)
        np.testing.assert_allclose(found, were, rtol=1e-5, atol=1e-12)
        assert not np.allclose(expert.shares(everything), were)
