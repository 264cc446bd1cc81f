"""A linear head on fixed features: logistic regression, with its C chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array

# Inverse strengths of the regularisation.
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_MAX_ITERATIONS = 2000
_FOLDS = 5
# The logit of a label that no training row has: it is never predicted.
_NEVER = -30.0

Targets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LinearHead:
    """`weight` (labels, width) and `bias` (labels,), and their C (`strength`)."""

    weight: Array
    bias: Array
    strength: float

    def logits(self, features: Array) -> Array:
        """Return logits (rows, labels) of features (rows, width)."""
        return np.asarray(features @ self.weight.T + self.bias, np.float32)


def fit_head(features: Array, targets: Targets, labels: int, strength: float) -> LinearHead:
    """Return the multinomial logistic regression of (rows, width) features on classes below `labels`."""
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(features, targets)
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        # sklearn gives two classes one logit; half of it for each gives the same softmax.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    whole = LinearHead(
        np.zeros((labels, features.shape[1]), np.float32), np.full(labels, _NEVER, np.float32), strength
    )
    whole.weight[model.classes_], whole.bias[model.classes_] = weight, bias
    return whole


def choose_strength(features: Array, targets: Targets, seed: int) -> float:
    """Return the C of the best accuracy in stratified cross-validation; on a tie, of the least log loss."""
    from sklearn.model_selection import StratifiedKFold

    least = int(np.bincount(targets)[np.unique(targets)].min())
    if least < 2:
        return 10.0
    labels = int(targets.max()) + 1
    scores = {strength: [0, 0.0] for strength in STRENGTHS}
    folds = StratifiedKFold(min(_FOLDS, least), shuffle=True, random_state=seed)
    for train, test in folds.split(features, targets):
        for strength, score in scores.items():
            logits = fit_head(features[train], targets[train], labels, strength).logits(features[test])
            score[0] += int((logits.argmax(1) == targets[test]).sum())
            score[1] += _log_loss(logits, targets[test])
    return max(scores, key=lambda strength: (scores[strength][0], -scores[strength][1]))


def choose_strength_by(
    features: Array,
    targets: Targets,
    labels: int,
    score: Callable[[LinearHead], float],
    strengths: Sequence[float],
) -> LinearHead:
    """Return the head of the best score; on a tie, the one of the earlier strength."""
    heads = [fit_head(features, targets, labels, strength) for strength in strengths]
    return max(heads, key=score)


def _log_loss(logits: Array, targets: Targets) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(targets)), targets]).sum())
