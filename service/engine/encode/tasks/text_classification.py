"""The task text-classification: single label, multi-label and regression, for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.task import (
    ANSWER_ITEM_BYTES,
    Task,
    check_bool,
    check_count,
    check_one_of,
)

Logits = npt.NDArray[np.floating[Any]]
FUNCTIONS = ("sigmoid", "softmax", "none")


class TextClassification(Task):
    """The task that returns scores by label, as transformers' TextClassificationPipeline does.

    Without `top_k` the prediction is the best label as an object. With `top_k` null it is a list of every label,
    best first; with a number k, the first k. `function_to_apply` is sigmoid, softmax or none. By default the
    problem type decides it. With `calibrated` the logits are first divided by the adapter's temperature.
    """

    name = "text-classification"
    takes = (str, tuple)
    parameters = frozenset({"top_k", "function_to_apply", "calibrated"})

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for a value that a parameter does not take, such as a `top_k` below 1."""
        super().check(parameters)
        check_bool(parameters, "calibrated")
        check_one_of(parameters, "function_to_apply", FUNCTIONS)
        check_count(parameters, "top_k")

    def check_adapter(self, adapter: Adapter, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter if calibrated scores are asked of an adapter whose bundle has no calibration."""
        if parameters.get("calibrated") and adapter.calibration is None:
            raise InvalidParameter(
                "the adapter's bundle has no calibration, so its scores cannot be calibrated; leave out "
                "calibrated, or train the adapter again with rootstock train run, which adds one",
                "parameters.calibrated",
            )

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Estimate one item for each returned label."""
        labels = len(adapter.labels)
        return ANSWER_ITEM_BYTES * min(parameters.get("top_k", 1) or labels, labels)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> Any:
        """Return one object, or with `top_k` a list of them."""
        raw: Logits = raws[0]
        if parameters.get("calibrated") and adapter.calibration is not None:
            # In fp64 no finite logit overflows.
            raw = raw.astype(np.float64) / adapter.calibration.temperature
        scores = activate(_function(parameters, adapter), raw)
        if "top_k" not in parameters:
            best = int(scores.argmax())
            return {"label": adapter.labels[best], "score": float(scores[best])}
        order = np.argsort(-scores, kind="stable")[: parameters["top_k"]]
        return [{"label": adapter.labels[i], "score": float(scores[i])} for i in order]


def _function(parameters: Mapping[str, Any], adapter: Adapter) -> str:
    function: str | None = parameters.get("function_to_apply")
    if function is not None:
        return function
    if adapter.problem_type == "regression":
        return "none"
    multi = adapter.problem_type == "multi_label_classification" or len(adapter.labels) == 1
    return "sigmoid" if multi else "softmax"


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
