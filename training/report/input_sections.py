"""The sections of a report that show inputs: misclassified ones, and changed copies of training rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rootstock.adapters.spec import CLASSIFICATION
from rootstock.training.report.report_section import ReportSection

Metrics = Mapping[str, Any]

_IMAGES = CLASSIFICATION["image"]
_MEDIA = (_IMAGES, CLASSIFICATION["audio"])
_MISTAKES = ("text", "line", "true", "predicted", "score")


def mistakes_section(metrics: Metrics) -> Iterator[ReportSection]:
    """Yield the misclassified test rows, if there are any."""
    if not (mistakes := metrics.get("mistakes")) or not mistakes["count"]:
        return
    rows, kind = mistakes["rows"], "rows" if "labels" in metrics["test"]["adapter"] else "words"
    shown = "" if len(rows) == mistakes["count"] else f" These are the {len(rows)} with the highest scores."
    text = (
        f"{mistakes['count']} of {mistakes['of']} test {kind} are wrong, the most confident answer first.{shown} "
        "An answer that is wrong with a high score is often a wrong label in the data."
    )
    media = metrics["task"] in _MEDIA
    if metrics["task"] == _IMAGES:
        text += (
            " Beside the first images is what contributes to the answer: red places raise the wrong label's "
            "score, and blue places lower it (occlusion)."
        )
    cells = tuple(
        (
            one["text"],
            *([] if media else [str(one["line"])]),
            one["true"],
            one["predicted"],
            f"{one['score']:.3f}",
        )
        for one in rows
    )
    head = ("file", *_MISTAKES[2:]) if media else _MISTAKES
    yield ReportSection(f"Misclassified {kind}", text, head, cells, "mistakes" if media else "", numbers=False)


def augmentation_section(metrics: Metrics) -> Iterator[ReportSection]:
    """Yield the changes to images or recordings, if rows were changed."""
    if not (change := metrics.get("augmentation")):
        return
    settings = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in change.items())
    text = f"Each row has changed copies, and each epoch takes one of them at random: {settings}."
    yield ReportSection("Changed copies", text, plot="augmented")
