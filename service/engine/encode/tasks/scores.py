"""Turn logits into scores, and scores into labels, as transformers' pipelines do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.encode.tasks.task import check_bool, check_count, check_one_of

Logits = npt.NDArray[np.floating[Any]]
FUNCTIONS = ("sigmoid", "softmax", "none")
# The parameters of a task that gives scores by label.
SCORING = frozenset({"top_k", "function_to_apply", "calibrated"})


def check_scoring(parameters: Mapping[str, Any]) -> None:
    """Raise InvalidParameter for a value that one of `SCORING` does not take, such as a `top_k` below 1."""
    check_bool(parameters, "calibrated")
    check_one_of(parameters, "function_to_apply", FUNCTIONS)
    check_count(parameters, "top_k")


def check_calibrated(adapter: Adapter, parameters: Mapping[str, Any]) -> None:
    """Raise InvalidParameter if calibrated scores are asked of an adapter whose bundle has no calibration."""
    if parameters.get("calibrated") and adapter.calibration is None:
        raise InvalidParameter(
            "the adapter's bundle has no calibration, so its scores cannot be calibrated; leave out "
            "calibrated, or train the adapter again with rootstock train run, which adds one",
            "parameters.calibrated",
        )


def default_function(adapter: Adapter) -> str:
    """Return the function that the pipeline applies to an adapter's logits."""
    if adapter.problem_type == "regression":
        return "none"
    multi = adapter.problem_type == "multi_label_classification" or len(adapter.labels) == 1
    return "sigmoid" if multi else "softmax"


def label_scores(raw: Logits, adapter: Adapter, parameters: Mapping[str, Any], function: str) -> Logits:
    """Return the score of each label. With `calibrated` the adapter's temperature divides the logits first.

    `function` is the one to apply unless the parameter `function_to_apply` names another.
    """
    if parameters.get("calibrated") and adapter.calibration is not None:
        # In fp64 no finite logit overflows.
        raw = raw.astype(np.float64) / adapter.calibration.temperature
    return activate(parameters.get("function_to_apply") or function, raw)


def ranking(scores: Logits, labels: tuple[str, ...], most: int | None) -> list[dict[str, Any]]:
    """Return the labels with their scores, best first: at most `most`, or all for None."""
    order = np.argsort(-scores, kind="stable")[:most]
    return [{"label": labels[i], "score": float(scores[i])} for i in order]


def activate(function: str, raw: Logits) -> Logits:
    """Return the logits after one of `FUNCTIONS`."""
    if function == "none":
        return raw
    if function == "sigmoid":
        # The form with tanh does not overflow for a large negative logit.
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * raw)), dtype=np.float32)
    return softmax(raw)


def softmax(raw: Logits) -> Array:
    """Return the softmax over the last axis."""
    shifted = np.exp(raw - raw.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)
