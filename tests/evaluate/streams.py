"""Random predictions beside events, and the protocol's figures computed the slow, plain way."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Any

import numpy as np

from headwater.types import NO_ROW, Batch, Contexts, Ranking

EXPERTS = ("popularity", "sequence")
ITEMS = 40


def contexts(history_lengths):
    size = len(history_lengths)
    return Contexts(
        users=np.zeros(size, np.int32),
        times=np.zeros(size),
        history_items=np.full((size, 1), NO_ROW, np.int32),
        history_types=np.zeros((size, 1), np.uint8),
        history_times=np.zeros((size, 1)),
        history_cleaned=np.zeros((size, 1), np.bool_),
        history_lengths=np.array(history_lengths, np.int64),
        session_lengths=np.zeros(size, np.int32),
        excluded_starts=np.zeros(size + 1, np.int64),
        excluded=np.zeros(0, np.int32),
    )


def batch(items, history_lengths=None, item_events_before=None, targets=None) -> Batch:
    size = len(items)
    return Batch(
        offsets=np.arange(1, size + 1),
        items=np.array(items, np.int32),
        types=np.zeros(size, np.uint8),
        weights=np.ones(size, np.float32),
        polarities=np.ones(size, np.int8),
        targets=np.ones(size, np.bool_) if targets is None else np.array(targets),
        item_events_before=np.array(item_events_before or [0] * size, np.int64),
        contexts=contexts(history_lengths or [0] * size),
        end=size,
    )


def ranking(mixture, **experts) -> Ranking:
    rows = np.array(mixture, np.int32)
    return Ranking(
        rows=rows,
        scores=np.zeros(rows.shape, np.float32),
        features=np.zeros((*rows.shape, 1), np.float32),
        expert_rows={name: np.array(lists, np.int32) for name, lists in experts.items()},
    )


@dataclass
class Step:
    batch: Batch
    ranking: Ranking
    item_counts: np.ndarray
    total_events: int


def stream(batches: int, seed: int = 0, size: int = 30) -> list[Step]:
    """Steps of a stream in which lists are sometimes short and some events are no targets."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(ITEMS, np.int64)
    counts[:5] = 1
    steps = []
    for _ in range(batches):
        items = rng.integers(0, ITEMS, size)

        def lists(width: int) -> Any:
            found = np.full((size, width), NO_ROW, np.int32)
            for row in found:
                length = rng.integers(0, min(width, ITEMS) + 1)
                row[:length] = rng.permutation(ITEMS)[:length]
            return found

        steps.append(
            Step(
                batch(
                    items,
                    history_lengths=rng.choice([0, 1, 4, 5, 19, 20, 300], size).tolist(),
                    item_events_before=rng.choice([0, 9, 10, 99, 100, 5000], size).tolist(),
                    targets=rng.random(size) < 0.8,
                ),
                ranking(lists(35), popularity=lists(30), sequence=lists(8)),
                counts.copy(),
                int(counts.sum()),
            )
        )
        np.add.at(counts, items, 1)
    return steps


def plain_predictions(steps: list[Step]) -> list[dict[str, Any]]:
    """One record per target: rank and top ten by model, read off with list operations."""
    records = []
    for step in steps:
        for place in range(len(step.batch)):
            if not step.batch.targets[place]:
                continue
            item = int(step.batch.items[place])
            models = {"mixture": step.ranking.rows, **step.ranking.expert_rows}
            record: dict[str, Any] = {
                "history": int(step.batch.contexts.history_lengths[place]),
                "item_age": int(step.batch.item_events_before[place]),
                "ranks": {},
                "tops": {},
                "novelty": {},
            }
            for name, rows in models.items():
                served = [int(row) for row in rows[place] if row != NO_ROW][:100]
                record["ranks"][name] = served.index(item) if item in served else None
                top = served[:10]
                record["tops"][name] = top
                shares = [max(1, int(step.item_counts[row])) / step.total_events for row in top]
                surprise = [-log2(share) for share in shares]
                record["novelty"][name] = sum(surprise) / len(surprise) if surprise else None
            records.append(record)
    return records


def plain_figures(records: list[dict[str, Any]], model: str) -> dict[str, float]:
    """The rank metrics of the protocol as plain means."""
    ranks = [record["ranks"][model] for record in records]
    n = len(ranks)
    top10 = [rank for rank in ranks if rank is not None and rank < 10]
    top20 = [rank for rank in ranks if rank is not None and rank < 20]
    hit_rate = len(top10) / n
    precision = hit_rate / 10
    return {
        "hit_rate@10": hit_rate,
        "ndcg@10": sum(1 / log2(rank + 2) for rank in top10) / n,
        "mrr@10": sum(1 / (rank + 1) for rank in top10) / n,
        "precision@10": precision,
        "f1@10": 2 * precision * hit_rate / (precision + hit_rate) if hit_rate else 0.0,
        "accuracy@1": ranks.count(0) / n,
        "recall@20": len(top20) / n,
        "mrr@20": sum(1 / (rank + 1) for rank in top20) / n,
    }


def plain_novelty(records: list[dict[str, Any]], model: str) -> float:
    known = [record["novelty"][model] for record in records if record["novelty"][model] is not None]
    return float(sum(known) / len(known))


def plain_shown(records: list[dict[str, Any]], model: str) -> int:
    return len({item for record in records for item in record["tops"][model]})


def in_bucket(number: int, bucket: str) -> bool:
    if bucket.endswith("+"):
        return number >= int(bucket[:-1])
    low, _, high = bucket.partition("-")
    return int(low) <= number <= int(high or low)
