"""The chart of a replay: quality over the stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headwater.errors import ConfigError
from headwater.types import Doubles

WINDOWS = 50
"""Points of each line: enough to show a trend, few enough for each to be a mean of many."""

_ENDINGS = (".png", ".svg")


def drawable(path: Path) -> None:
    """Raises ``ConfigError``: matplotlib isn't installed, or the name has another ending."""
    if path.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"--plot: {path.name} must end in {' or '.join(_ENDINGS)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError(
            "--plot needs matplotlib: install the extra with pip install 'headwater[plot]'"
        ) from None


def draw(path: Path, gains: Mapping[str, Doubles]) -> None:
    """A line per model through the means of consecutive windows; the first model stands out.

    Args:
        path: where to; its ending chooses PNG or SVG.
        gains: per model, NDCG@10 of every prediction in order.

    Raises:
        ConfigError: as ``drawable``.
    """
    drawable(path)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(next(iter(gains.values())))
    edges = np.linspace(0, n, min(WINDOWS, n) + 1).astype(int)
    middles = (edges[:-1] + edges[1:]) / 2
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # The Okabe-Ito palette, told apart with every common colour vision.
    colours = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
    for place, (name, values) in enumerate(gains.items()):
        means = np.add.reduceat(values, edges[:-1]) / np.diff(edges) if n else values
        axes.plot(
            middles,
            means,
            label=name,
            color=colours[place % len(colours)],
            linestyle="-" if place < len(colours) else "--",
            linewidth=2.4 if place == 0 else 1.2,
            zorder=3 if place == 0 else 2,
        )
    axes.set_title("Prequential quality over the stream")
    axes.set_xlabel("Predictions, in stream order")
    window = f", mean of windows of {n // len(middles):,}" if n else ""
    axes.set_ylabel(f"NDCG@10{window}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    # Text stays text, and the same figures give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "headwater"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
