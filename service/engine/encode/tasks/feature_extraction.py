"""feature-extraction: one pooled vector an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.tasks.task import Task


class FeatureExtraction(Task):
    """The head's vector as it is: pooling, normalisation and projection are the head's."""

    name = "feature-extraction"

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[TextSample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        tokenizer: Tokenizer,
    ) -> list[float]:
        """The vector as a list of numbers."""
        vector: list[float] = raws[0].tolist()
        return vector
