"""What each row of a test set adds to a score: sums over any rows give that score for them.

Scores that are ratios of sums (accuracy, F1) cannot be averaged over rows, but their counts can be summed, so
that thousands of resampled test sets cost one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.training.metrics.evaluation import spans

# (rows, columns), or their sums over rows with any leading axes: (…, columns).
Counts = npt.NDArray[np.float64]
Score = Callable[[Counts], npt.NDArray[np.float64]]


def label_counts(truth: Sequence[int], predicted: Sequence[int], labels: int) -> Counts:
    """(rows, 3 · labels): for each label whether the row is a hit of it, is predicted it, truly has it."""
    true, found = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    counts = np.zeros((len(true), 3, labels))
    rows = np.arange(len(true))
    counts[rows, 1, found] = counts[rows, 2, true] = 1
    counts[:, 0] = counts[:, 1] * counts[:, 2]
    return counts.reshape(len(true), 3 * labels)


def entity_counts(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Counts:
    """(sentences, 3): entities that are right in type and both edges, that are predicted, that are true."""
    counts = np.zeros((len(truth), 3))
    wanted, found = set(spans(truth)), set(spans(predicted))
    for column, group in enumerate((wanted & found, found, wanted)):
        for sentence, *_ in group:
            counts[sentence, column] += 1
    return counts


def accuracy(sums: Counts) -> npt.NDArray[np.float64]:
    """The share of hits, from sums of `label_counts`."""
    hits, _, true = _parts(sums)
    return _ratio(hits.sum(-1), true.sum(-1))


def macro_f1(sums: Counts) -> npt.NDArray[np.float64]:
    """The mean F1 of the labels that are true or predicted anywhere, from sums of `label_counts`."""
    hits, predicted, true = _parts(sums)
    present = (predicted + true > 0).sum(-1)
    return _ratio(_ratio(2 * hits, predicted + true).sum(-1), present)


def f1(sums: Counts) -> npt.NDArray[np.float64]:
    """The F1 of whole entities, from sums of `entity_counts`; 0 where there is none."""
    return _ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _parts(sums: Counts) -> tuple[Counts, Counts, Counts]:
    labels = sums.shape[-1] // 3
    return sums[..., :labels], sums[..., labels : 2 * labels], sums[..., 2 * labels :]


def _ratio(above: Any, below: Any) -> npt.NDArray[np.float64]:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))
