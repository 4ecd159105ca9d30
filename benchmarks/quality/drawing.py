"""The chart: ours beside the peers, stream by stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.quality.figures import OURS
from benchmarks.quality.peers import PEERS
from benchmarks.quality.streams import SPECS

_COLUMNS = 4


def draw(path: Path, streams: dict[str, dict[str, Any]]) -> None:
    """A panel for each stream with a scale of its own: NDCG@10 with its interval, best first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(streams) // _COLUMNS)
    columns = min(len(streams), _COLUMNS)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(3.6 * columns, 3.0 * rows), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(streams) :]:
        axes.set_axis_off()
    for axes, (name, one) in zip(grid.flat, streams.items(), strict=False):
        _panel(axes, SPECS[name].title, one)
    figure.supxlabel("NDCG@10 of the second half, with 95 % intervals", fontsize=10)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _panel(axes: Any, title: str, one: dict[str, Any]) -> None:
    models = {model: one["models"][model] for model in (OURS, *one["peers"])}
    order = sorted(models, key=lambda model: models[model]["ndcg@10"], reverse=True)
    values = [models[model]["ndcg@10"] for model in order]
    ends = [models[model]["ndcg@10_interval"] for model in order]
    # Rounding may put a figure a hair outside of an interval without width.
    below = [max(value - low, 0.0) for value, (low, _) in zip(values, ends, strict=True)]
    above = [max(high - value, 0.0) for value, (_, high) in zip(values, ends, strict=True)]
    colours = ["#c2410c" if model == OURS else "#a8b3c2" for model in order]
    axes.barh(range(len(order)), values, xerr=(below, above), color=colours, capsize=2)
    for place, (value, (_, high)) in enumerate(zip(values, ends, strict=True)):
        axes.annotate(
            f"{value:.3f}".removeprefix("0"),
            (high, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    labels = [model.removeprefix("peer ") for model in order]
    labels += [f"{model} (not run)" for model in one["not_run"]]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    # Every panel has room for every peer, so that bars are alike.
    axes.set_ylim(len(PEERS) + 0.6, -0.6)
    axes.set_xlim(0, 1.2 * max(high for _, high in ends))
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10)
