"""A picture of a run: every pair's figure, the median with its interval, and the target. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rootstock.loadtest.measure.row import BenchmarkRow

_ONE_COLUMN = 4


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(rows: Sequence[BenchmarkRow], path: Path) -> None:
    """Write the PNG of at least one row."""
    from matplotlib.figure import Figure

    columns = 1 if len(rows) <= _ONE_COLUMN else 2
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(8 * columns, 2.2 * lines), layout="constrained")
    all_axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for row, axes in zip(rows, all_axes, strict=False):
        panel(row, axes)
    for axes in all_axes[len(rows) :]:
        axes.axis("off")
    for axes in all_axes[len(rows) - columns : len(rows)]:
        axes.set_xlabel("pair")
    figure.savefig(path, dpi=120)


def panel(row: BenchmarkRow, axes: Any) -> None:
    """Draw one row's pairs, median, interval and target into matplotlib axes."""
    figures, interval = row.figures, row.interval
    axes.plot(range(1, len(figures) + 1), figures, "o", markersize=3, color="tab:blue", label="pairs")
    axes.axhline(interval.median, color="tab:blue", label="median")
    axes.axhspan(interval.low, interval.high, color="tab:blue", alpha=0.2, label="95 % interval")
    if row.target is not None:
        bound = "at most" if row.at_most else "at least"
        axes.axhline(row.target, color="tab:red", linestyle="--", label=f"target: {bound}")
    axes.set_title(f"{row.benchmark}: {row.title}", fontsize=9)
    axes.set_ylabel(row.figure_unit or "ratio")
    axes.margins(y=0.2)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
