"""The task feature-extraction: one pooled vector for each input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.text_task import TextTask

# The bytes of an fp32 number with its comma, as JSON.
_NUMBER_BYTES = 12


class FeatureExtraction(TextTask):
    """The task that returns the head's vector unchanged: the head pools, normalises and projects."""

    name = "feature-extraction"

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Estimate one number for each row of the head's projection, or 0 bytes without a projection."""
        return vector_bytes(adapter)

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


def vector_bytes(adapter: Adapter) -> int:
    """Estimate the bytes of an adapter's vector as JSON, or 0 without a projection."""
    projection = adapter.weights.head.get("head.weight")
    return 0 if projection is None else _NUMBER_BYTES * len(projection)
