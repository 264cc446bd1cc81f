"""Tell the layers of an encoder or a decoder where each token of a pass stands in its own sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PackedPositions(nn.Module):
    """The position embeddings of BART and its relatives, at the positions that `take` was given.

    transformers would number the tokens of a pass from 0 on.
    """

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings
        self._positions = torch.zeros(0, dtype=torch.long)

    def take(self, positions: Tensor) -> None:
        """Set the positions (tokens,) of the next pass."""
        self._positions = positions

    def forward(self, tokens: Any, *_: Any, **__: Any) -> Tensor:
        """Return the embeddings: (1, tokens, width), or (tokens, width) if every sequence shares them."""
        embedded: Tensor = self.embeddings(tokens, position_ids=self._positions)
        return embedded


class RelativeBias:
    """T5's bias of the attention scores, which depends on the distance of a key from the query.

    It replaces what transformers would compute for all pairs of tokens of a pass. Only layer 0 has the table; all
    layers of a stack use it. Source: Raffel et al., "Exploring the Limits of Transfer Learning", 2020, 2.1.
    """

    def __init__(self, attention: Any) -> None:
        """Take the attention of layer 0, which has the table, and stop its own computation."""
        self._attention = attention
        self._options = {
            "bidirectional": not attention.is_decoder,
            "num_buckets": attention.relative_attention_num_buckets,
            "max_distance": attention.relative_attention_max_distance,
        }
        nothing = attention.relative_attention_bias.weight.new_zeros((1, 1, 1, 1))
        object.__setattr__(attention, "compute_bias", lambda *_, **__: nothing)

    def __call__(self, distances: Tensor) -> Tensor:
        """Return for distances (…,), positive for keys after the query, the bias of each head: (…, heads)."""
        buckets = self._attention._relative_position_bucket(distances, **self._options)
        bias: Tensor = self._attention.relative_attention_bias(buckets)
        return bias
