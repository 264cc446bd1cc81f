"""The foundation's own tensors, as reading an adapter needs them."""

from __future__ import annotations

from typing import Protocol

from rootstock.adapters.spec import Array


class BaseWeights(Protocol):
    """Gives the tensors that some adapters are stated relative to."""

    def weight(self, site: str) -> Array: ...

    def bias(self, module: str) -> Array | None: ...
