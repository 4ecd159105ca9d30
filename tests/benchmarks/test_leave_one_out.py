"""Leave-one-out: both get the same split and the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.leave_one_out import __main__ as bench
from benchmarks.quality.streams import Spec
from headwater.config import Config
from headwater.ingest import Interactions, read_interactions
from headwater.leave_one_out import LEFT_OUT, TEST, parts

SPEC = Spec("any", repeats=False, grouped=False)


@pytest.fixture
def interactions(tmp_path: Path) -> Interactions:
    """Users who go round a ring of 30 items, each from another one."""
    lines = ["user_id,item_id,timestamp,rating"]
    lines += [
        f"u{u},i{(3 * u + k) % 30},{1_400_000_000 + 40 * k + u},4"
        for k in range(12)
        for u in range(40)
    ]
    path = tmp_path / "ring.csv"
    path.write_text("\n".join(lines) + "\n")
    return read_interactions(path)


@pytest.mark.parametrize(("theirs", "met"), [(0.01, True), (1.01, False)])
def test_ours_is_judged_beside_the_peer_with_the_time_it_took(
    interactions: Interactions, monkeypatch: pytest.MonkeyPatch, theirs: float, met: bool
) -> None:
    given: list[float] = []

    def peer(_: Interactions, config: Config, seconds: float) -> dict[str, Any]:
        given.append(seconds)
        return {"n": 40, "ndcg@10": theirs, "hit_rate@10": theirs}

    monkeypatch.setattr(bench, "_sasrec", peer)
    found = bench.measure(interactions, SPEC, 0.02)
    assert found["met"] is met
    assert found["headwater"]["processor_seconds"] == pytest.approx(given[0], abs=0.05)
    assert 0.1 < found["headwater"]["ndcg@10"] <= 1


def test_a_peer_with_other_users_is_noticed(
    interactions: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_sasrec", lambda *_: {"n": 39, "ndcg@10": 0.0})
    with pytest.raises(ValueError, match="39 of the peer"):
        bench.measure(interactions, SPEC, 0.02)


def test_rectools_learns_the_ring(interactions: Interactions) -> None:
    pytest.importorskip("rectools", reason="RecTools isn't here: its SASRec is NOT tested")
    from benchmarks.leave_one_out.rectools_worker import fit_and_test

    roles = parts(interactions, Config.model_validate({"recommend": {"repeats": False}}))
    assert LEFT_OUT not in roles
    users, items = np.asarray(interactions.user_codes), np.asarray(interactions.item_codes)
    split: dict[str, np.ndarray] = {"users": users, "items": items, "roles": np.asarray(roles)}
    settings = {"n_factors": 32, "n_blocks": 1, "n_heads": 1, "session_max_len": 20, "seed": 1}
    found = fit_and_test(split, settings, 20.0)
    assert found["n"] == int(np.count_nonzero(roles == TEST))
    assert found["ndcg@10"] > 0.5
