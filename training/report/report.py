"""The report of a training run, for the person who decides whether to publish: report.md and report.html."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rootstock.adapters.spec import GENERATION
from rootstock.training.report.doubt_sections import copies_sentence
from rootstock.training.report.generation_sections import generation_sections, judge_generation
from rootstock.training.report.plots import draw
from rootstock.training.report.recommendation import judge
from rootstock.training.report.sections import sections

Metrics = Mapping[str, Any]

PLOTS = "plots"
# Characters with a meaning in Markdown; an underscore inside a word has none.
_SIGNS = re.compile(r"[\\`*\[\]<>]|(?<!\w)_|_(?!\w)")
_PICTURES = ("augmented", "mistakes")
_ALT = {
    "augmented": "training inputs, each before changed copies of it",
    "mistakes": "the most confident errors",
    "labels": "F1 by label, worst first",
    "confusion": "confusion matrix",
    "calibration": "accuracy by confidence, before and after the temperature",
    "numbers": "predicted against true numbers",
    "epochs": "losses on training and validation rows, and score on validation rows, by epoch",
    "learning_curve": "score by number of training rows",
    "seeds": "score of each seed",
}


def write_report(metrics: Metrics, folder: Path) -> list[Path]:
    """Write report.md, report.html and plots/*.png of `metrics` into `folder`, and return their paths.

    The HTML page holds its style and pictures; the Markdown refers to plots/. A section without a key in the
    metrics is left out. Raise MissingExtra if matplotlib is not installed.
    """
    drawn = draw(metrics, folder / PLOTS)
    # A run draws pictures of its inputs, which the metrics do not hold.
    plots = drawn | {name: path for name in _PICTURES if (path := folder / PLOTS / f"{name}.png").is_file()}
    pages = {"report.md": render_markdown(metrics, plots), "report.html": render_html(metrics, plots)}
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*(folder / name for name in pages), *plots.values()]


def render_markdown(metrics: Metrics, plots: Mapping[str, Path]) -> str:
    """Return the report as Markdown that refers to its plots as plots/NAME.png."""
    return _render("report.md.jinja", metrics, plots).rstrip() + "\n"


def render_html(metrics: Metrics, plots: Mapping[str, Path]) -> str:
    """Return the report as one HTML page that loads nothing: plots are data URIs, names from the data escaped."""
    return _render("report.html.jinja", metrics, plots)


def _render(template: str, metrics: Metrics, plots: Mapping[str, Path]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("rootstock.training.report", "templates"),
        autoescape=template.endswith(".html.jinja"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    pages.filters.update(cell=_cell, line=_line)
    generates = metrics["task"] in GENERATION
    blocks = [_section(section, plots) for section in (generation_sections if generates else sections)(metrics)]
    verdict = judge_generation(metrics) if generates else judge(metrics)
    if copies := copies_sentence(metrics):
        verdict = replace(verdict, reasons=(*verdict.reasons, copies))
    return pages.get_template(template).render(
        metrics=metrics, verdict=verdict, facts=_facts(metrics), sections=blocks
    )


def _section(section: Any, plots: Mapping[str, Path]) -> dict[str, Any]:
    path = plots.get(section.plot)
    picture = {"plot": "", "image": "", "alt": ""}
    if path:
        image = base64.b64encode(path.read_bytes()).decode("ascii")
        picture = {
            "plot": f"{PLOTS}/{path.name}",
            "image": f"data:image/png;base64,{image}",
            "alt": _ALT[section.plot],
        }
    return {**vars(section), **picture}


def _facts(metrics: Metrics) -> list[str]:
    rows, numbers = metrics["rows"], "largest_errors" in metrics
    facts = [
        str(metrics["task"]),
        *([f"{len(metrics['labels'])} labels"] if metrics["labels"] and not numbers else []),
        ", ".join(f"{count} {part} rows" for part, count in rows.items()),
    ]
    if metrics.get("method"):
        facts.insert(1, f"method {metrics['method']}")
    if metrics.get("digest"):
        facts.append(f"bundle {metrics['digest']}")
    return facts


def _line(text: str) -> str:
    """Return text that Markdown shows unchanged, on one line."""
    return " ".join(_SIGNS.sub(r"\\\g<0>", text).split())


def _cell(text: str) -> str:
    """Return text that a Markdown table shows unchanged."""
    return _line(text).replace("|", "\\|")
