"""The chart: quality against update delay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.freshness.measuring import FROZEN, LIVE


def draw(path: Path, streams: dict[str, dict[str, Any]]) -> None:
    """A line per stream: the share of the live system's NDCG@10 that is left, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, one in streams.items():
        points = sorted(one.items(), key=lambda item: (item[0] == FROZEN, item[1]["events"]))
        events = [found["events"] for _, found in points]
        left = [found["ndcg@10"] / one[LIVE]["ndcg@10"] for _, found in points]
        # live / delayed - 1 lies between low and high, so delayed / live between their inverses
        ends = [found.get("ours_ahead_interval", (0.0, 0.0)) for _, found in points]
        spread = [
            # Rounding may put the figure a hair outside of an interval without width.
            (max(value - 1.0 / (1.0 + high), 0.0), max(1.0 / (1.0 + low) - value, 0.0))
            for value, (low, high) in zip(left, ends, strict=True)
        ]
        axes.errorbar(
            events, left, yerr=list(zip(*spread, strict=True)), marker="o", capsize=2, label=name
        )
    axes.set_xscale("log")
    axes.set_xlabel("events between updates; the last point of a line is frozen at the half")
    axes.set_ylabel("NDCG@10, share of the live system's")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
