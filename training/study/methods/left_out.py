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

    `strength` is None if the gate keeps the head alone. `sets` is the number of other sets behind the prior.
    """

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


def left_out(records: Sequence[Record], alpha: float) -> list[LeftOutDecision | None]:
    """Return the decision on each draw with a prior of the other sets of its kind.

    It is None for a draw without figures at all strengths, and if no other set is of its kind.
    """
    return [_decision(record, list(filter(_is_whole, records)), alpha) for record in records]


def _is_whole(record: Record) -> bool:
    return len(record.get("by_strength", ())) == len(STRENGTHS) and record["observed"] is not None


def _decision(record: Record, records: Sequence[Record], alpha: float) -> LeftOutDecision | None:
    if not _is_whole(record):
        return None
    kind, own = record["kind"], family(record["set"])
    others = [other for other in records if other["kind"] == kind and family(other["set"]) != own]
    if not others:
        return None
    observed = ObservedGain.from_json(record["observed"])
    best = best_gain(expected_gains(fit_prior(others, GAIN_PRIORS[kind]), observed, STRENGTHS))
    sets = len({family(other["set"]) for other in others})
    if not best.worth_it(alpha):
        return LeftOutDecision(None, 0.0, sets)
    return LeftOutDecision(best.strength, _gains(record)[STRENGTHS.index(best.strength)], sets)


def _gains(record: Record) -> list[float]:
    """Return the gain on the test rows at each strength."""
    scores = {float(strength): score for strength, score in record["by_strength"].items()}
    return [scores[strength] - record["head_only"]["score"] for strength in STRENGTHS]


def _shares(record: Record) -> list[float]:
    error = max(1 - record["head_only"]["score"], 1 / record["test"])
    return [gain / error for gain in _gains(record)]
