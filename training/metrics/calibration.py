"""Calibration: a temperature, and the expected calibration error before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15
# Answers no better than chance fit best at an infinite temperature.
COLDEST, HOTTEST = 0.05, 20.0

Logits = npt.NDArray[np.floating[Any]]
Targets = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def flatten(outputs: Sequence[Logits], targets: Sequence[Sequence[int]]) -> tuple[Logits, Targets]:
    """Return (labelled tokens, labels) logits of all rows, and their classes; a target below 0 has no label.

    Each output is (labels,) with one target, or (tokens, labels) with a target for each token.
    """
    logits = np.concatenate([np.atleast_2d(row) for row in outputs])
    classes = np.concatenate([np.asarray(row, np.int64).reshape(-1) for row in targets])
    if len(logits) != len(classes):
        raise ValueError(f"{len(logits)} rows of logits for {len(classes)} targets")
    return logits[classes >= 0], classes[classes >= 0]


def softmax(logits: Logits, temperature: float = 1.0) -> Probabilities:
    """Return (rows, labels) logits over `temperature` as probabilities."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponents = np.exp(scaled - scaled.max(-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(-1, keepdims=True))


def fit_temperature(logits: Logits, targets: npt.ArrayLike) -> float:
    """Return the temperature, from 0.05 to 20, of the least negative log-likelihood of (rows, labels) logits.

    It changes the confidence of answers, not the answers. If every row is right, the likelihood asks for infinite
    confidence; then the mean confidence becomes (rows + 1) / (rows + 2), Laplace's estimate of the accuracy.
    Raise ValueError without rows.
    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    wide, true = np.asarray(logits, np.float64), np.asarray(targets, np.int64)
    if not len(wide):
        raise ValueError("no validation rows to fit a temperature on")
    if (wide.argmax(-1) == true).all():
        return _as_sure_as(wide, (len(wide) + 1) / (len(wide) + 2))
    # The likelihood is concave in the inverse temperature; its logarithm covers both ends alike.
    optimum = minimize_scalar(
        lambda log: log_loss(wide * np.exp(-log), true),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(optimum.x))


def log_loss(logits: Logits, targets: npt.ArrayLike) -> float:
    """Return the mean negative log-likelihood of (rows, labels) logits."""
    wide, true = np.asarray(logits, np.float64), np.asarray(targets, np.int64)
    shifted = wide - wide.max(-1, keepdims=True)
    own = shifted[np.arange(len(true)), true]
    return float((np.log(np.exp(shifted).sum(-1)) - own).mean())


def reliability(probabilities: Probabilities, targets: npt.ArrayLike, bins: int = BINS) -> list[dict[str, Any]]:
    """Return mean confidence, accuracy and rows of each of `bins` equal steps of confidence with rows."""
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == np.asarray(targets)
    # Steps hold their upper edge, as in Guo et al.
    step = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "confidence": float(confidence[step == i].mean()),
            "accuracy": float(right[step == i].mean()),
            "rows": int((step == i).sum()),
        }
        for i in np.unique(step)
    ]


def expected_error(bins: Sequence[dict[str, Any]]) -> float:
    """Return the expected calibration error: the mean gap of confidence and accuracy over all rows."""
    rows = sum(step["rows"] for step in bins)
    return float(sum(step["rows"] * abs(step["confidence"] - step["accuracy"]) for step in bins) / rows)


def calibrate(
    validation: Logits, validation_targets: npt.ArrayLike, test: Logits, test_targets: npt.ArrayLike
) -> dict[str, Any]:
    """Return the temperature of (rows, labels) validation logits, and the test logits' error before and after."""
    temperature = fit_temperature(validation, validation_targets)
    before = reliability(softmax(test), test_targets)
    after = reliability(softmax(test, temperature), test_targets)
    return {
        "temperature": round(temperature, 4),
        "ece_before": round(expected_error(before), 4),
        "ece_after": round(expected_error(after), 4),
        "bins_before": [_rounded(step) for step in before],
        "bins_after": [_rounded(step) for step in after],
    }


def _rounded(step: dict[str, Any]) -> dict[str, Any]:
    return {**step, "confidence": round(step["confidence"], 4), "accuracy": round(step["accuracy"], 4)}


def _as_sure_as(logits: npt.NDArray[np.float64], confidence: float) -> float:
    """Return the temperature, within the bounds, at which the mean confidence is nearest to `confidence`."""
    from scipy.optimize import brentq

    def excess(log: float) -> float:
        return float(softmax(logits, np.exp(log)).max(-1).mean()) - confidence

    if excess(np.log(COLDEST)) <= 0:
        return COLDEST
    if excess(np.log(HOTTEST)) >= 0:
        return HOTTEST
    return float(np.exp(brentq(excess, np.log(COLDEST), np.log(HOTTEST))))
