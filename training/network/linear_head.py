"""A linear head fitted on fixed features: logistic regression, its strength C chosen by cross-validation."""

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
# The logit of a label that no training row has: it is never given.
_NEVER = -30.0

Targets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LinearHead:
    """`weight` (labels, width) and `bias` (labels,), and the C that they were fitted with."""

    weight: Array
    bias: Array
    strength: float

    def logits(self, features: Array) -> Array:
        """(rows, width) → (rows, labels)."""
        return np.asarray(features @ self.weight.T + self.bias, np.float32)


def fit_head(features: Array, targets: Targets, labels: int, strength: float) -> LinearHead:
    """The multinomial logistic regression of (rows, width) features on classes below `labels`."""
    from sklearn.linear_model import LogisticRegression

    fitted: Any = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(features, targets)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:
        # sklearn gives two classes one logit; half of it for each gives the same softmax.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    whole = LinearHead(
        np.zeros((labels, features.shape[1]), np.float32), np.full(labels, _NEVER, np.float32), strength
    )
    whole.weight[fitted.classes_], whole.bias[fitted.classes_] = weight, bias
    return whole


def choose_strength(features: Array, targets: Targets, seed: int) -> float:
    """The C of the best accuracy in stratified cross-validation, among equals that of the least log loss."""
    from sklearn.model_selection import StratifiedKFold

    least = int(np.bincount(targets)[np.unique(targets)].min())
    if least < 2:
        return 10.0
    labels = int(targets.max()) + 1
    found = {strength: [0, 0.0] for strength in STRENGTHS}
    dealt = StratifiedKFold(min(_FOLDS, least), shuffle=True, random_state=seed)
    for kept, taken in dealt.split(features, targets):
        for strength, counts in found.items():
            logits = fit_head(features[kept], targets[kept], labels, strength).logits(features[taken])
            counts[0] += int((logits.argmax(1) == targets[taken]).sum())
            counts[1] += _log_loss(logits, targets[taken])
    return max(found, key=lambda strength: (found[strength][0], -found[strength][1]))


def choose_strength_by(
    features: Array,
    targets: Targets,
    labels: int,
    score: Callable[[LinearHead], float],
    strengths: Sequence[float],
) -> LinearHead:
    """The head of the best score, the weaker one among equals."""
    fitted = [fit_head(features, targets, labels, strength) for strength in strengths]
    return max(fitted, key=score)


def _log_loss(logits: Array, targets: Targets) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(targets)), targets]).sum())
