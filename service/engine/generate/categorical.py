"""Truncate a categorical distribution, given by weights, and draw from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array

Ids = npt.NDArray[np.intp]
Weights = npt.NDArray[np.float64]

_BLOCK = 256
# A language model's nucleus is seldom larger.
_NUCLEUS = 2048


def largest(values: Array | Weights, count: int) -> Ids:
    """Return, in ascending order, the indices of the `count` largest values and of equals of the last of them."""
    if count >= len(values):
        return np.arange(len(values))
    place = len(values) - count
    return np.flatnonzero(values >= np.partition(values, place)[place])


def nucleus(weights: Weights, top_p: float) -> Ids:
    """Return, in ascending order, the indices of the fewest weights that together have the share `top_p` or more.

    Of equal weights at the edge, those with the lowest indices are taken.
    """
    total = weights.sum()
    outside = (1 - top_p) * total
    heavy = largest(weights, _NUCLEUS)
    if total - weights[heavy].sum() > outside:
        # All weights below this limit together are less than `outside`: only the others need sorting.
        heavy = np.flatnonzero(weights >= outside / len(weights))
    candidates = weights[heavy]
    order = np.sort(candidates)
    sums = total - order.sum() + np.cumsum(order)
    first = min(int(np.searchsorted(sums, outside, side="right")), len(order) - 1)
    inside = candidates > order[first]
    missing = len(order) - first - np.count_nonzero(inside)
    inside[np.flatnonzero(candidates == order[first])[:missing]] = True
    kept: Ids = heavy[inside]
    return kept


def draw(weights: Weights, uniform: float) -> int:
    """Return the index of a weight, all above 0, at which the share `uniform` of their sum is reached."""
    starts = np.arange(0, len(weights), _BLOCK)
    # A cumulative sum of blocks and then of one block costs a fraction of that of a whole vocabulary.
    reached = np.cumsum(np.add.reduceat(weights, starts))
    target = uniform * reached[-1]
    # Rounding can put the target at the very end of the last block or of its own.
    block = min(int(np.searchsorted(reached, target, side="right")), len(starts) - 1)
    if block:
        target -= reached[block - 1]
    inside = weights[starts[block] : starts[block] + _BLOCK]
    place = min(int(np.searchsorted(np.cumsum(inside), target, side="right")), len(inside) - 1)
    return int(starts[block]) + place
