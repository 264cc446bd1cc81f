"""Figures of answers that are numbers: errors, the share of the variance explained, the correlation of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.training.metrics.counts import Counts
from rootstock.training.metrics.intervals import CONFIDENCE, interval, rounded

Numbers = npt.NDArray[np.float64]

# Figures in the unit of the numbers, which has any size.
_IN_UNITS = ("mae", "rmse")
_RESAMPLES = 1000
# The most numbers that are drawn at once.
_AT_ONCE = 2_000_000


def error_counts(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Counts:
    """Return (rows, 5): 1, the absolute error, its square, the true number and its square.

    The true numbers are counted from their mean, so that their variance keeps its digits.
    """
    true, answers = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    errors, around = answers - true, true - true.mean()
    return np.stack([np.ones_like(true), np.abs(errors), errors**2, around, around**2], axis=1)


def r2(sums: Counts) -> Numbers:
    """Return the share of the variance that the answers explain, from sums of `error_counts`.

    It is 1 less the mean squared error ÷ the variance, so it is below 0 for answers worse than the mean. Rows
    with one number have no variance: their share is 0.
    """
    variance = sums[..., 4] - sums[..., 3] ** 2 / sums[..., 0]
    varies = variance > 1e-12 * np.maximum(sums[..., 4], 1e-300)
    shares = np.divide(sums[..., 2], variance, out=np.ones_like(variance), where=varies)
    return np.asarray(1 - shares)


def mean_error(sums: Counts) -> Numbers:
    """Return the mean absolute error, from sums of `error_counts`."""
    return np.asarray(sums[..., 1] / sums[..., 0])


def root_error(sums: Counts) -> Numbers:
    """Return the root of the mean squared error, from sums of `error_counts`."""
    return np.asarray(np.sqrt(sums[..., 2] / sums[..., 0]))


def number_figures(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, Any]:
    """Return R², the mean absolute and the root mean squared error, and Spearman's correlation.

    The correlation is left out if all answers, or all true numbers, are the same.
    """
    counts = error_counts(truth, predicted)
    sums = counts.sum(0)
    figures: dict[str, Any] = {"rows": len(counts)}
    for name, score in (("r2", r2), ("mae", mean_error), ("rmse", root_error)):
        figures[name] = rounded(float(score(sums)))
    ranks = _spearman(np.asarray(truth, np.float64)[None], np.asarray(predicted, np.float64)[None])
    if np.isfinite(ranks[0]):
        figures["spearman"] = rounded(float(ranks[0]))
    return figures


def figure_text(name: str, value: float, decimals: int) -> str:
    """Return a figure of any problem for readers: with four digits if it has a unit, else with decimals."""
    return f"{value:.4g}" if name in _IN_UNITS else f"{value:.{decimals}f}"


def number_intervals(truth: npt.ArrayLike, predicted: npt.ArrayLike, seed: int = 0) -> dict[str, list[float]]:
    """Return the 95 % percentile intervals of the figures over test sets resampled from these rows."""
    counts = error_counts(truth, predicted)
    found: dict[str, list[float]] = {}
    for name, score in (("r2", r2), ("mae", mean_error), ("rmse", root_error)):
        if bounds := interval(counts, score, seed=seed, most=None):
            found[name] = bounds
    ranks = np.concatenate(list(_resampled_ranks(np.asarray(truth), np.asarray(predicted), seed)))
    ranks = ranks[np.isfinite(ranks)]
    if len(ranks) > _RESAMPLES // 2 and np.ptp(ranks) > 0:
        bounds = np.quantile(ranks, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        found["spearman"] = [round(float(bound), 4) for bound in bounds]
    return found


def _resampled_ranks(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], seed: int) -> Iterator[Numbers]:
    draw, rows = np.random.default_rng(seed), len(truth)
    turn = max(1, _AT_ONCE // rows)
    for begin in range(0, _RESAMPLES, turn):
        chosen = draw.integers(rows, size=(min(turn, _RESAMPLES - begin), rows))
        yield _spearman(truth[chosen], predicted[chosen])


def _spearman(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Numbers:
    """Return the correlation of the ranks of each row of two tables; NaN where one has equal values alone."""
    from scipy.stats import rankdata

    first, second = (rankdata(values, axis=1) for values in (truth, predicted))
    first, second = (ranks - ranks.mean(1, keepdims=True) for ranks in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt((first**2).sum(1) * (second**2).sum(1))
        return np.asarray((first * second).sum(1) / lengths)
