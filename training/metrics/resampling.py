"""The bootstrap: test sets drawn with replacement from the rows of one."""

from __future__ import annotations

import numpy as np

from rootstock.training.metrics.counts import Counts

# The most numbers that are drawn at once; a larger test set is drawn in more parts.
_AT_ONCE = 4_000_000


def resampled_sums(counts: Counts, resamples: int, seed: int) -> Counts:
    """Return (resamples, columns): the sums of (rows, columns) counts over as many rows drawn with replacement.

    The same seed and number of rows draw the same rows, whatever the counts: two models on one test set are
    compared on the same draws. Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    rows = len(counts)
    if not rows:
        raise ValueError("no rows to resample; a bootstrap needs at least one")
    draw = np.random.default_rng(seed)
    turn = max(1, _AT_ONCE // rows)
    sums = []
    for begin in range(0, resamples, turn):
        times = draw.multinomial(rows, np.full(rows, 1 / rows), size=min(turn, resamples - begin))
        sums.append(times.astype(np.float64) @ counts)
    return np.concatenate(sums)
