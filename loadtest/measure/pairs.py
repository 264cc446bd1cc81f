"""Interleaved timing: both sides in turn, in one process, so that what disturbs one disturbs the other."""

from __future__ import annotations

import time
from collections.abc import Callable

from rootstock.loadtest.measure.row import Pair

# ONNX Runtime's threads spin for 40 ms of CPU time after a run; on a busy machine that takes longer.
SETTLE_S = 0.15

Work = Callable[[], object]


def interleaved(top: Work, bottom: Work, pairs: int, runs: int = 2) -> list[Pair]:
    """Seconds of one run of each side, pair by pair, the order of the two alternating.

    Before its timed runs each side runs untimed: that warms its caches again, and fills the time in which the
    other side's idle threads still spin.
    """
    for work in (top, bottom):
        mean_seconds(work, runs)
    measured = []
    for i in range(pairs):
        if i % 2 == 0:
            first = mean_seconds(top, runs)
            measured.append(Pair(first, mean_seconds(bottom, runs)))
        else:
            first = mean_seconds(bottom, runs)
            measured.append(Pair(mean_seconds(top, runs), first))
    return measured


def mean_seconds(work: Work, runs: int) -> float:
    """The mean seconds of `runs` runs, after `SETTLE_S` of untimed ones."""
    settled = time.perf_counter() + SETTLE_S
    work()
    while time.perf_counter() < settled:
        work()
    start = time.perf_counter()
    for _ in range(runs):
        work()
    return (time.perf_counter() - start) / runs
