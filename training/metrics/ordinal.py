"""Figures for labels that are numbers, such as stars: how far answers are off, and how well their order fits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.training.metrics.confusion import confusion
from rootstock.training.metrics.intervals import CONFIDENCE

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_FEWEST = 3
_RESAMPLES = 1000
Matrix = npt.NDArray[np.float64]


def label_values(labels: Sequence[str]) -> list[float] | None:
    """Return the numbers that labels write; None if one is no number, or if there are fewer than three."""
    if len(labels) < _FEWEST or not all(_NUMBER.fullmatch(label) for label in labels):
        return None
    return [float(label) for label in labels]


def figures_by_value(
    truth: Sequence[int], predicted: Sequence[int], labels: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return `ordinal_figures` under the key `ordinal` if all labels are numbers; nothing otherwise."""
    values = label_values(labels)
    return {} if values is None else {"ordinal": ordinal_figures(truth, predicted, values)}


def ordinal_figures(
    truth: Sequence[int], predicted: Sequence[int], values: Sequence[float], seed: int = 0
) -> dict[str, Any]:
    """Return the figures of classes whose labels have `values`, with their 95 % `intervals` over resampled rows.

    `mae` and `rmse` are the mean absolute and the root mean squared difference of the values. `spearman` is the
    correlation of the ranks, and `quadratic_kappa` is Cohen's kappa with the squared difference of the labels'
    places in order as weight. A figure without a meaning, such as a correlation with one answer, is left out.
    Source: Cohen, "Weighted Kappa", 1968.
    """
    order = np.argsort(values)
    matrix = np.array(confusion(truth, predicted, len(values)), np.float64)[np.ix_(order, order)]
    numbers = np.asarray(values, np.float64)[order]
    rows = int(matrix.sum())
    # Rows drawn with replacement are a multinomial draw of the matrix.
    draws = np.random.default_rng(seed).multinomial(rows, matrix.ravel() / rows, size=_RESAMPLES)
    resampled = draws.reshape(_RESAMPLES, *matrix.shape).astype(np.float64)
    figures: dict[str, Any] = {"rows": rows}
    intervals = {}
    for name, score in _SCORES.items():
        value = float(score(matrix[None], numbers)[0])
        if not np.isfinite(value):
            continue
        figures[name] = round(value, 4)
        scores = score(resampled, numbers)
        scores = scores[np.isfinite(scores)]
        # Rows that cannot differ, such as those without a mistake, say nothing about the spread.
        if len(scores) > _RESAMPLES // 2 and np.ptp(scores) > 0:
            bounds = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            intervals[name] = [round(float(bound), 4) for bound in bounds]
    return {**figures, "intervals": intervals}


def _mae(matrices: Matrix, values: Matrix) -> Matrix:
    return _mean(matrices, np.abs(values[:, None] - values))


def _rmse(matrices: Matrix, values: Matrix) -> Matrix:
    return np.asarray(np.sqrt(_mean(matrices, (values[:, None] - values) ** 2)))


def _mean(matrices: Matrix, weights: Matrix) -> Matrix:
    return np.asarray((matrices * weights).sum((1, 2)) / matrices.sum((1, 2)))


def _spearman(matrices: Matrix, values: Matrix) -> Matrix:
    """Return Pearson's correlation of mean ranks; rows with the same label share the mean of their ranks."""
    half = matrices.sum((1, 2))[:, None] / 2
    sides = matrices.sum(2), matrices.sum(1)
    first, second = (counts.cumsum(1) - counts / 2 - half for counts in sides)
    covariance = np.einsum("nij,ni,nj->n", matrices, first, second)
    variance = (sides[0] * first**2).sum(1) * (sides[1] * second**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(covariance / np.sqrt(variance))


def _quadratic_kappa(matrices: Matrix, values: Matrix) -> Matrix:
    places = np.arange(matrices.shape[1])
    weights = (places[:, None] - places) ** 2.0
    expected = matrices.sum(2)[:, :, None] * matrices.sum(1)[:, None, :] / matrices.sum((1, 2))[:, None, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 - (matrices * weights).sum((1, 2)) / (expected * weights).sum((1, 2)))


_SCORES = {"mae": _mae, "rmse": _rmse, "spearman": _spearman, "quadratic_kappa": _quadratic_kappa}
