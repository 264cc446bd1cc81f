"""Intervals of figures: bootstrap over rows, order statistics over measurements, the spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.training.metrics.counts import Counts, Score, accuracy, entity_counts, f1, label_counts, macro_f1
from rootstock.training.metrics.resampling import resampled_sums

CONFIDENCE = 0.95
_RESAMPLES = 1000


@dataclass(frozen=True)
class Spread:
    """The mean of scores, one a seed, and their sample standard deviation, None of a single seed."""

    mean: float
    sd: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, rounded for a file."""
        return {"mean": round(self.mean, 4), "sd": None if self.sd is None else round(self.sd, 4)}


@dataclass(frozen=True)
class OrderStatisticInterval:
    """The median of measurements, between two of them; `coverage` is the chance that they hold the true one."""

    median: float
    low: float
    high: float
    coverage: float


def interval(counts: Counts, score: Score, resamples: int = _RESAMPLES, seed: int = 0) -> list[float]:
    """Return [low, high] of the score's 95 % percentile interval over test sets resampled from these rows.

    It covers the choice of the test rows, not another training.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    scores = score(resampled_sums(counts, resamples, seed))
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return [round(float(low), 4), round(float(high), 4)]


def label_intervals(
    truth: Sequence[int], predicted: Sequence[int], labels: int, seed: int = 0
) -> dict[str, list[float]]:
    """Return the intervals of accuracy and macro-F1 of classes below `labels`."""
    counts = label_counts(truth, predicted, labels)
    return {"accuracy": interval(counts, accuracy, seed=seed), "macro_f1": interval(counts, macro_f1, seed=seed)}


def entity_intervals(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], seed: int = 0
) -> dict[str, list[float]]:
    """Return the interval of the F1 of whole entities, over resampled sentences."""
    return {"f1": interval(entity_counts(truth, predicted), f1, seed=seed)}


def spread(scores: Sequence[float]) -> Spread:
    """Return the mean and the sample standard deviation of scores, one a seed."""
    if not scores:
        raise ValueError("no scores; a mean needs at least one seed")
    values = np.asarray(scores, np.float64)
    return Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def order_statistic_interval(values: Sequence[float]) -> OrderStatisticInterval:
    """Return the median of measurements, and the two measurements nearest to it that cover 95 %.

    It assumes only that measurements are independent. Of fewer than six no two cover 95 %: the interval is then
    their whole range, and `coverage` is lower.
    Source: Conover, "Practical Nonparametric Statistics", 3rd ed., §3.2.
    """
    from scipy.stats import binom

    if not values:
        raise ValueError("no measurements; a median needs at least one")
    ordered = np.sort(np.asarray(values, np.float64))
    count = len(ordered)
    # The chance of too few measurements on one side of the true median, by how many are left out at each end.
    outside = binom.cdf(np.arange((count + 1) // 2), count, 0.5)
    cut = max(0, int((1 - 2 * outside >= CONFIDENCE).sum()) - 1)
    coverage = max(0.0, 1 - 2 * float(outside[cut]))
    return OrderStatisticInterval(
        float(np.median(ordered)), float(ordered[cut]), float(ordered[count - 1 - cut]), coverage
    )
