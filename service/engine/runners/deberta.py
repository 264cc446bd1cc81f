"""Let DeBERTa's relative positions differ between the rows of a batch, whose updates differ.

DeBERTa's attention projects the position embeddings, which belong to no row, with the same layers as the hidden
states. It then repeats the result for each row. With adapters, each row has its own projected positions.
Source: He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", 2021.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention


class _Projected:
    """Projected positions, (1 or rows x heads, positions, size). Their `repeat` gives one set for each row."""

    def __init__(self, positions: Tensor, heads: int) -> None:
        self.positions = positions
        self.heads = heads

    def repeat(self, rows: int, *_: int) -> Tensor:
        count, size = self.positions.shape[1:]
        apart = self.positions.view(-1, self.heads, count, size).expand(rows, self.heads, count, size)
        return apart.reshape(-1, count, size)


class _RowPositions(DisentangledSelfAttention):  # type: ignore[misc]
    """transformers' attention, for projected positions that may already have one set for each row."""

    projecting = False

    def transpose_for_scores(self, x: Tensor, attention_heads: int) -> Any:
        split = super().transpose_for_scores(x, attention_heads)
        return _Projected(split, attention_heads) if self.projecting else split

    def disentangled_attention_bias(self, *arguments: Any) -> Any:
        self.projecting = True
        try:
            return super().disentangled_attention_bias(*arguments)
        finally:
            self.projecting = False


def let_positions_vary(trunk: nn.Module) -> None:
    """Prepare a DeBERTa trunk for sites with per-row updates, in place. Leave any other trunk unchanged."""
    for module in trunk.modules():
        if type(module) is DisentangledSelfAttention:
            module.__class__ = _RowPositions
