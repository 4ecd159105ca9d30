"""The rollback and drift parts of the safety benchmark: what they would miss if it were there."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks.safety import drift, swaps
from benchmarks.safety.figures import missed
from benchmarks.safety.swaps import SMALL, Answer, Swaps, swap
from headwater import data
from headwater.config import Config


def seen(*answers: Answer) -> Swaps:
    return Swaps([0.1], [0.1], taught=[10, 20], rolled_back=[12, 22], answers=list(answers))


@pytest.mark.parametrize(
    ("sequence", "pushed", "whole", "mixed"),
    [
        (9, [], True, False),
        (9, ["pushed-0"], True, False),  # counted, not learned yet
        (10, ["pushed-0"], True, False),
        (11, [], True, True),
        (11, [], False, False),
        (12, ["pushed-0"], True, True),
        (13, ["pushed-0"], False, True),
        (13, ["pushed-1"], True, False),
        (21, ["pushed-0", "pushed-1"], True, True),
        (22, [], True, False),
    ],
)
def test_an_answer_is_mixed_where_it_holds_or_lacks_what_its_update_says(
    sequence: int, pushed: list[str], whole: bool, mixed: bool
) -> None:
    assert seen(Answer(sequence, frozenset(pushed), whole)).mixed == mixed


def test_rollbacks_under_load_fail_and_mix_nothing() -> None:
    config = Config.model_validate(SMALL)
    for oldest in (False, True):
        found = asyncio.run(swap(config, 300, 2, oldest=oldest))
        assert found.figures()["swaps"] == 2
        assert (found.failed, found.mixed) == (0, 0)
        assert {answer.whole for answer in found.answers} == {True, False}
        assert any(answer.pushed for answer in found.answers)
        assert found.rolled_back[0] < found.taught[1] < found.rolled_back[1]


def test_a_late_rollback_and_a_failed_answer_are_missed() -> None:
    found = {name: seen().figures() for name in ("small", "newest", "oldest")}
    assert not missed(swaps.figures(found))
    found["oldest"]["seconds"]["most"] = 9.0
    assert not missed(swaps.figures(found))
    found["newest"]["seconds"]["most"] = 1.1
    assert missed(swaps.figures(found))
    found["newest"]["seconds"]["most"] = 0.9
    found["small"]["failed"] = 1
    assert missed(swaps.figures(found))


def test_a_change_permutes_the_items_from_one_event_on() -> None:
    path = data.path("movietweetings-100k") / "interactions.parquet"
    one, other = drift.changed(path, 300, 300), drift.changed(path, 100, 300)
    assert (one.item_codes[:100] == other.item_codes[:100]).all()
    before, after = one.item_codes[100:], other.item_codes[100:]
    assert (
        len(np.unique(before)) == len(np.unique(after)) == len(set(zip(before, after, strict=True)))
    )
    assert (before != after).mean() > 0.9


def test_recovery_is_measured_against_the_stream_without_the_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drift, "WINDOW", 10)
    unchanged = np.full(100, 0.5)
    unchanged[80:] = 0.2
    gains = np.concatenate([np.full(50, 0.5), np.zeros(30), np.full(20, 0.2)])
    found = drift.recovery(gains, unchanged, 50)
    assert found["recovered_after"] == 40
    assert found["recovered_to_before_after"] is None
    assert (found["before"], found["stretches"][0]) == (0.5, 0.0)


def test_models_fitted_every_hour_know_nothing_of_the_running_hour() -> None:
    path = data.path("movietweetings-100k") / "interactions.parquet"
    stream = drift.changed(path, 2_000, 2_000)
    hours = stream.timestamps // 3600
    first = hours == hours[0]
    for knn in (False, True):
        gains = drift.hourly(stream, knn)
        assert gains[first].sum() == 0.0
        assert 0.02 < gains[1_000:].mean() < 0.3


def test_a_drift_that_others_are_over_first_is_missed() -> None:
    after = (("headwater", 2_000), ("unraised", 1_000), ("other", None))
    models = {name: {"recovered_after": at} for name, at in after}
    told = [{"what": "items", "offset": 8_000}, {"what": "hit_rate", "offset": 7_400}]
    found = {"change": 7_000, "models": models, "told": told, "told_without_a_change": []}
    assert not missed(drift.figures(found))
    assert missed(drift.figures({**found, "told": told[:1]})), "by a detector too"
    assert missed(drift.figures({**found, "told": told[1:]})), "by the mix of items too"
    assert missed(drift.figures({**found, "told_without_a_change": told[1:]}))
    models["other"]["recovered_after"] = 1_500
    assert missed(drift.figures(found))
