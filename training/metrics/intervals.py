"""How far a figure may be off by chance: bootstrap intervals over rows, and the spread over seeds."""

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
    """The mean of some seeds' scores and their sample standard deviation, None of a single seed."""

    mean: float
    sd: float | None

    def to_json(self) -> dict[str, Any]:
        return {"mean": round(self.mean, 4), "sd": None if self.sd is None else round(self.sd, 4)}


def interval(counts: Counts, score: Score, resamples: int = _RESAMPLES, seed: int = 0) -> list[float]:
    """[low, high] of the score's 95 % percentile interval over test sets resampled from these rows.

    It holds the chance of which rows were drawn, not that of training again.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    drawn = score(resampled_sums(counts, resamples, seed))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return [round(float(low), 4), round(float(high), 4)]


def label_intervals(
    truth: Sequence[int], predicted: Sequence[int], labels: int, seed: int = 0
) -> dict[str, list[float]]:
    """The intervals of accuracy and macro-F1 of classes below `labels`."""
    counts = label_counts(truth, predicted, labels)
    return {"accuracy": interval(counts, accuracy, seed=seed), "macro_f1": interval(counts, macro_f1, seed=seed)}


def entity_intervals(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], seed: int = 0
) -> dict[str, list[float]]:
    """The interval of the F1 of whole entities, sentences resampled whole."""
    return {"f1": interval(entity_counts(truth, predicted), f1, seed=seed)}


def spread(scores: Sequence[float]) -> Spread:
    """The mean and the sample standard deviation of scores, one a seed."""
    if not scores:
        raise ValueError("no scores; a mean needs at least one seed")
    values = np.asarray(scores, np.float64)
    return Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def median_interval(
    values: Sequence[float], resamples: int = _RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """The median of repeated measurements and its 95 % percentile interval, resampled."""
    measured = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(measured), (resamples, len(measured)))
    low, high = np.quantile(np.median(measured[drawn], axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(np.median(measured)), float(low), float(high)
