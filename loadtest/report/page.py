"""A run as one self-contained HTML file: table, figures, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rootstock.loadtest.measure.outcome import BenchmarkRun, Outcome
from rootstock.loadtest.report.chart import can_draw
from rootstock.loadtest.report.table import cells_of, lines_of

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, title: str, run: BenchmarkRun) -> None:
    """Write the page of a run. Without matplotlib it has no pictures and says so."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    outcome = run.outcome
    plots = _plots(outcome)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("page.html.jinja").render(
        title=title,
        machine=run.machine,
        parameters=run.parameters,
        rows=[{"cells": cells_of(row), "name": row.benchmark, "lines": lines_of(row)} for row in outcome.rows],
        notes=outcome.notes,
        stages=_table(outcome.stages) if outcome.stages else None,
        plots=plots or [],
        matplotlib=plots is not None,
    )
    path.write_text(page, encoding="utf-8")


def _plots(outcome: Outcome) -> Sequence[Any] | None:
    if not can_draw():
        return None
    from rootstock.loadtest.report.plots import plots_of_outcome, plots_of_rows

    return [*plots_of_outcome(outcome), *plots_of_rows(outcome.measured_rows)]


def _table(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns for which at least one stage has a figure, and the cells as text."""
    names = list(dict.fromkeys(name for stage in stages for name, value in stage.items() if value is not None))
    return {"columns": names, "rows": [[_text(stage.get(name)) for name in names] for stage in stages]}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 10_000 else str(value)
