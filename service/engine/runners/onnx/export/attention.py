"""Export attention as one ONNX Runtime operator, for architectures that use transformers' attention registry.

Otherwise attention is a dozen nodes for each layer. The updates of the query and value projections keep ONNX
Runtime from recognising these nodes, which makes a batch of one slower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx import symbolic_helper
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

FUSED = "rootstock_fused"
DOMAIN = "com.microsoft"


class _MultiHeadAttention(torch.autograd.Function):
    """The function softmax(q k^T * scale + bias) v over heads.

    q, k and v are (rows, tokens, width), and bias is (rows, 1, tokens, tokens).
    Source: Vaswani et al., "Attention Is All You Need", 2017; ONNX Runtime's MultiHeadAttention operator.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, heads: int, scale: float
    ) -> Tensor:
        def apart(x: Tensor) -> Tensor:
            return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

        scores = apart(query) @ apart(key).transpose(2, 3) * scale
        if bias is not None:
            scores = scores + bias
        return (scores.softmax(-1) @ apart(value)).transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, bias: Any, heads: int, scale: float) -> Any:
        absent = symbolic_helper._optional_input_placeholder_tensor(g)  # type: ignore[no-untyped-call]
        if bias is None or symbolic_helper._is_none(bias):
            bias = absent
        fused = g.op(
            f"{DOMAIN}::MultiHeadAttention",
            query,
            key,
            value,
            absent,
            absent,
            bias,
            num_heads_i=heads,
            scale_f=scale,
        )
        return fused.setType(query.type())


def _fused(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return attention by transformers' interface. query, key and value are (rows, heads, tokens, size).

    Several heads of the query may share one of the key and the value. The operator has as many of each.
    """
    # Convert to plain numbers, because during tracing a shape holds tensors.
    heads, size = int(query.shape[1]), int(query.shape[3])
    key, value = (repeat_kv(x, heads // int(x.shape[1])) for x in (key, value))

    def together(x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], heads * size)

    scale = size**-0.5 if scaling is None else float(scaling)
    inputs = (together(query), together(key), together(value))
    mixed: Tensor = _MultiHeadAttention.apply(*inputs, attention_mask, heads, scale)  # type: ignore[no-untyped-call]
    return mixed.reshape(query.shape[0], query.shape[2], heads, size), None


ALL_ATTENTION_FUNCTIONS.register(FUSED, _fused)
ALL_MASK_ATTENTION_FUNCTIONS.register(FUSED, eager_mask)
