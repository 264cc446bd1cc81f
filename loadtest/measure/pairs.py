"""Interleaved timing: both sides run in turn, in one process, so that a disturbance affects both."""

from __future__ import annotations

import time
from collections.abc import Callable

from rootstock.loadtest.measure.row import Pair

# ONNX Runtime's threads spin for 40 ms of CPU time after a run; on a busy machine that takes longer.
SETTLE_S = 0.15

Work = Callable[[], object]


def interleave(top: Work, bottom: Work, pairs: int, runs: int = 2) -> list[Pair]:
    """Return the seconds of one run of each side, pair by pair, in alternating order.

    Each side runs untimed before its timed runs. That warms its caches, and lasts until the other side's idle
    threads have stopped spinning.
    """
    for work in (top, bottom):
        mean_seconds(work, runs)
    timings: list[Pair] = []
    for i in range(pairs):
        if i % 2 == 0:
            first = mean_seconds(top, runs)
            timings.append(Pair(first, mean_seconds(bottom, runs)))
        else:
            first = mean_seconds(bottom, runs)
            timings.append(Pair(mean_seconds(top, runs), first))
    return timings


def mean_seconds(work: Work, runs: int) -> float:
    """Return the mean seconds of `runs` runs, after `SETTLE_S` of untimed ones."""
    settle_end = time.perf_counter() + SETTLE_S
    work()
    while time.perf_counter() < settle_end:
        work()
    start = time.perf_counter()
    for _ in range(runs):
        work()
    return (time.perf_counter() - start) / runs
