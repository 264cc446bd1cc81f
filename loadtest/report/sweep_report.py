"""A sweep's outcome: a table for the reader, a JSON file for the record, a picture of each factor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rootstock.loadtest.engine.sweep import CENTRE, FACTORS, Point


@dataclass(frozen=True)
class SweepReport:
    """The points of one sweep with the machine that ran it and its parameters."""

    machine: Mapping[str, Any]
    parameters: Mapping[str, Any]
    points: Sequence[Point]

    def write(self, path: Path) -> None:
        """Write the JSON file, its folder made if need be."""
        content = {
            "machine": dict(self.machine),
            "parameters": dict(self.parameters),
            "centre": asdict(CENTRE),
            "points": [point.to_json() for point in self.points],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def show(self) -> None:
        """Print a line a point, on stdout."""
        from rich.console import Console
        from rich.table import Table

        table = Table(*FACTORS, "rows/s", "÷ bare", "95 % interval")
        for point in self.points:
            ratio = point.ratio
            values = [str(value) for value in asdict(point.cell).values()]
            table.add_row(
                *values, f"{point.rows_s:.0f}", f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}"
            )
        console = Console(highlight=False, markup=False)
        console.print(table)
        console.print(
            "OnnxRunner.run under query/value adapters with a head ÷ the same rows under the foundation alone, "
            "whose embeddings read every token; not judged",
            soft_wrap=True,
        )

    def draw(self, path: Path) -> bool:
        """Write the PNG: for each factor the points that differ from the centre in it alone, and after a full
        sweep all others behind them; False where matplotlib is not installed.
        """
        try:
            import matplotlib
        except ImportError:
            return False
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, grid = pyplot.subplots(
            1, len(FACTORS), figsize=(3.2 * len(FACTORS), 4), sharey=True, squeeze=False, layout="constrained"
        )
        for factor, axes in zip(FACTORS, grid.flat, strict=True):
            self._panel(factor, axes)
        grid.flat[0].set_ylabel("speed ÷ the foundation alone")
        centre = ", ".join(f"{name} {value}" for name, value in asdict(CENTRE).items())
        figure.suptitle(f"line: all else as in the centre ({centre}); numbers: rows/s", fontsize=9)
        figure.savefig(path, dpi=120)
        pyplot.close(figure)
        return True

    def _panel(self, factor: str, axes: Any) -> None:
        values = list(FACTORS[factor])
        places = [values.index(getattr(point.cell, factor)) for point in self.points]
        if self.parameters.get("full"):
            axes.plot(places, [p.ratio.median for p in self.points], ".", color="lightgray", zorder=1)
        line = [(place, p) for place, p in zip(places, self.points, strict=True) if _differs_only(p, factor)]
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
