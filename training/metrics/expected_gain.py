"""The gain to expect from an adapter over a head alone: the observed one, shrunk towards that of other data sets.

The observed gain of the best of several strengths is too high on average, since chance helps the one that is
chosen, and a few rows show a gain of either sign by chance. A normal prior over the gains at all strengths
corrects both: its mean and covariance are those of the gains on other data sets. The posterior mean is the best
estimate, so the highest one can be chosen without a further correction.
Source: Efron and Morris, "Stein's Estimation Rule and Its Competitors", 1973; Gelman, Hill and Yajima, "Why We
(Usually) Don't Have to Worry About Multiple Comparisons", 2012.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.training.metrics.counts import Counts, Score
from rootstock.training.metrics.resampling import resampled_sums

_RESAMPLES = 1000
# A head without errors leaves a gain of nothing, but a loss of anything.
_LEAST_DEVIATION = 0.01
# Quantile of the normal distribution for a two-sided interval of 95 %.
_Z = 1.959964

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GainPrior:
    """The gains of one way of training on data sets that are not this one, as shares of the head's errors.

    0.1 means that an adapter corrects a tenth of the errors of its head alone. `mean` and `deviation` are by
    strength, `correlation` is that of neighbouring strengths. `drift` is the standard deviation, between data
    sets, of the gain on new rows less the gain on the rows that judge, beyond the chance of either.
    """

    strengths: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    correlation: float
    drift: float

    def at(self, strengths: Sequence[float]) -> tuple[Vector, Vector]:
        """Return the mean (strengths,) and the covariance (strengths, strengths) at some of the strengths."""
        places = [self.strengths.index(strength) for strength in strengths]
        deviation = np.array([self.deviation[i] for i in places])
        between = self.correlation ** np.abs(np.subtract.outer(places, places))
        return np.array([self.mean[i] for i in places]), np.outer(deviation, deviation) * between


@dataclass(frozen=True)
class ObservedGain:
    """The gains on `rows` rows, by strength, and the covariance of their chance; `error` is the head's error.

    Gains and covariance are in units of the score, which is a share.
    """

    gains: Vector
    covariance: Vector
    error: float
    rows: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, rounded for a file."""
        return {
            "gains": self.gains.round(5).tolist(),
            "covariance": self.covariance.round(8).tolist(),
            "error": round(self.error, 5),
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ObservedGain:
        """Return the observation of `to_json`."""
        gains, covariance = np.array(values["gains"]), np.array(values["covariance"])
        return cls(gains, covariance, values["error"], values["rows"])


@dataclass(frozen=True)
class ExpectedGain:
    """The gain to expect at a strength: mean and standard deviation of the posterior, in units of the score."""

    strength: float
    mean: float
    deviation: float
    observed: float
    rows: int

    @property
    def interval(self) -> list[float]:
        """The interval that holds the gain with a chance of 95 %."""
        return [round(self.mean - _Z * self.deviation, 4), round(self.mean + _Z * self.deviation, 4)]

    @property
    def chance_of_loss(self) -> float:
        """The chance that the gain is not above 0."""
        if not self.deviation:
            return float(self.mean <= 0)
        return 0.5 * math.erfc(self.mean / self.deviation / math.sqrt(2))

    def worth_it(self, alpha: float) -> bool:
        """Return whether the rows show no loss, and the chance of a loss is below half of `alpha`.

        The prior may not fit these data, so it does not outweigh a loss that the rows show.
        """
        return self.observed >= 0 and self.chance_of_loss < alpha / 2

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, rounded for a file."""
        return {
            "mean": round(self.mean, 4),
            "interval": self.interval,
            "chance_of_loss": round(self.chance_of_loss, 4),
            "observed": round(self.observed, 4),
            "rows": self.rows,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"expected gain {_points(self.mean)} points, 95 % interval {_points(low)} to {_points(high)}, "
            f"observed {_points(self.observed)} on {self.rows} rows"
        )


def observed_on_labels(head: npt.ArrayLike, others: Sequence[npt.ArrayLike]) -> ObservedGain:
    """Return the gains in accuracy from right answers, (rows,) for the head and for each strength."""
    right = np.asarray(head, np.float64)
    changes = np.stack([np.asarray(other, np.float64) for other in others]) - right
    count = len(right)
    # A row more that is lost and one that is won: rows on which nothing changed do not prove that nothing can.
    spread = changes @ changes.T + 2.0
    gains = changes.mean(1)
    covariance = spread / count**2 - np.outer(gains, gains) / count
    error = (float((1 - right).sum()) + 1) / (count + 2)
    return ObservedGain(gains, covariance, error, count)


def observed_on_counts(head: Counts, others: Sequence[Counts], score: Score, seed: int = 0) -> ObservedGain:
    """Return the gains in a score from each row's counts, with the covariance of a bootstrap over rows."""
    base = score(head.sum(0))
    drawn = score(resampled_sums(head, _RESAMPLES, seed))
    gains = np.array([float(score(other.sum(0)) - base) for other in others])
    resampled = np.stack([score(resampled_sums(other, _RESAMPLES, seed)) - drawn for other in others])
    covariance = np.atleast_2d(np.cov(resampled)) + 2.0 / len(head) ** 2
    return ObservedGain(gains, covariance, max(1 - float(base), 1 / (len(head) + 2)), len(head))


def expected_gains(prior: GainPrior, observed: ObservedGain, strengths: Sequence[float]) -> list[ExpectedGain]:
    """Return the gain to expect at each strength.

    The posterior of normal gains: mean + Λ (Λ + Σ)⁻¹ (observed − mean), with the prior's covariance Λ and that of
    the observation Σ. An observation farther from the prior than both allow shows that the prior does not fit
    these data. Λ is then widened by as much as their squared distance exceeds the one to expect.
    """
    shares, spread = prior.at(strengths)
    mean = shares * observed.error
    spread = spread * observed.error**2 + _LEAST_DEVIATION**2
    noise = observed.covariance + (prior.drift * observed.error) ** 2
    away = observed.gains - mean
    spread = spread * max(1.0, float(away @ np.linalg.solve(spread + noise, away)) / len(strengths))
    weight = np.linalg.solve(spread + noise, spread).T
    after = mean + weight @ away
    variance = np.clip(np.diag(spread - weight @ spread), 0, None)
    return [
        ExpectedGain(
            strength,
            float(after[i]),
            math.sqrt(float(variance[i])),
            float(observed.gains[i]),
            observed.rows,
        )
        for i, strength in enumerate(strengths)
    ]


def best_gain(gains: Sequence[ExpectedGain]) -> ExpectedGain:
    """Return the highest gain to expect, on a tie that of the greatest strength.

    A strength at which the rows show a loss comes after all others.
    """
    return max(gains, key=lambda each: (each.observed >= 0, each.mean, each.strength))


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
