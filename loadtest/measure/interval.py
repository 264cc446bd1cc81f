"""The median of repeated measurements and the interval that holds it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class MedianInterval:
    """A median and two of the measurements around it; `coverage` is the chance that they hold the true one."""

    median: float
    low: float
    high: float
    coverage: float


def median_interval(values: Sequence[float]) -> MedianInterval:
    """The narrowest symmetric interval of order statistics that holds the median with 95 %.

    It assumes nothing of the distribution but that the measurements are independent. Under six measurements no
    such interval exists: then it is their whole range, and `coverage` says what that is worth.
    Source: Conover, "Practical Nonparametric Statistics", 3rd ed., §3.2.
    """
    if not values:
        raise ValueError("no measurements; a median needs at least one")
    ordered = sorted(values)
    count = len(ordered)
    cut, coverage = 0, _coverage(count, 0)
    while cut + 1 < (count + 1) // 2 and _coverage(count, cut + 1) >= CONFIDENCE:
        cut += 1
        coverage = _coverage(count, cut)
    return MedianInterval(statistics.median(ordered), ordered[cut], ordered[count - 1 - cut], coverage)


def _coverage(count: int, cut: int) -> float:
    """The chance that the median lies between the measurements left after dropping `cut` at each end."""
    outside = sum(math.comb(count, k) for k in range(cut + 1))
    return max(0.0, 1.0 - 2.0 * outside / 2.0**count)
