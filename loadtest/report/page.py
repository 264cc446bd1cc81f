"""The report as one HTML file that needs nothing else: table, figures, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rootstock.loadtest.load.outcome import Outcome
from rootstock.loadtest.load.timeline import write_csv
from rootstock.loadtest.report.report import Report, cells_of, lines_of, write_json

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, title: str, report: Report, outcome: Outcome | None = None) -> bool:
    """Write the page of a report, with a scenario's figures where there are; False if it has no pictures, since
    matplotlib is not installed.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    plots, drawn = _plots(report, outcome)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("page.html.jinja").render(
        title=title,
        machine=report.machine,
        parameters=report.parameters,
        rows=[{"cells": cells_of(row), "label": row.label, "lines": lines_of(row)} for row in report.rows],
        notes=[] if outcome is None else outcome.notes,
        stages=None if outcome is None else _table(outcome.stages),
        plots=plots,
        drawn=drawn,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return drawn


def write_outcome(path: Path, title: str, report: Report, outcome: Outcome) -> None:
    """Write what a scenario came to: JSON at `path`, the timeline as CSV and the page beside it."""
    write_json(path, {**report.to_json(), **outcome.to_json()})
    write_csv(path.with_suffix(".csv"), outcome.timeline)
    write_page(path.with_suffix(".html"), title, report, outcome)


def _plots(report: Report, outcome: Outcome | None) -> tuple[Sequence[Any], bool]:
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError:
        return [], False
    from rootstock.loadtest.report.plots import plots_of_outcome, plots_of_rows

    drawn = [] if outcome is None else plots_of_outcome(outcome)
    return [*drawn, *plots_of_rows(report.measured)], True


def _table(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns of which some stage has a figure, and the cells as text."""
    names = list(dict.fromkeys(name for stage in stages for name, value in stage.items() if value is not None))
    return {"columns": names, "rows": [[_text(stage.get(name)) for name in names] for stage in stages]}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 10_000 else str(value)
