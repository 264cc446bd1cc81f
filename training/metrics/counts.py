"""Counts of each row of a test set, whose sums over any rows give a score for them.

Scores that are ratios of sums (accuracy, F1) cannot be averaged over rows, but their counts can be summed: so
thousands of resampled test sets cost one matrix product.
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
    """Return (rows, 3 · labels): for each label whether the row is a hit, is predicted, and is true."""
    true, answers = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    counts = np.zeros((len(true), 3, labels))
    rows = np.arange(len(true))
    counts[rows, 1, answers] = counts[rows, 2, true] = 1
    counts[:, 0] = counts[:, 1] * counts[:, 2]
    return counts.reshape(len(true), 3 * labels)


def entity_counts(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Counts:
    """Return (sentences, 3): entities right in type and both edges, predicted entities, true entities."""
    counts = np.zeros((len(truth), 3))
    true_spans, predicted_spans = set(spans(truth)), set(spans(predicted))
    for column, group in enumerate((true_spans & predicted_spans, predicted_spans, true_spans)):
        for sentence, *_ in group:
            counts[sentence, column] += 1
    return counts


def accuracy(sums: Counts) -> npt.NDArray[np.float64]:
    """Return the share of hits, from sums of `label_counts`."""
    hits, _, true = _parts(sums)
    return _ratio(hits.sum(-1), true.sum(-1))


def macro_f1(sums: Counts) -> npt.NDArray[np.float64]:
    """Return the mean F1 of labels that are true or predicted anywhere, from sums of `label_counts`."""
    hits, predicted, true = _parts(sums)
    present = (predicted + true > 0).sum(-1)
    return _ratio(_ratio(2 * hits, predicted + true).sum(-1), present)


def f1(sums: Counts) -> npt.NDArray[np.float64]:
    """Return the F1 of whole entities, from sums of `entity_counts`; 0 without entities."""
    return _ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _parts(sums: Counts) -> tuple[Counts, Counts, Counts]:
    labels = sums.shape[-1] // 3
    return sums[..., :labels], sums[..., labels : 2 * labels], sums[..., 2 * labels :]


def _ratio(above: Any, below: Any) -> npt.NDArray[np.float64]:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))
