"""A sweep as a table for the terminal, and as a picture with a panel for each factor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rootstock.loadtest.engine.sweep import CENTRE, FACTORS, Point, SweepRun


def show_sweep(run: SweepRun) -> None:
    """Print a line for each point."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*FACTORS, "rows/s", "÷ bare", "95 % interval")
    for point in run.points:
        ratio = point.ratio
        values = [str(value) for value in asdict(point.cell).values()]
        interval = f"{ratio.low:.3f} to {ratio.high:.3f}"
        table.add_row(*values, f"{point.rows_s:.0f}", f"{ratio.median:.3f}", interval)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(
        "OnnxRunner.run under query/value adapters with a head ÷ the same rows under the foundation alone, "
        "whose embeddings read every token; not judged",
        soft_wrap=True,
    )


def draw_sweep(run: SweepRun, path: Path) -> None:
    """Write the PNG: for each factor the points that differ from the centre in it alone. Needs matplotlib.

    After a full sweep all other points lie behind them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(FACTORS), 4), layout="constrained")
    grid = figure.subplots(1, len(FACTORS), sharey=True, squeeze=False)
    for factor, axes in zip(FACTORS, grid.flat, strict=True):
        _panel(run, factor, axes)
    grid.flat[0].set_ylabel("speed ÷ the foundation alone")
    centre = ", ".join(f"{name} {value}" for name, value in asdict(CENTRE).items())
    figure.suptitle(f"line: all else as in the centre ({centre}); numbers: rows/s", fontsize=9)
    figure.savefig(path, dpi=120)


def _panel(run: SweepRun, factor: str, axes: Any) -> None:
    values = list(FACTORS[factor])
    places = [values.index(getattr(point.cell, factor)) for point in run.points]
    if run.parameters.get("full"):
        axes.plot(places, [p.ratio.median for p in run.points], ".", color="lightgray", zorder=1)
    line = [(place, p) for place, p in zip(places, run.points, strict=True) if _differs_only(p, factor)]
    line.sort(key=lambda one: one[0])
    at = [place for place, _ in line]
    ratios = [point.ratio for _, point in line]
    errors = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
    axes.errorbar(at, [r.median for r in ratios], yerr=errors, fmt="o-", capsize=3, color="tab:blue")
    for place, point in line:
        axes.annotate(
            f"{point.rows_s:.0f}", (place, point.ratio.high), (0, 4), textcoords="offset points", fontsize=7
        )
    axes.axhline(1.0, color="gray", linewidth=0.8)
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlabel(factor)
    axes.margins(y=0.15)


def _differs_only(point: Point, factor: str) -> bool:
    centre = asdict(CENTRE)
    return all(value == centre[name] for name, value in asdict(point.cell).items() if name != factor)
