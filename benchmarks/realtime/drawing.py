"""Curves -> PNG."""

from __future__ import annotations

from pathlib import Path

from benchmarks.realtime.figures import Plot


def draw(path: Path, plot: Plot) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for curve in plot.curves:
        marker = "o" if len(curve.x) < 10 else None
        axes.plot(curve.x, curve.y, label=curve.name, marker=marker, linewidth=1.2)
    for name, value in plot.limits.items():
        axes.axhline(value, label=name, color="grey", linestyle="--", linewidth=0.9)
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
