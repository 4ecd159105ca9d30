"""What is served late is the model of then, and measuring it changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.freshness import measuring
from benchmarks.freshness.drawing import draw
from benchmarks.freshness.measuring import DAY, FROZEN, LIVE, Withheld, measure
from benchmarks.quality.protocol import MISS
from benchmarks.quality.streams import Spec
from headwater.config import Config
from headwater.ingest import Interactions, read_interactions
from headwater.loop._stages import _PORTION
from headwater.replay import replay

SPEC = Spec("any", repeats=True, grouped=False)
N = 1_000


@pytest.fixture(scope="module")
def interactions(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    """Users go round a ring of items, which is another one in the second half."""
    random = np.random.default_rng(1)
    users = random.integers(20, size=N)
    place: dict[int, int] = {}
    lines = ["user_id,item_id,timestamp"]
    for k, user in enumerate(users.tolist()):
        place[user] = place.get(user, user) + 1
        item = place[user] % 12 + (100 if k >= N // 2 else 0)
        lines.append(f"u{user},i{item},{1_400_000_000 + 400 * k}")
    path = tmp_path_factory.mktemp("stream") / "ring.csv"
    path.write_text("\n".join(lines) + "\n")
    return read_interactions(path)


def ranks(interactions: Interactions, *served: Withheld) -> list[list[int]]:
    # A micro-batch of one portion: what is live counts no event of it before the last is ranked.
    config = Config.model_validate(
        {"recommend": {"repeats": True}, "train": {"batch_events": _PORTION}}
    )

    def beside(learner: object, batch: object) -> None:
        for one in served:
            one(learner, batch)  # type: ignore[arg-type]

    replayed = replay(interactions, [], config, beside=beside)
    nobody = [""] * len(replayed.positions)
    table = replayed.report.ranks_table(replayed.positions, nobody, nobody)
    live = table["rank"].cast(float).fill_null(MISS).to_list()
    return [live, *(np.concatenate(one.ranks).tolist() for one in served)]


def test_an_update_that_is_never_late_serves_what_is_live(interactions: Interactions) -> None:
    at_once = Withheld(lambda learned, time, begun: learned, 0)
    live, served = ranks(interactions, at_once)
    assert served == live


def test_measuring_changes_nothing(interactions: Interactions) -> None:
    late = Withheld(lambda learned, time, begun: learned // 300, 0)
    assert ranks(interactions, late)[0] == ranks(interactions)[0]


def test_what_is_frozen_never_proposes_what_came_later(interactions: Interactions) -> None:
    found = measure(interactions, SPEC, lambda events, figures: None)
    assert found[LIVE]["n"] == N // 2
    assert found[LIVE]["ndcg@10"] > 0.5
    # All items of the second half are new.
    assert found[FROZEN]["ndcg@10"] == found["10,000 events"]["ndcg@10"] == 0.0
    assert 0 < found[DAY]["ndcg@10"] < found[LIVE]["ndcg@10"]
    assert found[DAY]["events"] == pytest.approx(216, abs=2)
    assert found[DAY]["ours_ahead"] > 0


def test_equal_rows_of_a_moment_are_one_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They aren't in what is learned either, so that places in the file run ahead of it."""
    monkeypatch.setattr(measuring, "DELAYS", {FROZEN: measuring.DELAYS[FROZEN]})
    lines = [f"u{k % 7},i{k % 5},{1_400_000_000 + k // 3}" for k in range(300)]
    twice = [line for line in lines for _ in range(2)]
    path = tmp_path / "twice.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *twice]) + "\n")
    grouped = Spec("any", repeats=True, grouped=True)
    found = measure(read_interactions(path), grouped, lambda events, figures: None)
    assert found[LIVE]["n"] == found[FROZEN]["n"] == 150


def test_the_chart_is_drawn(
    tmp_path: Path, interactions: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(measuring, "DELAYS", {FROZEN: measuring.DELAYS[FROZEN]})
    found = measure(interactions, SPEC, lambda events, figures: None)
    draw(tmp_path / "chart.png", {"ring": found})
    assert (tmp_path / "chart.png").stat().st_size > 1000
