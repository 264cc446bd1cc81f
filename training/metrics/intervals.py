"""Intervals of figures: Wilson's for shares of rows, the bootstrap for others, order statistics for times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.metrics.counts import Counts, Score, accuracy, entity_counts, f1, label_counts, macro_f1
from rootstock.training.metrics.evaluation import word_tags
from rootstock.training.metrics.resampling import resampled_sums

CONFIDENCE = 0.95
_RESAMPLES = 1000
# Scores that differ by less are the same: sums in another order differ in their last bits.
_SAME = 1e-12


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


def wilson_interval(share: float, rows: int) -> list[float]:
    """Return [low, high] of the 95 % score interval of a share of `rows` independent rows.

    It has a width also if all rows are right, or none. `share` may be a mean of values between 0 and 1 that are
    not all 0 or 1: such a mean varies less, so the interval is then too wide rather than too narrow. Raise
    ValueError for no rows.
    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    from scipy.stats import norm

    if rows < 1:
        raise ValueError("no rows; an interval needs at least one")
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    unit = z * z / rows
    middle = (share + unit / 2) / (1 + unit)
    half = z / (1 + unit) * math.sqrt(share * (1 - share) / rows + unit / (4 * rows))
    return [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]


def interval(
    counts: Counts, score: Score, resamples: int = _RESAMPLES, seed: int = 0, most: float | None = 1.0
) -> list[float] | None:
    """Return [low, high] of the score's 95 % percentile interval over test sets resampled from these rows.

    It covers the choice of the test rows, not another training. If all resampled sets score the same, as without
    a single mistake, the rows say nothing about their spread. The interval is then Wilson's of the share that the
    score is of `most`, its greatest value. A score without one (`most` is None) has no interval then.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    scores = score(resampled_sums(counts, resamples, seed))
    if np.ptp(scores) > _SAME:
        low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        # A score without a greatest value may have a unit of any size.
        return [rounded(float(bound)) if most is None else round(float(bound), 4) for bound in (low, high)]
    if most is None:
        return None
    share = min(1.0, max(0.0, float(score(counts.sum(0))) / most))
    return [round(most * bound, 4) for bound in wilson_interval(share, len(counts))]


def rounded(value: float) -> float:
    """Return a number with four decimals, or four digits if it is smaller than 1: units have any size."""
    return round(value, 4) if abs(value) >= 1 else float(f"{value:.4g}")


def label_intervals(
    truth: Sequence[int], predicted: Sequence[int], labels: int, seed: int = 0
) -> dict[str, list[float]]:
    """Return the intervals of accuracy and macro-F1 of classes below `labels`."""
    counts = label_counts(truth, predicted, labels)
    rows = len(counts)
    return _known(
        {
            "accuracy": wilson_interval(float(accuracy(counts.sum(0))), rows),
            "macro_f1": interval(counts, macro_f1, seed=seed),
        }
    )


def entity_intervals(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], seed: int = 0
) -> dict[str, list[float]]:
    """Return the interval of the F1 of whole entities, over resampled sentences."""
    return _known({"f1": interval(entity_counts(truth, predicted), f1, seed=seed)})


def output_intervals(
    outputs: Sequence[Array], rows: Sequence[EncodedRow], labels: Sequence[str]
) -> dict[str, list[float]]:
    """Return the intervals of the figures of raw outputs, by the name of the figure."""
    if rows[0].words:
        return entity_intervals(*word_tags(outputs, rows, labels))
    return label_intervals([r.targets[0] for r in rows], [int(r.argmax()) for r in outputs], len(labels))


def _known(by_name: Mapping[str, list[float] | None]) -> dict[str, list[float]]:
    return {name: one for name, one in by_name.items() if one is not None}


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
