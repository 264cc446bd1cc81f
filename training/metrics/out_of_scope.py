"""Refusal of inputs that no label fits, by a threshold on the confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.training.metrics.calibration import Logits, softmax
from rootstock.training.metrics.intervals import wilson_interval

# The share of in-scope rows to refuse where there are no out-of-scope rows to choose by.
REFUSED = 0.05

Confidences = npt.NDArray[np.float64]


def confidences(logits: Logits, temperature: float) -> Confidences:
    """Return the largest probability of each row of (rows, labels) logits over `temperature`.

    Source: Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples", 2017.
    """
    return np.asarray(softmax(logits, temperature).max(-1))


def choose_threshold(
    in_scope: Confidences, out_of_scope: Confidences | None = None, refused: float = REFUSED
) -> float:
    """Return the confidence from which an answer is given, chosen on validation rows.

    With out-of-scope rows it has the best balanced accuracy of answering and refusing; of equals it is the
    lowest. Without them it refuses at most the share `refused` of in-scope rows.
    """
    if not len(in_scope):
        raise ValueError("no in-scope validation rows to choose a threshold by")
    if out_of_scope is None or not len(out_of_scope):
        return float(np.quantile(in_scope, refused, method="lower"))
    values = np.unique(np.concatenate([in_scope, out_of_scope]))
    # Between two confidences every threshold does the same: the middle is the safest for new rows.
    tried = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [np.nextafter(values[-1], 2)]])
    answered = 1 - np.searchsorted(np.sort(in_scope), tried) / len(in_scope)
    caught = np.searchsorted(np.sort(out_of_scope), tried) / len(out_of_scope)
    return float(tried[np.argmax(answered + caught)])


def out_of_scope_figures(
    threshold: float, in_scope: Confidences, right: npt.ArrayLike, out_of_scope: Confidences | None = None
) -> dict[str, Any]:
    """Return the effect of the threshold on test rows; `right` tells which in-scope rows are answered right.

    `in_scope_kept` is the share of in-scope rows that are answered, `in_scope_accuracy` the share that is
    answered and right. With out-of-scope rows, `recall` is the share of them refused, and `auroc` the chance
    that an in-scope row has a higher confidence than one of them. `intervals` has those of the shares.
    """
    answered = in_scope >= threshold
    figures: dict[str, Any] = {
        "threshold": round(threshold, 4),
        "in_scope_kept": round(float(answered.mean()), 4),
        "in_scope_accuracy": round(float((answered & np.asarray(right, bool)).mean()), 4),
        "rows": {"in_scope": len(in_scope)},
    }
    if out_of_scope is not None and len(out_of_scope):
        from sklearn.metrics import roc_auc_score

        belongs = np.repeat([1, 0], [len(in_scope), len(out_of_scope)])
        figures["recall"] = round(float((out_of_scope < threshold).mean()), 4)
        figures["auroc"] = round(float(roc_auc_score(belongs, np.concatenate([in_scope, out_of_scope]))), 4)
        figures["rows"]["out_of_scope"] = len(out_of_scope)
    shares = {"in_scope_kept": in_scope, "in_scope_accuracy": in_scope, "recall": out_of_scope}
    figures["intervals"] = {
        name: wilson_interval(figures[name], len(rows))
        for name, rows in shares.items()
        if name in figures and rows is not None
    }
    return figures
