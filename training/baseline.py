"""What can be had without an adapter: the commonest answer, and a linear head on the frozen foundation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.spec import Array
from training.batch import outputs
from training.encoding import IGNORED, Encoded
from training.evaluate import evaluate, macro_f1

if TYPE_CHECKING:
    from torch import nn

_BATCH = 64
# Inverse regularisation strengths, of which validation picks one.
_STRENGTHS = (0.1, 1.0, 10.0, 100.0)
_MAX_ITERATIONS = 2000


def majority(train: Sequence[Encoded], test: Sequence[Encoded], labels: Sequence[str]) -> dict[str, Any]:
    """The figures on `test` of always giving the commonest class of `train` (for tokens: of its words)."""
    classes = [c for example in train for c in (example.words or example.targets)]
    answer = Counter(classes).most_common(1)[0][0]
    row = np.eye(len(labels), dtype=np.float32)[answer]
    given = [np.tile(row, (len(example.ids), 1)) if example.words else row for example in test]
    return evaluate(given, test, labels)


def linear_head(
    trunk: nn.Module,
    train: Sequence[Encoded],
    validation: Sequence[Encoded],
    test: Sequence[Encoded],
    labels: Sequence[str],
) -> dict[str, Any]:
    """The figures on `test` of a logistic regression on the frozen trunk, chosen on `validation`.

    It reads the mean of a text's hidden states, scaled to length 1; for tokens, each token's hidden state.
    """
    from sklearn.linear_model import LogisticRegression

    parts = [(part, _features(trunk, part)) for part in (train, validation, test)]
    rows = np.concatenate(parts[0][1])
    targets = np.array([t for example in train for t in example.targets])
    kept = targets != IGNORED
    fitted = [
        LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(rows[kept], targets[kept])
        for strength in _STRENGTHS
    ]
    best = max(fitted, key=lambda model: macro_f1(_scores(model, *parts[1], labels), validation, labels))
    return evaluate(_scores(best, *parts[2], labels), test, labels)


def _features(trunk: nn.Module, examples: Sequence[Encoded]) -> list[Array]:
    """One row for a text, one for each token otherwise."""
    found = []
    for states, example in zip(outputs(trunk, examples, _BATCH, "last_hidden_state"), examples, strict=True):
        if example.words:
            found.append(states)
            continue
        mean = states.mean(0, keepdims=True)
        found.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
    return found


def _scores(model: Any, examples: Sequence[Encoded], features: list[Array], labels: Sequence[str]) -> list[Array]:
    """Class probabilities in the form of a model's raw outputs."""
    found = []
    for rows, example in zip(features, examples, strict=True):
        scores = np.zeros((len(rows), len(labels)), dtype=np.float32)
        # A class that training lacks (an I- tag, say) is never given.
        scores[:, model.classes_] = model.predict_proba(rows)
        found.append(scores if example.words else scores[0])
    return found
