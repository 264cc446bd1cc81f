"""feature-extraction: one pooled vector an input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.spec import Adapter, Array
from service.engine.tokenizer import Encoded, Tokenizer


class FeatureExtraction:
    """The head's vector as it is: pooling, normalisation and projection are the head's."""

    name = "feature-extraction"
    pairs = False
    parameters: frozenset[str] = frozenset()

    def check(self, parameters: Mapping[str, Any]) -> None:
        """It has no parameters of its own."""

    def predict(
        self, raw: Array, encoded: Encoded, adapter: Adapter, parameters: Mapping[str, Any], tokenizer: Tokenizer
    ) -> list[float]:
        """The vector as a list of numbers."""
        vector: list[float] = raw.tolist()
        return vector
