"""Ranks -> figures with their intervals, goals, the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocol import gains
from benchmarks.quality.streams import Spec

RESAMPLES = 500
EXPERT_BOUND = -0.01
"""The mixture may lose at most this share to one of its experts, at the paired interval's end."""


def figures(
    ranks: dict[str, NDArray[np.float64]], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Model -> figures of the second half; ``headwater`` is one of the models.

    Intervals are the 2.5 and 97.5 percentiles of a bootstrap over events (Efron, 1979), the same
    events for every model: ``ours_ahead`` is our figure over the model's, minus 1.
    """
    names = list(ranks)
    n = len(ranks["headwater"])
    half = slice((n + 1) // 2, None)
    gain = np.stack([gains(ranks[name][half]) for name in names], axis=1)
    hit = np.stack([(ranks[name][half] >= 0) & (ranks[name][half] < 10) for name in names], axis=1)
    size = len(gain)
    random = np.random.default_rng(seed)
    means = np.empty((resamples, len(names)))
    for k in range(resamples):
        counts = np.bincount(random.integers(size, size=size), minlength=size)
        means[k] = counts @ gain / size
    own = names.index("headwater")
    found: dict[str, dict[str, Any]] = {}
    for m, name in enumerate(names):
        value = float(gain[:, m].mean())
        found[name] = {
            "n": size,
            "ndcg@10": value,
            "ndcg@10_interval": _ends(means[:, m]),
            "hit_rate@10": float(hit[:, m].mean()),
        }
        if m != own and means[:, m].min() > 0:  # of nothing there is no multiple
            ratios = means[:, own] / means[:, m] - 1.0
            found[name]["ours_ahead"] = float(gain[:, own].mean()) / value - 1.0
            found[name]["ours_ahead_interval"] = _ends(ratios)
    return found


def goals(
    spec: Spec, found: dict[str, dict[str, Any]], experts: list[str], peers: list[str]
) -> list[dict[str, Any]]:
    """What is asked of a stream: each with its figure, its limit, and whether it is met."""
    ours = found["headwater"]["ndcg@10"]
    asked: list[dict[str, Any]] = []
    if spec.goal is not None:
        asked.append({"goal": "NDCG@10", "figure": ours, "limit": spec.goal, "against": None})
    if spec.margin is not None and peers:
        best = max(peers, key=lambda name: found[name]["ndcg@10"])
        limit = spec.margin * found[best]["ndcg@10"]
        asked.append({"goal": "NDCG@10", "figure": ours, "limit": limit, "against": best})
    for name in experts:
        if "ours_ahead" not in found[name]:
            continue
        low = found[name]["ours_ahead_interval"][0]
        asked.append(
            {"goal": "ahead of expert", "figure": low, "limit": EXPERT_BOUND, "against": name}
        )
    for entry in asked:
        entry["met"] = bool(entry["figure"] >= entry["limit"])
    return asked


def draw(path: Path, streams: dict[str, dict[str, Any]]) -> None:
    """A group of bars for each stream: ours, then the peers, NDCG@10 with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = ["headwater", *dict.fromkeys(p for s in streams.values() for p in s["peers"])]
    figure, axes = pyplot.subplots(figsize=(2 + 1.8 * len(streams), 4.5), layout="constrained")
    width = 0.85 / len(names)
    for m, name in enumerate(names):
        at, values, spread = [], [], []
        for place, stream in enumerate(streams.values()):
            one = stream["models"].get(name)
            if one is not None:
                low, high = one["ndcg@10_interval"]
                at.append(place + (m - (len(names) - 1) / 2) * width)
                values.append(one["ndcg@10"])
                spread.append((one["ndcg@10"] - low, high - one["ndcg@10"]))
        errors = np.maximum(np.array(spread).reshape(-1, 2).T, 0.0)
        axes.bar(at, values, width, yerr=errors, label=name, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(streams)), list(streams), rotation=15)
    axes.set_ylabel("NDCG@10, second half")
    axes.legend(frameon=False, ncols=2)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _ends(values: NDArray[np.float64]) -> list[float]:
    return [float(end) for end in np.percentile(values, [2.5, 97.5])]
