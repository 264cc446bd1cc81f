"""The sections of a report, one for each key of the metrics: a title, a sentence, a table, a plot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rootstock.adapters.spec import CLASSIFICATION
from rootstock.training.metrics.confusion import worst
from rootstock.training.report.doubt_sections import doubt_sections
from rootstock.training.report.input_sections import augmentation_section, mistakes_section
from rootstock.training.report.number_sections import number_sections
from rootstock.training.report.ordinal_section import ordinal_section
from rootstock.training.report.recommendation import HEAD_ONLY, main_score, p_value, percent, points
from rootstock.training.report.report_section import ReportSection as ReportSection

Metrics = Mapping[str, Any]

_FIGURES = {
    "accuracy": "accuracy",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "subset_accuracy": "right sets",
    "lrap": "ranking precision",
    "map": "average precision",
    "r2": "R²",
}
_BASELINES = {
    HEAD_ONLY: "head only",
    "majority": "most frequent label",
    "frequencies": "frequency of each label",
    "mean": "mean of training rows",
    "from_scratch": "from scratch",
}
# A table of 150 labels would hide those that need attention.
_MOST_LABELS = 60


def sections(metrics: Metrics) -> list[ReportSection]:
    """Return the sections that the metrics have figures for, the most decisive first."""
    return [section for build in _SECTIONS for section in build(metrics)]


def _scores(metrics: Metrics) -> Iterator[ReportSection]:
    test = metrics["test"]
    columns = [name for name in _FIGURES if name in test["adapter"]]
    models = {"adapter": test["adapter"], **test.get("baselines", {})}
    gain, score = len(models) > 1, main_score(test["adapter"])
    rows = []
    for name, figures in models.items():
        cells = [percent(figures[c]) + (_range(test, c) if name == "adapter" else "") for c in columns]
        if gain:
            cells.append("" if name == "adapter" else points(test["adapter"][score] - figures[score]))
        rows.append((_BASELINES.get(name, name.replace("_", " ")), *cells))
    head = ("", *(_FIGURES[c] for c in columns), *([f"adapter's {_FIGURES[score]} is ahead by"] if gain else []))
    split = test.get("split", "test")
    text = f"Measured on {test['adapter']['rows']} {split} rows that were used neither to train nor to choose."
    if test.get("intervals"):
        text += " The 95 % interval over test sets like this one is in brackets."
    yield ReportSection("Adapter and baselines", text, head, tuple(rows))


def _range(test: Metrics, column: str) -> str:
    return _bounds(test.get("intervals", {}).get(column))


def _bounds(interval: Sequence[float] | None) -> str:
    """Return the bounds of a share as the reports write them, after a space; nothing without an interval."""
    return f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""


def _choice(metrics: Metrics) -> Iterator[ReportSection]:
    if not (choice := metrics.get("choice")):
        return
    rows = []
    for one in choice["candidates"]:
        tested = one.get("p_value") is not None
        rows.append(
            (
                one["method"]
                + (f", {one['strength']:g} of its change" if one.get("strength", 1) != 1 else "")
                + (" (kept)" if one["method"] == choice["chosen"] else ""),
                percent(one["validation"]),
                one.get("against") or "",
                f"{one['wins']} / {one['losses']}" if tested else "",
                p_value(one) if tested else "",
            )
        )
    tests = sorted({one["test"] for one in choice["candidates"] if one.get("test")})
    text = f"Compared on {_judged_on(metrics)}{': ' + '; '.join(tests) if tests else ''}."
    for one in choice["candidates"]:
        if folds := one.get("folds"):
            text += (
                f" The figures of {one['method']} are of the first {folds} folds, which were enough to decide."
            )
    yield ReportSection(
        "Choice of the method", text, ("method", "validation", "against", "wins / losses", "p"), tuple(rows)
    )


def _judged_on(metrics: Metrics) -> str:
    """Return the name of the rows that methods were compared on."""
    return "validation rows" if metrics["rows"]["validation"] else "training rows, by cross-validation"


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
        rates = groups[name]
        bounds = metrics["test"].get("label_intervals", {}).get(name, {})
        cells = [percent(rates[c]) + _bounds(bounds.get(c)) for c in ("precision", "recall", "f1")]
        if others:
            cells.append(percent(others[name]["f1"]) if name in others else "")
        rows.append((name, *cells, str(rates["support"])))
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
        (mistake.truth, mistake.predicted, str(mistake.rows), percent(mistake.rows / mistake.of))
        for mistake in worst(matrix, metrics["labels"])
    )
    text = "The most frequent mistakes." if rows else "Every test row is predicted correctly."
    head = ("true", "predicted", "rows", "of the label's rows")
    yield ReportSection("Confusions", text, head, rows, "confusion", numbers=False)


def _calibration(metrics: Metrics) -> Iterator[ReportSection]:
    if not (calibration := metrics.get("calibration")):
        return
    temperature = calibration["temperature"]
    leaning = "overconfident" if temperature > 1 else "underconfident"
    text = (
        f"Fitted on {_judged_on(metrics)}, the temperature is {temperature:.2f}: the adapter is {leaning}. "
        f"Dividing its logits by the temperature changes the expected calibration error on test rows from "
        f"{100 * calibration['ece_before']:.1f} to {100 * calibration['ece_after']:.1f} points; the answers "
        "stay the same."
    )
    if metrics["task"] in CLASSIFICATION.values():
        text += " The bundle holds the temperature, and a server applies it with the parameter calibrated."
    yield ReportSection("Calibration", text, plot="calibration")


def _out_of_scope(metrics: Metrics) -> Iterator[ReportSection]:
    if not (figures := metrics.get("out_of_scope")):
        return
    rows = [
        ("in-scope rows answered", "in_scope_kept"),
        ("in-scope rows answered correctly", "in_scope_accuracy"),
    ]
    rows += [("out-of-scope rows refused", "recall")]
    bounds = figures.get("intervals", {})
    cells = [
        (name, percent(figures[key]) + _bounds(bounds.get(key)))
        for name, key in rows
        if figures.get(key) is not None
    ]
    if figures.get("auroc") is not None:
        cells.append(("area under the ROC curve", f"{figures['auroc']:.3f}"))
    if isinstance(figures.get("rows"), Mapping):
        cells += [(f"{name.replace('_', '-')} test rows", str(count)) for name, count in figures["rows"].items()]
    text = f"An answer with a probability below {figures['threshold']:.3f}, after the temperature, is refused."
    yield ReportSection("Out of scope", text, ("", "test"), tuple(cells))


def _fairness(metrics: Metrics) -> Iterator[ReportSection]:
    if not (figures := metrics.get("fairness")):
        return
    rows = tuple(
        (
            name,
            str(group["rows"]),
            percent(group["accuracy"]) + _bounds(group.get("interval")),
            percent(group["macro_f1"]),
        )
        for name, group in figures["groups"].items()
    )
    verdict = _FAIRNESS.get(figures["verdict"], figures["verdict"])
    text = (
        f"The best and the worst group of {figures['column']} differ by {100 * figures['gap']:.1f} points of "
        f"accuracy; with a head alone on the foundation by {100 * figures['foundation_gap']:.1f}: {verdict}."
    )
    yield ReportSection("By group", text, (figures["column"], "rows", "accuracy", "macro-F1"), rows)


def _seeds(metrics: Metrics) -> Iterator[ReportSection]:
    if not (seeds := metrics.get("seeds")):
        return
    count = len(seeds.get("test") or seeds.get("validation") or ())
    text = f"{count} seed{'s' if count != 1 else ''}"
    if seeds.get("mean") is not None:
        text += f": mean {percent(seeds['mean'])}"
    if seeds.get("sd") is not None:
        text += f", standard deviation {100 * seeds['sd']:.1f} points"
    yield ReportSection("Seeds", f"{text}.", plot="seeds")


def _learning_curve(metrics: Metrics) -> Iterator[ReportSection]:
    if not (curve := metrics.get("learning_curve")):
        return
    points_ = sorted(curve, key=lambda point: point["rows"])
    text = ""
    if len(points_) > 1:
        gain = points_[-1]["score"] - points_[-2]["score"]
        text = f"From {points_[-2]['rows']} to {points_[-1]['rows']} training rows: {points(gain)}."
    yield ReportSection("Learning curve", text, plot="learning_curve")


def _epochs(metrics: Metrics) -> Iterator[ReportSection]:
    if not (history := metrics.get("epochs")):
        return
    key = "validation_r2" if "validation_r2" in history[0] else "validation_f1"
    scored = [epoch for epoch in history if epoch.get(key) is not None]
    method = metrics.get("epochs_of", metrics.get("method"))
    rejected = (
        "" if method == metrics.get("method") else f" These are the epochs of {method}, which was not kept."
    )
    text = f"{len(history)} epochs."
    if scored:
        best = max(scored, key=lambda epoch: epoch[key])
        score = percent(best[key])
        text = f"Best of {len(history)} epochs: {best['number']}, {score} on validation rows."
    if history[-1].get("validation_loss") is not None:
        text += " If the validation loss rises while the training loss falls, the adapter overfits."
    text += rejected
    yield ReportSection("Training", text, plot="epochs")


def cost_section(metrics: Metrics) -> Iterator[ReportSection]:
    """Yield what the run cost."""
    if not (cost := metrics.get("cost")):
        return
    values = {
        "time": "seconds" in cost and f"{cost['seconds'] / 60:.1f} minutes{_processes(cost)}",
        "time of training alone": "training_seconds" in cost and f"{cost['training_seconds'] / 60:.1f} minutes",
        "tokens trained a second": cost.get("tokens_per_second"),
        "peak memory": "peak_memory_mb" in cost and f"{cost['peak_memory_mb']:.0f} MB",
        "trained parameters": "trainable_parameters" in cost and f"{cost['trainable_parameters']:,}",
        "device": cost.get("device"),
    }
    yield ReportSection(
        "Cost", "", ("", "training"), tuple((k, str(v)) for k, v in values.items() if v), numbers=False
    )


def _processes(cost: Metrics) -> str:
    return f", in {cost['processes']} processes: it was resumed" if cost.get("processes", 1) > 1 else ""


def provenance_section(metrics: Metrics) -> Iterator[ReportSection]:
    """Yield the provenance of the bundle."""
    if origin := metrics.get("provenance"):
        yield ReportSection("Provenance", "", ("", "value"), tuple(_leaves(origin)), numbers=False)


def _leaves(value: Any, path: Sequence[str] = ()) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        yield " ".join(path).replace("_", " "), text


_FAIRNESS = {
    "made": "training caused it; check fairness before publishing",
    "inherited": "inherited from the foundation and the data",
    "reduced": "training reduced it",
    "unclear": "too few rows to say whether training caused it",
    "chance": "chance between groups of these sizes explains it",
}
_SECTIONS = (
    _scores, _choice, doubt_sections, ordinal_section, number_sections, _labels, _confusions, mistakes_section,
    _calibration, _out_of_scope, _fairness, _seeds, _learning_curve, _epochs, augmentation_section, cost_section,
    provenance_section, )  # fmt: skip
