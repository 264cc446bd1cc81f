"""A linear head with a logistic regression for each label, which answers whether a row has the label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array
from rootstock.training.metrics.counts import f1
from rootstock.training.metrics.values.label_sets import label_loss, micro_counts
from rootstock.training.problems.linear_head import STRENGTHS, LinearHead

_MAX_ITERATIONS = 2000
_FOLDS = 5

Flags = npt.NDArray[Any]


def fit_labels(features: Array, flags: Flags, strength: float) -> LinearHead:
    """Return one logistic regression for each column of (rows, labels) flags, all with the same C.

    A label that no row has, or every row, gets the log-odds of its frequency.
    """
    from sklearn.linear_model import LogisticRegression

    labels, rows = flags.shape[1], len(flags)
    head = LinearHead(np.zeros((labels, features.shape[1]), np.float32), np.zeros(labels, np.float32), strength)
    for label in range(labels):
        positive = int(flags[:, label].sum())
        if positive in (0, rows):
            head.bias[label] = np.log((positive + 0.5) / (rows - positive + 0.5))
            continue
        model: Any = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(features, flags[:, label])
        head.weight[label], head.bias[label] = model.coef_[0], model.intercept_[0]
    return head


def choose_label_strength(features: Array, flags: Flags, seed: int) -> float:
    """Return the C of the best micro-F1 in cross-validation; on a tie, of the least log loss."""
    from sklearn.model_selection import KFold

    if len(features) < 2:
        return STRENGTHS[0]
    outputs = {strength: np.zeros(flags.shape, np.float32) for strength in STRENGTHS}
    for train, test in KFold(min(_FOLDS, len(features)), shuffle=True, random_state=seed).split(features):
        for strength, logits in outputs.items():
            logits[test] = fit_labels(features[train], flags[train], strength).logits(features[test])

    def score(strength: float) -> tuple[float, float]:
        logits = outputs[strength]
        return float(f1(micro_counts(logits, flags).sum(0))), -label_loss(logits, flags)

    return max(STRENGTHS, key=score)
