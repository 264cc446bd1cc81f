"""Slopes between the two halves of a series, to detect a climb."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# Neighbouring samples are alike, so they are averaged into blocks. The first part is warm-up.
BLOCKS = 40
WARM_UP = 0.2


def slopes(times: Sequence[float], values: Sequence[float]) -> list[float]:
    """Return slopes a unit of time, one for each pair of blocks that lie half the series apart.

    The series climbs if their median's interval lies above zero. The first fifth is left out. Raise ValueError
    for fewer than four samples.
    Source: Theil's incomplete method (1950), as in Hollander and Wolfe, "Nonparametric Statistical Methods".
    """
    if len(times) != len(values):
        raise ValueError(f"{len(times)} times and {len(values)} values")
    start = times[0] + WARM_UP * (times[-1] - times[0]) if times else 0.0
    samples = [(t, v) for t, v in zip(times, values, strict=True) if t >= start]
    if len(samples) < 4:
        raise ValueError(f"{len(samples)} samples after warm-up; a slope needs at least four")
    count = min(BLOCKS, len(samples))
    edges = [round(i * len(samples) / count) for i in range(count + 1)]
    blocks = [_mean(samples[a:b]) for a, b in pairwise(edges)]
    half = count // 2
    return [(blocks[i + half][1] - blocks[i][1]) / (blocks[i + half][0] - blocks[i][0]) for i in range(half)]


def _mean(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(t for t, _ in samples) / len(samples), sum(v for _, v in samples) / len(samples)
