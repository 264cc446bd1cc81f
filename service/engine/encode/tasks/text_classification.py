"""The task text-classification: single label, multi-label and regression, for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.scores import (
    SCORING,
    check_calibrated,
    check_scoring,
    default_function,
    label_scores,
    ranking,
)
from rootstock.service.engine.encode.tasks.task import ANSWER_ITEM_BYTES
from rootstock.service.engine.encode.tasks.text_task import TextTask


class TextClassification(TextTask):
    """The task that returns scores by label, as transformers' TextClassificationPipeline does.

    Without `top_k` the prediction is the best label as an object. With `top_k` null it is a list of every label,
    best first; with a number k, the first k. `function_to_apply` is sigmoid, softmax or none. By default the
    problem type decides it. With `calibrated` the logits are first divided by the adapter's temperature.
    """

    name = "text-classification"
    takes = (str, tuple)
    own_parameters = SCORING

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for a value that a parameter does not take, such as a `top_k` below 1."""
        super().check(parameters)
        check_scoring(parameters)

    def check_adapter(self, adapter: Adapter, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter if calibrated scores are asked of an adapter whose bundle has no calibration."""
        check_calibrated(adapter, parameters)

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
        scores = label_scores(raws[0], adapter, parameters, default_function(adapter))
        if "top_k" not in parameters:
            best = int(scores.argmax())
            return {"label": adapter.labels[best], "score": float(scores[best])}
        return ranking(scores, adapter.labels, parameters["top_k"])
