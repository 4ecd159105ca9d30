"""Ranks -> figures with their intervals, and goals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocol import Flags, Ranks, gains
from benchmarks.quality.streams import Spec

OURS = "headwater"
RESAMPLES = 500
EXPERT_BOUND = -0.01
"""The mixture may lose at most this share to its best expert, at the interval's lower end."""

SEGMENT_EVENTS = 2_000
"""Fewest targets of a segment that is judged."""

Figures = dict[str, dict[str, Any]]


def figures(ranks: Ranks, *, resamples: int = RESAMPLES, seed: int = 0) -> Figures:
    """Model -> figures of the second half; ``headwater`` is one of the models."""
    half = second_half(len(ranks[OURS]))
    return paired({name: one[half] for name, one in ranks.items()}, OURS, resamples, seed)


def paired(ranks: Ranks, own: str, resamples: int = RESAMPLES, seed: int = 0) -> Figures:
    """Model -> figures of all ranks, and how far ``own`` is ahead of it.

    Intervals are the 2.5 and 97.5 percentiles of a bootstrap over events (Efron, 1979), the same
    events for every model: ``ours_ahead`` is our figure over the model's, minus 1.
    """
    names = list(ranks)
    gain = np.stack([gains(ranks[name]) for name in names], axis=1)
    hit = np.stack([(ranks[name] >= 0) & (ranks[name] < 10) for name in names], axis=1)
    size = len(gain)
    random = np.random.default_rng(seed)
    means = np.empty((resamples, len(names)))
    for k in range(resamples):
        counts = np.bincount(random.integers(size, size=size), minlength=size)
        means[k] = counts @ gain / size
    at = names.index(own)
    found: Figures = {}
    for m, name in enumerate(names):
        value = float(gain[:, m].mean())
        found[name] = {
            "n": size,
            "ndcg@10": value,
            "ndcg@10_interval": _ends(means[:, m]),
            "hit_rate@10": float(hit[:, m].mean()),
        }
        if m != at and means[:, m].min() > 0:  # of nothing there is no multiple
            ratios = means[:, at] / means[:, m] - 1.0
            found[name]["ours_ahead"] = float(gain[:, at].mean()) / value - 1.0
            found[name]["ours_ahead_interval"] = _ends(ratios)
    return found


def segments(ranks: Ranks, experts: list[str], within: dict[str, Flags]) -> dict[str, Figures]:
    """Segment of the second half -> figures of ours and the experts, where it is large enough.

    Args:
        ranks: of all targets; ``headwater`` and the experts are among them.
        experts: names.
        within: segment -> (n,) the targets that are in it.
    """
    half = second_half(len(ranks[OURS]))
    found = {}
    for name, inside in within.items():
        if inside[half].sum() >= SEGMENT_EVENTS:
            of = {model: ranks[model][half][inside[half]] for model in (OURS, *experts)}
            found[name] = paired(of, OURS)
    return found


def second_half(n: int) -> slice:
    return slice((n + 1) // 2, None)


def best(found: Figures, names: list[str]) -> str:
    return max(names, key=lambda name: float(found[name]["ndcg@10"]))


def goals(
    spec: Spec,
    found: Figures,
    experts: list[str],
    peers: list[str],
    parts: dict[str, Figures],
) -> list[dict[str, Any]]:
    """What is asked of a stream: each with its figure, its limit, and whether it is met.

    The mixture is judged beside the best expert of the stream, and of each of its ``parts``.
    """
    ours = found[OURS]["ndcg@10"]
    asked: list[dict[str, Any]] = []
    if spec.goal is not None:
        asked.append({"goal": "NDCG@10", "figure": ours, "limit": spec.goal, "against": None})
    if spec.margin is not None and peers:
        rival = best(found, peers)
        limit = spec.margin * found[rival]["ndcg@10"]
        asked.append({"goal": "NDCG@10", "figure": ours, "limit": limit, "against": rival})
    for part, of in {"": found, **parts}.items():
        rival = best(of, experts)
        if "ours_ahead" in of[rival]:
            low = of[rival]["ours_ahead_interval"][0]
            goal = f"bound ahead of the best expert{part and ', '}{part}"
            asked.append({"goal": goal, "figure": low, "limit": EXPERT_BOUND, "against": rival})
    for entry in asked:
        entry["met"] = bool(entry["figure"] >= entry["limit"])
    return asked


def _ends(values: NDArray[np.float64]) -> list[float]:
    return [float(end) for end in np.percentile(values, [2.5, 97.5])]
