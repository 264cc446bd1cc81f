"""feature-extraction: one pooled vector an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.task import Task

# A number of fp32 with its comma, as JSON.
_NUMBER_BYTES = 12


class FeatureExtraction(Task):
    """The head's vector as it is: pooling, normalisation and projection are the head's."""

    name = "feature-extraction"

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Count one number a row of the head's projection; without one, leave the foundation's width."""
        projection = adapter.weights.head.get("head.weight")
        return 0 if projection is None else _NUMBER_BYTES * len(projection)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> list[float]:
        """Return the vector as a list of numbers."""
        vector: list[float] = raws[0].tolist()
        return vector
