"""The median of repeated measurements and the interval that holds it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class MedianInterval:
    """A median and two measurements around it. `coverage` is the chance that they enclose the true median."""

    median: float
    low: float
    high: float
    coverage: float


def median_interval(values: Sequence[float]) -> MedianInterval:
    """Return the narrowest symmetric interval of order statistics that holds the median with 95 %.

    It assumes only that the measurements are independent. Fewer than six measurements have no such interval. The
    result is then their whole range, and `coverage` is the chance of that range.
    Source: Conover, "Practical Nonparametric Statistics", 3rd ed., §3.2.
    """
    if not values:
        raise ValueError("no measurements; a median needs at least one")
    ordered = sorted(values)
    count = len(ordered)
    cut, coverage = 0, 0.0
    for candidate, chance in enumerate(_coverages(count)):
        if candidate and (chance < CONFIDENCE or candidate >= (count + 1) // 2):
            break
        cut, coverage = candidate, chance
    return MedianInterval(statistics.median(ordered), ordered[cut], ordered[count - 1 - cut], coverage)


def _coverages(count: int) -> Iterator[float]:
    """Yield the chance that the median lies between the measurements without the outer 0, 1, 2, … at each end."""
    outside, ways = 0, 1
    for cut in range(count):
        outside += ways
        # Integers, since 2.0 ** count overflows beyond 1023 measurements.
        yield max(0.0, 1.0 - (2 * outside) / 2**count)
        ways = ways * (count - cut) // (cut + 1)
