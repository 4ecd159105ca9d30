from __future__ import annotations

import numpy as np
import pytest

from headwater.config import Config
from headwater.loop import Fold
from headwater.model import EVIDENCE, EXPERTS
from headwater.recommend import Features
from headwater.testing import checkerboard
from headwater.types import NO_ROW, Entry, Item, Request
from tests.model.arrays import small
from tests.recommend.learned import NOW, learned, learner, requests


@pytest.fixture(scope="module")
def fold() -> Fold:
    return learned()


def filled(fold, asked, now=NOW):
    """Features, and the rows they are of, for some requests."""
    contexts = fold.preprocess.contexts(asked, now)
    ranking = fold.recommender.rank(contexts, fold.withheld())
    return ranking.features, ranking.rows


def columns(fold, start):
    names = fold.recommender.features.names
    return [column for column, name in enumerate(names) if name.startswith(start)]


@pytest.mark.parametrize("hours", [(1.0,), (0.5, 24.0, 96.5)])
def test_the_layout_is_fixed_by_the_configuration(hours):
    config = Config.model_validate({"popularity": {"half_lives_hours": hours}})
    one, other = Features(config), Features(config)
    assert one.names == other.names
    assert len(one) == len(one.names) == len(set(one.names))
    assert {name.split(".")[0] for name in one.names} == {*EXPERTS, "item", "request"}
    assert [n for n in one.names if n.endswith("h")] == [
        f"popularity.log_share.{h:g}h" for h in hours
    ]


def test_each_expert_speaks_through_its_own_columns(fold):
    mixture = fold.model.mixture
    for expert in EXPERTS:
        assert mixture.groups[expert].tolist() == columns(fold, f"{expert}.")
    assert len(mixture.silence) == len(fold.recommender.features)
    assert not mixture.silence[columns(fold, "item.") + columns(fold, "request.")].any()


EDGES = {
    "unknown user": (NOW, Request(10, "nobody")),
    "no history": (NOW, Request(10)),
    "an unknown session": (NOW, Request(10, session_items=("no such item",))),
    "a session": (NOW, Request(10, session_items=("i1", "i2"))),
    "long ago": (NOW + 1e9, Request(10, "u0")),
    "before the newest event": (0.0, Request(10, "u0")),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("events", [1, 60, 400])
def test_features_are_finite_numbers_of_a_sane_size(edge, events):
    now, request = EDGES[edge]
    fold = learned(events, recommend={"catalogue": "all"})
    features, rows = filled(fold, [request], now)
    assert features.dtype == np.float32
    assert features.shape == (1, rows.shape[1], len(fold.recommender.features))
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 10.0
    assert (rows >= 0).any()


def test_an_item_that_no_event_named_has_finite_features():
    entries: list[Entry] = [*checkerboard(60), Item("new", title="new")]
    fold = learner(entries, small(recommend={"catalogue": "all"})).fold
    contexts = fold.preprocess.contexts(requests(), NOW)
    ranking = fold.recommender.rank(contexts, fold.withheld(), 60)
    features, rows = ranking.features, ranking.rows
    new = rows == fold.preprocess.items.find("new")
    assert new.any()
    assert np.isfinite(features[new]).all()
    own = columns(fold, "popularity.log_share")
    assert (features[new][:, own] == fold.model.mixture.silence[own]).all()


@pytest.mark.parametrize("expert", ["transitions", "neighbours", "precedents", "habits", "content"])
def test_an_expert_that_knows_nothing_is_as_silent_as_silence(fold, expert):
    features, rows = filled(fold, [Request(10), Request(10, "u0")])
    silence = fold.model.mixture.silence
    own = columns(fold, f"{expert}.")
    nobody = features[0][rows[0] >= 0][:, own]
    assert (nobody == silence[own]).all()
    assert (features[1][rows[1] >= 0][:, own] != silence[own]).any()


def test_what_content_says_is_there_as_it_is(fold):
    asked = [Request(10, "u0"), Request(10, "u1")]
    features, rows = filled(fold, asked)
    tastes = fold.model.content.weigh(fold.preprocess.contexts(asked, NOW))
    own = columns(fold, "content.")[-len(EVIDENCE) :]
    assert [fold.recommender.features.names[c].split(".")[1] for c in own] == list(EVIDENCE)
    there = rows >= 0
    assert (features[:, :, own] == tastes.evidence(rows))[there].all()
    assert features[:, :, own][there].any(axis=0)[[0, 2, 3]].all()


def test_what_is_said_of_the_request_is_the_same_for_all_its_candidates(fold):
    features, rows = filled(fold, requests())
    said = features[:, :, columns(fold, "request.")]
    assert (said == said[:, :1])[rows >= 0].all()
    assert not features[rows < 0].any()
    assert len(np.unique(said[:, 0], axis=0)) >= 4


def test_history_falls_into_one_bucket(fold):
    buckets = columns(fold, "request.history.")
    for length, bucket in [(0, 0), (1, 1), (4, 1), (5, 2), (19, 2), (20, 3), (300, 3)]:
        asked = Request(10, session_items=("i1",) * length)
        features, _ = filled(fold, [asked])
        assert features[0, 0, buckets].tolist() == [float(k == bucket) for k in range(4)]


@pytest.mark.parametrize("expert", EXPERTS)
def test_the_place_in_an_experts_list_is_said_as_its_reciprocal(fold, expert):
    contexts = fold.preprocess.contexts(requests(), NOW)
    ranking = fold.recommender.rank(contexts, fold.withheld())
    (column,) = columns(fold, f"{expert}.reciprocal_place")
    for b in range(len(contexts)):
        own = ranking.expert_rows[expert][b].tolist()
        for c, row in enumerate(ranking.rows[b].tolist()):
            if row != NO_ROW:
                expected = 1.0 / (1 + own.index(row)) if row in own else 0.0
                assert ranking.features[b, c, column] == pytest.approx(expected)


@pytest.mark.parametrize("expert", EXPERTS)
def test_a_better_place_goes_with_a_larger_share(fold, expert):
    features, _ = filled(fold, [Request(10, "u0"), Request(10, "u1")])
    share, place = columns(fold, f"{expert}.log_share")[0], columns(fold, f"{expert}.rec")[0]
    for b in range(2):
        listed = features[b][features[b][:, place] > 0]
        order = np.argsort(-listed[:, place])
        assert len(listed) > 3
        assert (np.diff(listed[order, share]) <= 1e-6).all()
        assert listed[order[0], share] > listed[order[-1], share]


def test_older_and_rarer_items_say_so(fold):
    features, rows = filled(fold, [Request(10, "u0")])
    there = rows[0] >= 0
    popularity = fold.model.popularity
    own = rows[0][there]
    for name, value in (
        ("item.log_events", popularity.events[own]),
        ("item.log_age", NOW - popularity.first_times[own]),
        ("item.log_idle", NOW - popularity.last_times[own]),
    ):
        (column,) = columns(fold, name)
        order = np.argsort(value, kind="stable")
        assert (np.diff(features[0][there][order, column]) >= 0).all(), name
