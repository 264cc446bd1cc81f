"""The interface to the foundation's own tensors, which some adapters need while they are read."""

from __future__ import annotations

from typing import Protocol

from rootstock.adapters.bundle.vocabulary.own_tokenizer import OwnTokenizer
from rootstock.adapters.spec import Array

# Architectures whose linear layers are transformers' Conv1D, with weights of shape (in, out) in their files.
TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")


class BaseWeights(Protocol):
    """The foundation's weights (out, in) and biases by module; some adapters are stated as changes of them.

    The weight of a convolution is flattened to (out, channels * kernel area). That of a normalisation layer is
    (width,).
    """

    def weight(self, site: str) -> Array: ...

    def bias(self, module: str) -> Array | None: ...

    def embedding(self, module: str) -> Array:
        """Return the rows of an embedding: (tokens, width) fp32, read-only."""

    def tokenizer(self) -> OwnTokenizer:
        """Return what the foundation's tokenizer.json says."""
