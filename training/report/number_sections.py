"""The sections of a report on answers that are numbers: their errors, and the rows that are most wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rootstock.training.report.report_section import ReportSection

Metrics = Mapping[str, Any]

_TITLES = {
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "spearman": "Spearman's correlation",
}
_MODELS = {"adapter": "adapter", "head_only": "head only", "mean": "mean of training rows"}


def number_sections(metrics: Metrics) -> Iterator[ReportSection]:
    """Yield the errors of numbers with a plot, and the largest errors; nothing for labels."""
    if not (largest := metrics.get("largest_errors")):
        return
    test = metrics["test"]
    figures = {"adapter": test["adapter"], **test.get("baselines", {})}
    models = {name: title for name, title in _MODELS.items() if name in figures}
    cells = tuple(
        (title, *(_figure(figures[model], name, test if model == "adapter" else {}) for model in models))
        for name, title in _TITLES.items()
    )
    text = (
        "R² is the share of the variance of the true numbers that the answers explain; the mean of the test rows "
        "explains 0 %. The errors are in the unit of the numbers. The 95 % interval over test sets like this one "
        "is in brackets."
    )
    yield ReportSection("Errors of the numbers", text, ("", *models.values()), cells, "numbers")
    rows = tuple(
        (one["text"], str(one["line"]), f"{one['true']:g}", f"{one['predicted']:.4g}") for one in largest["rows"]
    )
    text = f"The answers that are farthest off, {len(rows)} of {largest['of']} test rows."
    yield ReportSection("Largest errors", text, ("text", "line", "true", "predicted"), rows, numbers=False)


def _figure(figures: Metrics, name: str, test: Metrics) -> str:
    if name not in figures:
        return ""
    bounds = test.get("intervals", {}).get(name)
    return f"{figures[name]:.4g}" + (f" ({bounds[0]:.4g} to {bounds[1]:.4g})" if bounds else "")
