"""Several adapters that answer as one, as a client names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WeightedAdapters:
    """A composition in the place of a model: references, each with the factor of its changes, in order.

    `head` is the reference of the adapter that answers, by default the first whose task has a head.
    """

    weights: Mapping[str, float]
    head: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of a request that name this composition."""
        parts = [{"model": model, "weight": weight} for model, weight in self.weights.items()]
        return {"adapters": parts} if self.head is None else {"adapters": parts, "head": self.head}


# A reference, or adapters that answer as one.
Model = str | WeightedAdapters


def model_fields(model: Model) -> dict[str, Any]:
    """Return the fields of a request that name a model."""
    return {"model": model} if isinstance(model, str) else model.fields()
