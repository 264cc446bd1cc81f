"""The sections of a report on doubts about the data: near copies of training rows, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rootstock.training.report.recommendation import NAMES, main_score, percent
from rootstock.training.report.report_section import ReportSection

Metrics = Mapping[str, Any]

_LONGEST = 160


def doubt_sections(metrics: Metrics) -> Iterator[ReportSection]:
    """Yield a section for each kind of doubt about the data."""
    doubts = metrics.get("doubts", {})
    if copies := doubts.get("near_copies"):
        cells = tuple(
            (
                _short(one["text"]),
                str(one["line"]),
                _short(one["training_text"]),
                str(one["training_line"]),
                f"{one['likeness']:.2f}",
            )
            for one in copies["rows"]
        )
        head = ("test text", "line", "training text", "line", "likeness")
        text = f"{copies_sentence(metrics)} A near copy tests memory rather than skill. {_shown(copies)}"
        yield ReportSection("Near copies of training rows", text, head, cells, numbers=False)
    if noise := doubts.get("label_noise"):
        cells = tuple(
            (_short(one["text"]), str(one["line"]), one["label"], one["likely"], f"{one['score']:.2f}")
            for one in noise["rows"]
        )
        kind = "labels" if "labels" in metrics["test"]["adapter"] else "tags"
        text = (
            f"{noise['count']} of {noise['of']} {kind} of the rows that chose the method are probably wrong: a "
            "model of other rows is sure of another one (confident learning). Check them: rootstock train audit "
            f"lists those of all rows. {_shown(noise)}"
        )
        head = ("text", "line", "label", "likelier", "score")
        yield ReportSection(f"Doubtful {kind}", text, head, cells, numbers=False)


def copies_sentence(metrics: Metrics) -> str:
    """Return the sentence on test rows that training rows nearly repeat; nothing if there are none."""
    copies = metrics.get("doubts", {}).get("near_copies")
    if not copies:
        return ""
    text = f"{copies['count']} of {copies['of']} test rows are nearly the same text as a training row"
    score = main_score(metrics["test"]["adapter"])
    if score in copies["other"]:
        text += (
            f"; on the other {copies['other']['rows']} the {NAMES[score]} is {percent(copies['other'][score])}"
        )
    return f"{text}."


def _shown(doubt: Metrics) -> str:
    count = len(doubt["rows"])
    return "" if count == doubt["count"] else f"The first {count} are shown."


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
