"""The plots of a training run, one PNG each, drawn from its metrics without pyplot's global state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rootstock.training.errors import extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Metrics = Mapping[str, Any]

_DPI = 120
_LONGEST_NAME = 28
# Beyond this many labels a cell is too small for its number.
_NUMBERED = 30
_ADAPTER, _FOUNDATION, _GREY = "#1f5f8b", "#e08e2b", "#8a8a8a"


_EPOCH_SCORES = (
    ("validation_perplexity", 1, "validation perplexity"),
    ("validation_r2", 100, "validation R², %"),
    ("validation_f1", 100, "validation F1, %"),
)


def draw(metrics: Metrics, folder: Path) -> dict[str, Path]:
    """Write the plots of `metrics` as NAME.png into `folder`; return the paths by name, in the report's order.

    Raise MissingExtra if matplotlib is not installed.
    """
    with extra("plots"):
        import matplotlib.figure  # noqa: F401
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        for name, plot in _PLOTS.items():
            if (figure := plot(metrics)) is not None:
                written[name] = folder / f"{name}.png"
                figure.savefig(written[name], dpi=_DPI)
    return written


def _labels(metrics: Metrics) -> Figure | None:
    """Plot the F1 of each label or entity type, the worst first, beside that of the head alone."""
    adapter = metrics["test"]["adapter"]
    groups = adapter.get("labels") or adapter.get("entities")
    if not groups:
        return None
    head = _head_groups(metrics)
    names = sorted(groups, key=lambda name: (groups[name]["f1"], name), reverse=True)
    figure, axes = _new(8, 1.2 + 0.32 * len(names))
    places = range(len(names))
    values = [groups[name]["f1"] for name in names]
    if head:
        others = [head.get(name, {}).get("f1", 0.0) for name in names]
        axes.hlines(places, others, values, color=_GREY, alpha=0.6)
        axes.plot(others, places, "o", markerfacecolor="white", color=_FOUNDATION, label="head only")
    axes.plot(values, places, "o", color=_ADAPTER, label="adapter")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    axes.set_yticks(places, [f"{_short(n)} ({groups[n]['support']})" for n in names], parse_math=False)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.margins(x=0.04)
    axes.set_xlabel("F1 on test rows (rows or entities of each in brackets)")
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def _confusion(metrics: Metrics) -> Figure | None:
    """Plot counts in cells, coloured by the share of the true label's rows."""
    matrix = metrics["test"].get("confusion")
    if not matrix:
        return None
    counts = np.asarray(matrix)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    names = [_short(label) for label in metrics["labels"]]
    numbered = len(names) <= _NUMBERED
    size = (0.42 if numbered else 0.16) * len(names)
    figure, axes = _new(max(5.0, size + 3), max(4.0, size + 2))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    small = 9 if numbered else 5
    axes.set_xticks(
        range(len(names)),
        names,
        rotation=55,
        ha="right",
        rotation_mode="anchor",
        fontsize=small,
        parse_math=False,
    )
    axes.set_yticks(range(len(names)), names, fontsize=small, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for i, j in np.argwhere(counts > 0) if numbered else ():
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, counts[i, j], ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, label="share of the true label's rows", shrink=0.8)
    return figure


def _calibration(metrics: Metrics) -> Figure | None:
    """Plot accuracy against confidence before and after the temperature, with the rows of each step below."""
    calibration = metrics.get("calibration")
    if not calibration:
        return None
    figure = _figure(9, 4.6, gap=0.06)
    grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    sides = (("before", "temperature 1"), ("after", f"temperature {calibration['temperature']:.2f}"))
    for column, (side, title) in enumerate(sides):
        bins = calibration.get(f"bins_{side}", [])
        above, below = grid[:, column]
        above.plot([0, 1], [0, 1], "--", color=_GREY, label="perfectly calibrated")
        confidence = [b["confidence"] for b in bins]
        accuracy, rows = [b["accuracy"] for b in bins], np.array([b["rows"] for b in bins])
        above.plot(confidence, accuracy, color=_ADAPTER, alpha=0.4)
        # A step of few rows says little, so its dot is small.
        sizes = 12 + 130 * rows / max(1, rows.max(initial=1))
        above.scatter(confidence, accuracy, sizes, color=_ADAPTER, label="adapter (size: rows)", zorder=3)
        above.set_title(f"{title}: error {100 * calibration[f'ece_{side}']:.1f} points", fontsize=10)
        above.set_xlim(0, 1.02)
        above.set_ylim(-0.05, 1.05)
        above.grid(alpha=0.3)
        below.bar(confidence, rows, width=0.05, color=_ADAPTER)
        below.set_xlabel("confidence")
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("rows")
    grid[0, 0].legend(loc="upper left", fontsize=9, frameon=False)
    return figure


def _numbers(metrics: Metrics) -> Figure | None:
    """Plot the predicted against the true numbers of test rows, with the line of right answers."""
    points = metrics["test"].get("points")
    if not points:
        return None
    true, predicted = np.asarray(points, np.float64).T
    figure, axes = _new(5.4, 5)
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    axes.plot(ends, ends, "--", color=_GREY, label="right answers")
    axes.scatter(true, predicted, 16, color=_ADAPTER, alpha=0.5, label="test rows")
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    axes.legend(loc="upper left", fontsize=9, frameon=False)
    axes.grid(alpha=0.3)
    return figure


def _learning_curve(metrics: Metrics) -> Figure | None:
    """Plot the score by the number of training rows."""
    curve = metrics.get("learning_curve")
    if not curve:
        return None
    figure, axes = _new(7, 4)
    points = sorted(curve, key=lambda point: point["rows"])
    axes.plot([p["rows"] for p in points], [100 * p["score"] for p in points], "o-", color=_ADAPTER)
    for point in points:
        text = f"{100 * point['score']:.1f}"
        axes.annotate(
            text,
            (point["rows"], 100 * point["score"]),
            (-3, 6),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    axes.margins(0.08, 0.18)
    axes.set_xlabel("training rows")
    axes.set_ylabel("score on test rows, %")
    axes.grid(alpha=0.3)
    return figure


def _epochs(metrics: Metrics) -> Figure | None:
    """Plot the losses on training and on validation rows by epoch, and the validation score on another axis."""
    epochs = metrics.get("epochs")
    if not epochs:
        return None
    figure, axes = _new(7, 4)
    numbers = [epoch["number"] for epoch in epochs]
    axes.plot(
        numbers, [epoch["loss"] for epoch in epochs], "o-", color=_FOUNDATION, markersize=4, label="training loss"
    )
    losses = [(epoch["number"], epoch["validation_loss"]) for epoch in epochs if epoch.get("validation_loss")]
    if losses:
        axes.plot(*zip(*losses, strict=True), "o--", color=_GREY, markersize=4, label="validation loss")
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss", color=_FOUNDATION)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    texts = "validation_perplexity" in epochs[0]
    key, factor, title = next(one for one in _EPOCH_SCORES if one[0] in (*epochs[0], "validation_f1"))
    scored = [(epoch["number"], factor * epoch[key]) for epoch in epochs if epoch.get(key) is not None]
    if scored:
        other = axes.twinx()
        other.plot(*zip(*scored, strict=True), "s-", color=_ADAPTER, markersize=4)
        other.set_ylabel(title, color=_ADAPTER)
        best = (min if texts else max)(scored, key=lambda point: point[1])
        other.plot(*best, "o", markersize=12, markerfacecolor="none", color=_ADAPTER)
        other.annotate(f"{best[1]:.1f}", best, (0, -18), textcoords="offset points", ha="center", color=_ADAPTER)
    return figure


def _seeds(metrics: Metrics) -> Figure | None:
    """Plot the scores of each seed, with their mean."""
    seeds = metrics.get("seeds")
    lines = [(name, seeds[name]) for name in ("validation", "test") if seeds.get(name)] if seeds else []
    if not lines:
        return None
    figure, axes = _new(7, 1.4 + 0.7 * len(lines))
    for place, (_, scores) in enumerate(lines):
        values = 100 * np.asarray(scores)
        axes.plot(values, np.full(len(values), place), "o", color=_ADAPTER, alpha=0.6, markersize=8)
        axes.plot(values.mean(), place, "|", color="black", markersize=26, markeredgewidth=2)
        text = f"mean {values.mean():.1f}" + (f", sd {values.std(ddof=1):.1f}" if len(values) > 1 else "")
        axes.annotate(text, (values.mean(), place), (0, 18), textcoords="offset points", ha="center", fontsize=9)
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    axes.set_ylim(-0.5, len(lines) - 0.2)
    axes.margins(x=0.15)
    axes.set_xlabel("score of each seed, %")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _head_groups(metrics: Metrics) -> Mapping[str, Any]:
    head = metrics["test"].get("baselines", {}).get("head_only", {})
    groups: Mapping[str, Any] = head.get("labels") or head.get("entities") or {}
    return groups


def _figure(width: float, height: float, gap: float = 0.02) -> Figure:
    """Return an empty figure in inches; `gap` is the share of the width between neighbouring plots."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=gap))


def _new(width: float, height: float) -> tuple[Figure, Any]:
    figure = _figure(width, height)
    return figure, figure.subplots()


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


_PLOTS: Mapping[str, Callable[[Metrics], Any]] = {
    "labels": _labels,
    "confusion": _confusion,
    "calibration": _calibration,
    "numbers": _numbers,
    "epochs": _epochs,
    "learning_curve": _learning_curve,
    "seeds": _seeds,
}
