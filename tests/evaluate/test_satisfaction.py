"""Proxies of satisfaction, against counts by hand and a slow second computation."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import Config
from headwater.evaluate import Satisfaction, gini, list_diversity
from headwater.preprocess import Preprocessor
from headwater.types import NO_ROW, Event, Ints, Metric, Record

HOUR, DAY = 3600.0, 86_400.0
CONFIG = Config.model_validate({"evaluate": {"window": 100}})


def event(
    n: int, at: float, type: str = "view", user: str = "u", value: float | None = None
) -> Record:
    return Record(n, at, at, Event(f"e{n}", type, user, at, item_id=f"i{n}", value=value))


def feed(
    records: list[Record], size: int = 100, config: Config = CONFIG, categories: Ints | None = None
) -> Satisfaction:
    preprocess = Preprocessor(config)
    made = Satisfaction(config, preprocess.type_names)
    for start in range(0, len(records), size):
        part = records[start : start + size]
        batch, *_ = preprocess.batch(part)
        values = [getattr(r.entry, "value", None) for r in part]
        floats = np.array([np.nan if v is None else v for v in values], np.float32)
        own = np.full((len(batch), 1, 1), NO_ROW, np.int32)
        if categories is not None:
            own = np.broadcast_to(categories, (len(batch), *categories.shape))
        made.observe(batch, floats, np.zeros(own.shape[:2], np.int32), own)
    return made


def figures(made: Satisfaction) -> dict[str, Metric]:
    found = made.metrics()
    if not found:
        return {}
    assert [(one.window, one.segment) for one in found] == [("newest", "satisfaction")]
    return found[0].values


def test_what_is_wanted_and_what_is_skipped() -> None:
    kinds = ["view", "like", "skip", "dislike", "search", "impression", "purchase", "skip"]
    found = figures(feed([event(k + 1, 1e6 + k, kind) for k, kind in enumerate(kinds)]))
    assert (found["positive_share"].value, found["positive_share"].n) == (0.5, 6)
    assert found["skip_share"].value == pytest.approx(1 / 3)
    assert found["skip_share"].n == 6
    assert found["skip_share"].low < 1 / 3 < found["skip_share"].high


def test_values_are_averaged_by_type() -> None:
    told = [("rating", 4.0), ("rating", -5.0), ("dwell", 30.0), ("survey", 2.0), ("rating", None)]
    told += [("view", 1000.0)]
    records = [event(k + 1, 1e6 + k, kind, value=v) for k, (kind, v) in enumerate(told)]
    found = figures(feed(records))
    assert (found["rating_mean"].value, found["rating_mean"].n) == (-0.5, 2)
    assert found["rating_mean"].low < -5.0
    assert (found["dwell_mean"].value, found["dwell_mean"].n) == (30.0, 1)
    assert (found["survey_mean"].value, found["survey_mean"].n) == (2.0, 1)


def test_the_newest_count() -> None:
    records = [event(k + 1, 1e6 + k, "rating", value=float(k)) for k in range(250)]
    found = figures(feed(records))
    assert found["rating_mean"].n == 100
    assert found["rating_mean"].value == np.mean(range(150, 250))


def test_visits_and_returns() -> None:
    times = {
        "back": [0.0, 60.0, HOUR, 2 * HOUR],  # two returns; the visit that runs is undecided
        "late": [0.0, 2 * DAY],
        "gone": [10.0],
    }
    records = [event(0, 1e6 + at, user=user) for user, own in times.items() for at in own]
    records.sort(key=lambda record: record.stream_time)
    found = figures(feed(records, 2))["return_share"]
    # Decided: two returns of "back" and its last visit, that of "late", and that of "gone".
    assert (found.value, found.n) == (2 / 5, 5)


def test_searches_alone_are_no_visit() -> None:
    assert figures(feed([event(1, 1e6, "search"), event(2, 1e6 + 5 * DAY, "search")])) == {}


def brute(shown: Any, categories: Any) -> float:
    sets = [
        {int(c) for c in own if c >= 0}
        for row, own in zip(shown, categories, strict=True)
        if row >= 0
    ]
    pairs = [1 - len(a & b) / len(a | b) for a, b in combinations([s for s in sets if s], 2)]
    return float(np.mean(pairs)) if pairs else float("nan")


@given(st.integers(0, 10_000))
def test_diversity_is_the_mean_over_the_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = random.integers(1, [5, 8, 5])
    shown = random.integers(-1, 20, shape[:2]).astype(np.int32)
    categories = np.full(shape, NO_ROW, np.int32)
    for place in np.ndindex(*shape[:2]):
        own = random.permutation(6)[: random.integers(0, shape[2] + 1)]
        categories[place][: len(own)] = own
    found = list_diversity(shown, categories)
    expected = [brute(s, c) for s, c in zip(shown, categories, strict=True)]
    np.testing.assert_allclose(found, expected)


def test_diversity_of_served_lists_is_averaged() -> None:
    categories = np.array([[0, NO_ROW], [0, 1], [2, NO_ROW]], np.int32)
    found = figures(feed([event(1, 1e6)], categories=categories))["diversity@10"]
    assert found.value == pytest.approx((0.5 + 1 + 1) / 3)
    assert found.n == 1


def test_gini_knows_its_ends() -> None:
    counts = np.random.default_rng(0).integers(0, 50, 200)
    spread = np.abs(counts[:, None] - counts[None]).mean()
    assert gini(counts) == pytest.approx(spread / (2 * counts.mean()))
    assert gini(np.zeros(5)) == 0.0


def stream(n: int = 400) -> list[Record]:
    random = np.random.default_rng(3)
    kinds = ["view", "rating", "skip", "dwell", "survey"]
    found, at = [], 1e6
    for k in range(n):
        at += float(random.exponential(HOUR))
        kind = kinds[random.integers(len(kinds))]
        found.append(event(k + 1, at, kind, f"u{random.integers(20)}", float(random.integers(6))))
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_it_doesnt_depend_on_where_batches_end() -> None:
    assert same(feed(stream(), 7).state(), feed(stream(), 100).state())


def test_a_state_goes_on_where_it_was() -> None:
    made = feed(stream())
    other = Satisfaction(CONFIG, Preprocessor(CONFIG).type_names)
    other.load(made.state())
    assert other.metrics() == made.metrics()
    assert same(other.state(), made.state())
    shorter = Config.model_validate({"evaluate": {"window": 100}})
    assert max(len(v) for k, v in made.state().items() if k.startswith("newest")) == 100
    assert shorter.evaluate.window == 100


def test_forgetting_who_has_stayed_away_changes_no_figure() -> None:
    visits = [(0.0, "a"), (2 * HOUR, "a"), (1 * HOUR, "b"), (3 * HOUR, "gone"), (DAY, "c")]
    times = sorted(1e6 + at for at, _ in visits)
    users = [user for _, user in sorted(visits)]
    stream = [
        event(n + 1, at, user=user) for n, (at, user) in enumerate(zip(times, users, strict=True))
    ]
    stream.append(event(9, 1e6 + 3 * DAY, user="c"))
    made = feed(stream)
    before = figures(made)
    names = list(dict.fromkeys(users))
    made.forget(np.array([names.index("gone"), names.index("b")], np.int32))
    assert figures(made) == before
    made.forget(np.array([names.index("c"), 99], np.int32))
    assert figures(made) == before, "a visit that isn't over a day ago isn't decided"
    assert before["return_share"].n > 3


def test_the_events_of_users_without_a_row_are_nobodys_visits() -> None:
    config = Config.model_validate({"preprocess": {"admit_users_after": 2}})
    made = feed([event(1, 1e6), event(2, 1e6 + 10.0, user="v")], config=config)
    assert made.state()["last_times"].tolist() == []
