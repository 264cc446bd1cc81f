"""The sections of a report, each from its key of the metrics: a title, a sentence, a table, a plot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rootstock.training.metrics.confusion import worst
from rootstock.training.report.recommendation import HEAD_ONLY, main_score, p_value, percent, points

Metrics = Mapping[str, Any]

_FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}
_BASELINES = {HEAD_ONLY: "head only", "majority": "commonest answer", "from_scratch": "from scratch"}
# A table of all of 150 labels hides those that need a look.
_MOST_LABELS = 60


@dataclass(frozen=True)
class ReportSection:
    """`rows` under `head`, all but the first column numbers unless `numbers` is false; `plot` names a plot."""

    title: str
    text: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plot: str = ""
    numbers: bool = True


def sections(metrics: Metrics) -> list[ReportSection]:
    """What the metrics have figures for, the more decisive first."""
    return [section for build in _SECTIONS for section in build(metrics)]


def _scores(metrics: Metrics) -> Iterator[ReportSection]:
    test = metrics["test"]
    columns = [name for name in _FIGURES if name in test["adapter"]]
    found = {"adapter": test["adapter"], **test.get("baselines", {})}
    gain, score = len(found) > 1, main_score(test["adapter"])
    rows = []
    for name, figures in found.items():
        cells = [percent(figures[c]) + (_range(test, c) if name == "adapter" else "") for c in columns]
        if gain:
            cells.append("" if name == "adapter" else points(test["adapter"][score] - figures[score]))
        rows.append((_BASELINES.get(name, name.replace("_", " ")), *cells))
    head = ("", *(_FIGURES[c] for c in columns), *([f"adapter's {_FIGURES[score]} is ahead by"] if gain else []))
    split = test.get("split", "test")
    text = f"On {test['adapter']['rows']} {split} rows that neither training nor choice has seen."
    if test.get("intervals"):
        text += " In brackets the 95 % interval over test sets drawn like this one."
    yield ReportSection("Adapter and baselines", text, head, tuple(rows))


def _range(test: Metrics, column: str) -> str:
    found = test.get("intervals", {}).get(column)
    return f" ({100 * found[0]:.1f} to {100 * found[1]:.1f})" if found else ""


def _choice(metrics: Metrics) -> Iterator[ReportSection]:
    if not (choice := metrics.get("choice")):
        return
    rows = []
    for found in choice["candidates"]:
        tested = found.get("p_value") is not None
        rows.append(
            (
                found["method"]
                + (f", {found['strength']:g} of its change" if found.get("strength", 1) != 1 else "")
                + (" (kept)" if found["method"] == choice["chosen"] else ""),
                percent(found["validation"]),
                found.get("against") or "",
                f"{found['wins']} / {found['losses']}" if tested else "",
                p_value(found) if tested else "",
            )
        )
    tests = sorted({found["test"] for found in choice["candidates"] if found.get("test")})
    text = f"Compared on {_judged_on(metrics)}{': ' + '; '.join(tests) if tests else ''}."
    yield ReportSection(
        "Choice of the method", text, ("method", "validation", "against", "wins / losses", "p"), tuple(rows)
    )


def _judged_on(metrics: Metrics) -> str:
    """The rows that methods were compared on."""
    return "validation rows" if metrics["rows"]["validation"] else "training rows, each left out of a fold"


def _labels(metrics: Metrics) -> Iterator[ReportSection]:
    adapter = metrics["test"]["adapter"]
    groups = adapter.get("labels") or adapter.get("entities")
    if not groups:
        return
    head = metrics["test"].get("baselines", {}).get(HEAD_ONLY, {})
    others = head.get("labels") or head.get("entities") or {}
    ordered = sorted(groups, key=lambda name: (groups[name]["f1"], name))
    rows = []
    for name in ordered[:_MOST_LABELS]:
        found = groups[name]
        cells = [percent(found[c]) for c in ("precision", "recall", "f1")]
        if others:
            cells.append(percent(others[name]["f1"]) if name in others else "")
        rows.append((name, *cells, str(found["support"])))
    kind = "label" if "labels" in adapter else "entity type"
    text = f"The weakest {kind} first." + (
        f" The weakest {_MOST_LABELS} of {len(ordered)}; metrics.json holds all."
        if len(ordered) > _MOST_LABELS
        else ""
    )
    columns = (kind, "precision", "recall", "F1", *(["head only's F1"] if others else []), "support")
    yield ReportSection(f"By {kind}", text, columns, tuple(rows), "labels")


def _confusions(metrics: Metrics) -> Iterator[ReportSection]:
    if not (matrix := metrics["test"].get("confusion")):
        return
    rows = tuple(
        (found.truth, found.predicted, str(found.rows), percent(found.rows / found.of))
        for found in worst(matrix, metrics["labels"])
    )
    text = "The commonest mistakes." if rows else "No test row is taken for another label."
    head = ("true", "predicted", "rows", "of the label's rows")
    yield ReportSection("What is taken for what", text, head, rows, "confusion", numbers=False)


def _calibration(metrics: Metrics) -> Iterator[ReportSection]:
    if not (found := metrics.get("calibration")):
        return
    temperature = found["temperature"]
    leaning = "surer than it is right" if temperature > 1 else "less sure than it is right"
    text = (
        f"Fitted on {_judged_on(metrics)}, the temperature is {temperature:.2f}: the adapter is {leaning}. "
        f"Dividing its logits by it takes the expected calibration error on test rows from "
        f"{100 * found['ece_before']:.1f} to {100 * found['ece_after']:.1f} points; the answers stay the same."
    )
    yield ReportSection("Calibration", text, plot="calibration")


def _out_of_scope(metrics: Metrics) -> Iterator[ReportSection]:
    if not (found := metrics.get("out_of_scope")):
        return
    rows = [
        ("in-scope rows answered", "in_scope_kept"),
        ("in-scope rows answered and right", "in_scope_accuracy"),
    ]
    rows += [("out-of-scope rows refused", "recall")]
    cells = [(name, percent(found[key])) for name, key in rows if found.get(key) is not None]
    if found.get("auroc") is not None:
        cells.append(("area under the ROC curve", f"{found['auroc']:.3f}"))
    if isinstance(found.get("rows"), Mapping):
        cells += [(f"{name.replace('_', '-')} test rows", str(count)) for name, count in found["rows"].items()]
    text = f"An answer whose probability is under {found['threshold']:.3f}, after the temperature, is refused."
    yield ReportSection("Out of scope", text, ("", "test"), tuple(cells))


def _fairness(metrics: Metrics) -> Iterator[ReportSection]:
    if not (found := metrics.get("fairness")):
        return
    rows = tuple(
        (name, str(group["rows"]), percent(group["accuracy"]), percent(group["macro_f1"]))
        for name, group in found["groups"].items()
    )
    verdict = _FAIRNESS.get(found["verdict"], found["verdict"])
    text = (
        f"Between the best and the worst group of {found['column']} lie {100 * found['gap']:.1f} points of "
        f"accuracy, with a head alone on the foundation {100 * found['foundation_gap']:.1f}: {verdict}."
    )
    yield ReportSection("By group", text, (found["column"], "rows", "accuracy", "macro-F1"), rows)


def _seeds(metrics: Metrics) -> Iterator[ReportSection]:
    if not (found := metrics.get("seeds")):
        return
    count = len(found.get("test") or found.get("validation") or ())
    text = f"{count} seed{'s' if count != 1 else ''}"
    if found.get("mean") is not None:
        text += f": mean {percent(found['mean'])}"
    if found.get("sd") is not None:
        text += f", standard deviation {100 * found['sd']:.1f} points"
    yield ReportSection("Seeds", f"{text}.", plot="seeds")


def _learning_curve(metrics: Metrics) -> Iterator[ReportSection]:
    if not (found := metrics.get("learning_curve")):
        return
    points_ = sorted(found, key=lambda point: point["rows"])
    text = ""
    if len(points_) > 1:
        gain = points_[-1]["score"] - points_[-2]["score"]
        text = f"From {points_[-2]['rows']} to {points_[-1]['rows']} training rows: {points(gain)}."
    yield ReportSection("Learning curve", text, plot="learning_curve")


def _epochs(metrics: Metrics) -> Iterator[ReportSection]:
    if not (found := metrics.get("epochs")):
        return
    scored = [epoch for epoch in found if epoch.get("validation_f1") is not None]
    text = f"{len(found)} epochs."
    if scored:
        best = max(scored, key=lambda epoch: epoch["validation_f1"])
        text = (
            f"Best of {len(found)} epochs: {best['number']}, {percent(best['validation_f1'])} on validation rows."
        )
    yield ReportSection("Training", text, plot="epochs")


def _cost(metrics: Metrics) -> Iterator[ReportSection]:
    if not (found := metrics.get("cost")):
        return
    shown = {
        "time": "seconds" in found and f"{found['seconds'] / 60:.1f} minutes",
        "peak memory": "peak_memory_mb" in found and f"{found['peak_memory_mb']:.0f} MB",
        "trained parameters": "trainable_parameters" in found and f"{found['trainable_parameters']:,}",
        "device": found.get("device"),
    }
    yield ReportSection(
        "Cost", "", ("", "training"), tuple((k, str(v)) for k, v in shown.items() if v), numbers=False
    )


def _provenance(metrics: Metrics) -> Iterator[ReportSection]:
    if found := metrics.get("provenance"):
        yield ReportSection("Made from", "", ("", "value"), tuple(_leaves(found)), numbers=False)


def _leaves(value: Any, path: Sequence[str] = ()) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        yield " ".join(path).replace("_", " "), text


_FAIRNESS = {
    "made": "training has made it, and fairness should be looked at before publishing",
    "inherited": "inherited from the foundation and the data",
    "reduced": "training has made it smaller",
    "unclear": "too few rows to say whether training has made it",
    "chance": "no more than chance between groups of these sizes may explain",
}
_SECTIONS = (
    _scores, _choice, _labels, _confusions, _calibration, _out_of_scope, _fairness, _seeds, _learning_curve,
    _epochs, _cost, _provenance,
)  # fmt: skip
