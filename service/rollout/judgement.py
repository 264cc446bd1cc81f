"""The judgement of a version's figures by a rollback rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rootstock.adapters.registry.rollout_records import Reason, RollbackRule


@dataclass(frozen=True, slots=True)
class VersionFigures:
    """The requests of a version in a window: those that were answered, each with its seconds, and the failed."""

    seconds: Sequence[float] = ()
    faults: int = 0

    @property
    def requests(self) -> int:
        """Return the number of requests."""
        return len(self.seconds) + self.faults


@dataclass(frozen=True, slots=True)
class ComparisonFigures:
    """The requests in a window whose answers by two versions were compared, and those that differed."""

    compared: int = 0
    differing: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """A limit of a rule that was broken: `measured` is over `limit` in this number of requests."""

    reason: Reason
    measured: float
    limit: float
    requests: int


def violation(
    rule: RollbackRule, judged: VersionFigures, incumbent: VersionFigures, comparison: ComparisonFigures
) -> Violation | None:
    """Return the first limit of a rule that a version broke against its incumbent; None if it keeps all.

    A limit judges once `min_requests` are there for it: of the version for errors, compared ones for
    disagreement, and answered ones of both versions for the ratio of p95.
    """
    most, least = rule.max_error_rate, rule.min_requests
    if most is not None and judged.requests >= least and judged.faults > most * judged.requests:
        return Violation("max_error_rate", judged.faults / judged.requests, most, judged.requests)
    most, compared = rule.max_disagreement, comparison.compared
    if most is not None and compared >= least and comparison.differing > most * compared:
        return Violation("max_disagreement", comparison.differing / compared, most, compared)
    most = rule.max_p95_ratio
    if most is not None and min(len(judged.seconds), len(incumbent.seconds)) >= least:
        usual = p95(incumbent.seconds)
        ratio = p95(judged.seconds) / usual if usual > 0 else 1.0
        if ratio > most:
            return Violation("max_p95_ratio", ratio, most, len(judged.seconds))
    return None


def p95(seconds: Sequence[float]) -> float:
    """Return the smallest number that at least 95 % do not exceed (nearest rank)."""
    # In whole numbers, because 0.95 * 20 is above 19 in floating point.
    return sorted(seconds)[math.ceil(95 * len(seconds) / 100) - 1]
