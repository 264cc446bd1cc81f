"""Paired tests of two models on the same rows: is one better by more than chance?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rootstock.training.metrics.counts import Counts, Score
from rootstock.training.metrics.intervals import CONFIDENCE, wilson_interval
from rootstock.training.metrics.resampling import resampled_sums

Alternative = Literal["greater", "two-sided"]
_RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """A second model against a first one on the same rows.

    `wins` and `losses` are the rows on which the second is better and worse. `difference` is its score less the
    first one's. `p_value` is the chance of this difference, or a larger one, between equals. `test` names the
    test.
    """

    wins: int
    losses: int
    difference: float
    p_value: float
    test: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, rounded for a file."""
        return {
            "wins": self.wins,
            "losses": self.losses,
            "difference": round(self.difference, 4),
            "p_value": round(self.p_value, 6),
            "test": self.test,
        }


def mcnemar(
    first: npt.ArrayLike, second: npt.ArrayLike, alternative: Alternative = "greater", mid_p: bool = True
) -> Comparison:
    """Test whether `second` is right more often than `first`; both say for each row whether the model is right.

    "two-sided" asks whether they differ. The exact test is conservative where few rows differ; `mid_p` counts
    half of the observed outcome's own chance. If no row differs, the p-value is 1.
    Source: Fagerland, Lydersen and Laake, "The McNemar test for binary matched-pairs data", 2013.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    _check_lengths(len(a), len(b))
    wins, losses = int((b & ~a).sum()), int((a & ~b).sum())
    difference = (wins - losses) / len(a)
    p_value = _binomial(wins, losses, alternative, mid_p) if wins + losses else 1.0
    return Comparison(
        wins, losses, difference, p_value, f"McNemar, {'mid-p' if mid_p else 'exact'}, {_side(alternative)}"
    )


def paired_bootstrap(
    first: Counts,
    second: Counts,
    score: Score,
    alternative: Alternative = "greater",
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Test whether `second` scores higher than `first`, from each row's counts (rows, columns) on the same rows.

    The p-value is the share of resampled test sets whose difference exceeds the observed one by as much as that
    exceeds 0. A row is won if the first model's score would rise with the second model's answer to it.
    Source: Berg-Kirkpatrick, Burkett and Klein, "An Empirical Investigation of Statistical Significance in
    NLP", 2012.
    """
    _check_lengths(len(first), len(second))
    difference = float(score(second.sum(0)) - score(first.sum(0)))
    differences = score(resampled_sums(second, resamples, seed)) - score(resampled_sums(first, resamples, seed))
    # Equal figures may differ in their last bits, which must not turn a tie into evidence.
    excess, bound = differences - difference, difference - 1e-12
    if alternative == "two-sided":
        excess, bound = np.abs(excess), abs(difference) - 1e-12
    p_value = (1 + int((excess >= bound).sum())) / (1 + resamples)
    by_row = score(first.sum(0) - first + second) - score(first.sum(0))
    wins, losses = int((by_row > 1e-12).sum()), int((by_row < -1e-12).sum())
    test = f"paired bootstrap of {resamples} resamples, {_side(alternative)}"
    return Comparison(wins, losses, difference, p_value, test)


def gain_interval(
    first: Counts,
    second: Counts,
    score: Score,
    resamples: int = _RESAMPLES,
    seed: int = 0,
    most: float | None = 1.0,
) -> list[float]:
    """Return [low, high] of the 95 % percentile interval of `second`'s gain over `first` on the same rows.

    Both are scored on the same resampled test sets. If all of these have the same gain, as of two models with the
    same answers, the interval reaches as far as rows that differ can be missing from so few rows: to the upper
    bound of Wilson's interval of none of them, of a score between 0 and `most`. A score without a greatest value
    (`most` is None) has an interval without width then.
    """
    _check_lengths(len(first), len(second))
    gains = score(resampled_sums(second, resamples, seed)) - score(resampled_sums(first, resamples, seed))
    low, high = np.quantile(gains, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if most is not None and np.ptp(gains) < 1e-12:
        unseen = most * wilson_interval(0.0, len(first))[1]
        low, high = max(-most, low - unseen), min(most, high + unseen)
    return [round(float(low), 4), round(float(high), 4)]


def _binomial(wins: int, losses: int, alternative: Alternative, mid_p: bool) -> float:
    from scipy.stats import binom

    total = wins + losses
    if alternative == "greater":
        tail, own = float(binom.sf(wins - 1, total, 0.5)), float(binom.pmf(wins, total, 0.5))
        return tail - own / 2 if mid_p else tail
    fewer = min(wins, losses)
    tail, own = float(binom.cdf(fewer, total, 0.5)), float(binom.pmf(fewer, total, 0.5))
    if mid_p:
        # With as many wins as losses, both tails share the observed outcome.
        return 1 - own / 2 if wins == losses else 2 * tail - own
    return min(1.0, 2 * tail)


def _side(alternative: Alternative) -> str:
    return "one-sided" if alternative == "greater" else "two-sided"


def _check_lengths(first: int, second: int) -> None:
    if first != second or not first:
        raise ValueError(f"a paired test needs two models on the same rows; here {first} and {second}")
