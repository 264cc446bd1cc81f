"""Compute a decoder layer of Llama's form in few operations.

A pass of few tokens spends more time between the operations than in them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer, MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm

_LAYERS = (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer)
_NORMS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm)


def is_gated(trunk: nn.Module) -> bool:
    """Tell whether all layers of a trunk have Llama's form."""
    layers = getattr(trunk, "layers", ())
    return len(layers) > 0 and all(type(layer) in _LAYERS for layer in layers)


def fuse_layers(trunk: Any) -> None:
    """Put a GatedLayer in place of each layer of a trunk that `is_gated`.

    In each layer, `q_proj` must be the product for q, k and v already, and `gate_proj` that of both halves.
    """
    for i, layer in enumerate(trunk.layers):
        trunk.layers[i] = GatedLayer(layer)
    trunk.rotary_emb = PackedRotation(trunk.rotary_emb)


class PackedRotation(nn.Module):
    """The cosines and sines of a pass's positions, as GatedLayer takes them: (tokens, 1, width) each.

    The sines of the first half of the features are negative: a feature's other one is half of the width away.
    """

    def __init__(self, rotation: nn.Module) -> None:
        super().__init__()
        self._rotation = rotation

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self._rotation(x, position_ids=position_ids)
        sin = sin.clone()
        sin[..., : sin.shape[-1] // 2].neg_()
        return cos[0, :, None], sin[0, :, None]


class FusedNorm(nn.Module):
    """An RMS norm (Zhang and Sennrich 2019) in one operation."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self._weight = norm.weight
        self._epsilon = norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self._weight.shape, self._weight, self._epsilon)


class GatedLayer(nn.Module):
    """A layer of Llama's form, for a pass of (1, tokens, width): attention, then a gated product.

    It computes what transformers' LlamaDecoderLayer does, with q, k and v as one product and one rotation, and
    with the two halves of the gated product as one. `ragged` computes the attention, see `attach`.
    """

    ragged: Any

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.self_attn
        self.layer_idx = attention.layer_idx
        self._width = attention.head_dim
        self._heads = attention.config.num_attention_heads
        self._shared = attention.config.num_key_value_heads
        self._scale = attention.scaling
        # Mistral's window is that of all its layers, Qwen2's that of some, and Llama has none.
        holder = attention.config if isinstance(layer, MistralDecoderLayer) else attention
        self._window = getattr(holder, "sliding_window", None)
        # The names of transformers' layer, by which adapters mean the two.
        self.input_layernorm = _fused(layer.input_layernorm)
        self.post_attention_layernorm = _fused(layer.post_attention_layernorm)
        self._projection, self._output = attention.q_proj, attention.o_proj
        self._gate, self._down = layer.mlp.gate_proj, layer.mlp.down_proj
        self._activation = layer.mlp.act_fn

    def forward(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any) -> Tensor:
        x = hidden_states
        cos, sin = position_embeddings
        heads = self._projection(self.input_layernorm(x)).view(x.shape[1], -1, self._width)
        turning = heads[:, : self._heads + self._shared]
        turned = torch.addcmul(turning * cos, turning.roll(self._width // 2, -1), sin).transpose(0, 1)
        query, key = turned[: self._heads], turned[self._heads :]
        value = heads[:, self._heads + self._shared :].transpose(0, 1)
        attended = self.ragged.attend(self.layer_idx, query, key, value, self._scale, self._window)
        after: Tensor = x + self._output(attended.view(1, x.shape[1], -1))
        gate, up = self._gate(self.post_attention_layernorm(after)).chunk(2, -1)
        return after.add_(self._down(self._activation(gate).mul_(up)))


def _fused(norm: nn.Module) -> nn.Module:
    """Return a norm as one operation, if its class is known. In bf16, the classes round in another order."""
    fits = type(norm) in _NORMS and norm.weight.dtype == torch.float32
    return FusedNorm(norm) if fits else norm
