"""The gate on data sets that its prior has not seen: each set judged with the gains of the others alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.training.metrics.expected_gain import GainPrior, ObservedGain, best_gain, expected_gains
from rootstock.training.metrics.gain_priors import GAIN_PRIORS
from rootstock.training.network.strength import STRENGTHS

Record = dict[str, Any]

# Few sets agree by chance, and a prior must not be surer than that.
_LEAST_DEVIATION = 0.1


@dataclass(frozen=True)
class LeftOutDecision:
    """The decision of the gate on a draw of a set that its prior leaves out, and the gain on the test rows.

    `strength` is None if the gate keeps the head alone. `sets` are the number of other sets behind the prior.
    """

    name: str
    rows: int | None
    draw: int
    strength: float | None
    gain: float
    sets: int


def family(name: str) -> str:
    """Return the data set that a recipe reads: the first word of its name, so that its domains count as one.

    >>> family("clinc150-banking")
    'clinc150'
    """
    return name.split("-")[0]


def fit_prior(records: Iterable[Record], like: GainPrior) -> GainPrior:
    """Return a prior from the gains on test rows, in which each set has one weight.

    A gain is a share of the head's errors. The deviation is at least 0.1. Correlation and drift are those of
    `like`.
    """
    by_family: dict[str, list[list[float]]] = {}
    for record in records:
        by_family.setdefault(family(record["set"]), []).append(_shares(record))
    mean = np.mean([np.mean(shares, 0) for shares in by_family.values()], 0)
    square = np.mean([np.mean((np.array(shares) - mean) ** 2, 0) for shares in by_family.values()], 0)
    deviation = np.maximum(np.sqrt(square), _LEAST_DEVIATION)
    return GainPrior(STRENGTHS, tuple(mean), tuple(deviation), like.correlation, like.drift)


def left_out(records: Sequence[Record], alpha: float) -> list[LeftOutDecision]:
    """Return the decision on each draw with a prior of the other sets of its kind.

    Draws without figures at all strengths, and those of a kind that one set alone has, have none.
    """
    whole = [record for record in records if len(record.get("by_strength", ())) == len(STRENGTHS)]
    decisions = []
    for record in whole:
        others = [
            other
            for other in whole
            if other["kind"] == record["kind"] and family(other["set"]) != family(record["set"])
        ]
        if not others or record["observed"] is None:
            continue
        observed = ObservedGain.from_json(record["observed"])
        prior = fit_prior(others, GAIN_PRIORS[record["kind"]])
        best = best_gain(expected_gains(prior, observed, STRENGTHS))
        kept = best.worth_it(alpha)
        decisions.append(
            LeftOutDecision(
                record["set"],
                record["rows"],
                record["draw"],
                best.strength if kept else None,
                _gains(record)[STRENGTHS.index(best.strength)] if kept else 0.0,
                len({family(other["set"]) for other in others}),
            )
        )
    return decisions


def _gains(record: Record) -> list[float]:
    """Return the gain on the test rows at each strength."""
    scores = {float(strength): score for strength, score in record["by_strength"].items()}
    return [scores[strength] - record["head_only"]["score"] for strength in STRENGTHS]


def _shares(record: Record) -> list[float]:
    error = max(1 - record["head_only"]["score"], 1 / record["test"])
    return [gain / error for gain in _gains(record)]
