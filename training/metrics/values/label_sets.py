"""Figures of rows with any number of labels: F1 over all labels, by label, and of whole sets.

A label applies if its logit is 0 or more, which is a score of 0.5 or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.training.metrics.counts import Counts, f1, macro_f1
from rootstock.training.metrics.intervals import interval, wilson_interval

Logits = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[Any]


def applied(logits: Logits) -> npt.NDArray[np.bool_]:
    """Return whether each label applies."""
    return np.asarray(logits >= 0, np.bool_)


def set_counts(logits: Logits, flags: Flags) -> Counts:
    """Return (rows, 3 · labels): for each label whether it is right, is predicted, and is true."""
    predicted, true = applied(logits), np.asarray(flags) > 0
    return np.concatenate([predicted & true, predicted, true], axis=1).astype(np.float64)


def micro_counts(logits: Logits, flags: Flags) -> Counts:
    """Return (rows, 3): the labels that are right, those predicted, those that are true."""
    counts = set_counts(logits, flags)
    return np.asarray(counts.reshape(len(counts), 3, -1).sum(2))


def label_loss(logits: Logits, flags: Flags) -> float:
    """Return the mean binary cross entropy over rows and labels."""
    wide, true = np.asarray(logits, np.float64), np.asarray(flags, np.float64)
    return float((np.logaddexp(0, wide) - wide * true).mean())


def label_set_figures(logits: Logits, flags: Flags, labels: Sequence[str]) -> dict[str, Any]:
    """Return micro-F1, macro-F1, the share of rows whose set is right, two figures of ranking, rates by label.

    `lrap` is the label ranking average precision, `map` the mean over labels of the average precision; a label
    without a row does not count in it. Both are scikit-learn's.
    """
    from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

    counts, true = set_counts(logits, flags), np.asarray(flags) > 0
    hits, predicted, support = counts.sum(0).reshape(3, -1)
    present = true.any(0)
    figures: dict[str, Any] = {
        "rows": len(true),
        "micro_f1": float(f1(micro_counts(logits, flags).sum(0))),
        "macro_f1": float(macro_f1(counts.sum(0))),
        "subset_accuracy": float((applied(logits) == true).all(1).mean()),
        "lrap": float(label_ranking_average_precision_score(true, logits)),
    }
    if present.any():
        figures["map"] = float(average_precision_score(true[:, present], np.asarray(logits)[:, present]))
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    by_label = {
        label: {
            "precision": _share(hits[i], predicted[i]),
            "recall": _share(hits[i], support[i]),
            "f1": _share(2 * hits[i], predicted[i] + support[i]),
            "support": int(support[i]),
        }
        for i, label in enumerate(labels)
    }
    return {**rounded, "labels": by_label}


def label_set_intervals(logits: Logits, flags: Flags) -> dict[str, list[float]]:
    """Return the intervals of micro-F1, macro-F1 and the share of right sets."""
    counts = set_counts(logits, flags)
    right = (applied(logits) == (np.asarray(flags) > 0)).all(1)
    found = {
        "micro_f1": interval(micro_counts(logits, flags), f1),
        "macro_f1": interval(counts, macro_f1),
        "subset_accuracy": wilson_interval(float(right.mean()), len(right)),
    }
    return {name: one for name, one in found.items() if one is not None}


def rate_intervals(logits: Logits, flags: Flags, labels: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return Wilson's intervals of precision and recall of each label; a rate of nothing has none."""
    hits, predicted, support = set_counts(logits, flags).sum(0).reshape(3, -1)
    rates: dict[str, dict[str, list[float]]] = {}
    for i, label in enumerate(labels):
        of = {"precision": int(predicted[i]), "recall": int(support[i])}
        rates[label] = {
            name: wilson_interval(float(hits[i]) / count, count) for name, count in of.items() if count
        }
    return rates


def _share(part: float, whole: float) -> float:
    return round(float(part / whole), 4) if whole else 0.0
