"""The metrics of ranks, against an independent implementation: ir-measures (pytrec_eval)."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, P, R, Success, nDCG

from headwater.evaluate import RANK_METRICS

PEERS = {
    "hit_rate@10": Success @ 10,
    "ndcg@10": nDCG @ 10,
    "mrr@10": RR @ 10,
    "precision@10": P @ 10,
    "accuracy@1": P @ 1,
    "recall@20": R @ 20,
    "mrr@20": RR @ 20,
}


@pytest.fixture(scope="module")
def ranks() -> np.ndarray:
    """Places of the true item, the edges of every cut-off among them; -1 is not in the list."""
    random = np.random.default_rng(0)
    return np.concatenate([np.arange(-1, 25), random.integers(-1, 100, 300)])


@pytest.fixture(scope="module")
def peers(ranks: np.ndarray) -> dict[str, np.ndarray]:
    queries = {
        f"{q:03}": {f"d{place}": 100.0 - place for place in range(100)} for q in range(len(ranks))
    }
    truth = {f"{q:03}": {f"d{rank}" if rank >= 0 else "other": 1} for q, rank in enumerate(ranks)}
    found = {name: np.zeros(len(ranks)) for name in PEERS}
    names = {measure: name for name, measure in PEERS.items()}
    for one in ir_measures.iter_calc(list(PEERS.values()), truth, queries):
        found[names[one.measure]][int(one.query_id)] = one.value
    return found


@pytest.mark.parametrize("name", PEERS)
def test_a_metric_is_what_others_compute(
    name: str, ranks: np.ndarray, peers: dict[str, np.ndarray]
) -> None:
    ours = RANK_METRICS[name](ranks)
    assert 0 < ours.mean() < 1
    np.testing.assert_allclose(ours, peers[name], atol=1e-9)


def test_f1_is_that_of_their_precision_and_recall(ranks: np.ndarray) -> None:
    precision, recall = RANK_METRICS["precision@10"](ranks), RANK_METRICS["hit_rate@10"](ranks)
    total = precision + recall
    expected = np.divide(2 * precision * recall, total, out=np.zeros(len(ranks)), where=total > 0)
    np.testing.assert_allclose(RANK_METRICS["f1@10"](ranks), expected)


def test_every_metric_is_checked() -> None:
    assert RANK_METRICS.keys() - PEERS.keys() == {"f1@10"}
