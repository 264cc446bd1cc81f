"""A run as a table in Markdown, as docs/benchmarks.md holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rootstock.loadtest.engine.sweep import FACTORS, Point, SweepRun
from rootstock.loadtest.measure.outcome import BenchmarkRun
from rootstock.loadtest.measure.row import BenchmarkRow

_HEAD = ("benchmark", "figure", "median (95 % interval)", "target", "met")


def markdown_table(run: BenchmarkRun | SweepRun) -> str:
    """Return the measured rows, the points of a sweep, or the phases of a simulation as a Markdown table."""
    if isinstance(run, SweepRun):
        head = (*FACTORS, "rows/s", "÷ bare (95 % interval)")
        return _table([head, ("---",) * len(head), *(_point_cells(point) for point in run.points)])
    if "simulated" in run.parameters:
        names = list(run.outcome.stages[0])
        return _table([names, ["---"] * len(names), *(_phase_cells(phase) for phase in run.outcome.stages)])
    lines = [_HEAD, ("---",) * len(_HEAD), *(_cells(row) for row in run.outcome.measured_rows)]
    return _table(lines)


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _phase_cells(phase: Mapping[str, Any]) -> list[str]:
    return [_figure(v) if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v for v in phase.values()]


def _point_cells(point: Point) -> tuple[str, ...]:
    ratio = point.ratio
    interval = f"{_figure(ratio.median)} ({_figure(ratio.low)} to {_figure(ratio.high)})"
    return (*(str(value) for value in asdict(point.cell).values()), f"{point.rows_s:.0f}", interval)


def _cells(row: BenchmarkRow) -> tuple[str, ...]:
    interval, unit = row.interval, f" {row.figure_unit}".rstrip()
    median = _figure(interval.median)
    if len(row.pairs) > 1:
        median += f" ({_figure(interval.low)} to {_figure(interval.high)})"
    bound = "≤" if row.at_most else "≥"
    target = "" if row.target is None else f"{bound} {row.target:,.4g}{unit}"
    if row.exact:
        target = f"{row.target:g}"
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    return f"`{row.benchmark}`", row.title, f"{median}{unit}", target, met


def _figure(value: float) -> str:
    """Return three significant digits, or a whole number from 1,000 on."""
    text = f"{value:#.3g}".rstrip(".") if 0 < abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")
