"""The section of a report on labels that are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rootstock.training.report.report_section import ReportSection

Metrics = Mapping[str, Any]

_TITLES = {
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "spearman": "Spearman's correlation",
    "quadratic_kappa": "quadratic kappa",
}
_MODELS = {"adapter": "adapter", "head_only": "head only"}


def ordinal_section(metrics: Metrics) -> Iterator[ReportSection]:
    """Yield the figures of labels that are numbers, of the adapter and of the head alone."""
    if not (figures := metrics.get("ordinal")):
        return
    models = {name: title for name, title in _MODELS.items() if name in figures}
    cells = tuple(
        (title, *(_figure(figures[model], name) for model in models))
        for name, title in _TITLES.items()
        if any(name in figures[model] for model in models)
    )
    text = (
        "All labels are numbers. If their order has a meaning, as that of stars has, these figures tell how far "
        "the answers are off. The 95 % interval over test sets like this one is in brackets."
    )
    yield ReportSection("Labels as numbers", text, ("", *models.values()), cells)


def _figure(figures: Metrics, name: str) -> str:
    if name not in figures:
        return ""
    bounds = figures["intervals"].get(name)
    return f"{figures[name]:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")
