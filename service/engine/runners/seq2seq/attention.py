"""Compute the attention of an encoder's pass, and that of a decoder over what the encoder has read.

Both classes have the `attend` of RaggedAttention, through which transformers calls them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rootstock.service.engine.runners.decoder.attention import (
    Bias,
    SlabStep,
    Span,
    read_step,
    slab_steps,
    step_mask,
)
from rootstock.service.engine.runners.decoder.kv_rows import KvPlace
from rootstock.service.engine.runners.decoder.token_site import TokenSite


class SourceAttention:
    """The attention of an encoder: each token sees all tokens of its own source, and no others."""

    def __init__(self, bias: Bias | None = None) -> None:
        self._bias = bias
        self._bounds: Sequence[tuple[int, int]] = ()
        # Every layer uses the same biases of a pass.
        self._biases: Sequence[Tensor | None] = ()

    def take(self, bounds: Sequence[tuple[int, int]]) -> None:
        """Set the first token and the end of each source in the next pass."""
        self._bounds = bounds
        self._biases = [self._bias_of(end - first) for first, end in bounds]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None, *_: Any
    ) -> Tensor:
        """Return the attention's output (tokens, heads, width) for (heads, tokens, width)."""
        outputs = query.new_empty((query.shape[1], query.shape[0], value.shape[-1]))
        for (first, end), bias in zip(self._bounds, self._biases, strict=True):
            ours, keys, values = (part[None, :, first:end] for part in (query, key, value))
            result = scaled_dot_product_attention(ours, keys, values, attn_mask=bias, scale=scale)
            outputs[first:end] = result[0].transpose(0, 1)
        return outputs

    def _bias_of(self, length: int) -> Tensor | None:
        if self._bias is None:
            return None
        places = torch.arange(length)
        return self._bias(places[None] - places[:, None]).movedim(-1, 0)


class SourceProjection(NamedTuple):
    """The linear layers of one decoder layer that make keys and values of an encoder's output."""

    key: TokenSite
    value: TokenSite


class CrossAttention:
    """The attention of a decoder over sources, whose keys and values lie in the cache.

    `write` computes them once for each source. So the layers that project them take no part in a decoder's pass.
    """

    def __init__(self, projections: Sequence[SourceProjection]) -> None:
        self._projections = projections
        self._steps: Sequence[tuple[SlabStep, Tensor]] = ()
        self._chunks: Sequence[tuple[Span, KvPlace, int]] = ()

    def write(self, hidden: Tensor, bounds: Sequence[tuple[int, int]], places: Sequence[KvPlace]) -> None:
        """Put the keys and values of sources into their places, for an encoder's output (1, tokens, width)."""
        for layer, projection in enumerate(self._projections):
            for projected, name in ((projection.key(hidden)[0], "keys"), (projection.value(hidden)[0], "values")):
                for (first, end), (slab, row) in zip(bounds, places, strict=True):
                    target = getattr(slab, name)[layer, row, :, : end - first]
                    target.copy_(projected[first:end].view(end - first, len(target), -1).transpose(0, 1))

    def take(self, bounds: Sequence[tuple[int, int]], sources: Sequence[tuple[KvPlace, int]]) -> None:
        """Set the tokens of each sequence in the next pass, and the place and length of its source."""
        spans = [
            (Span(place, first, end, length - 1), place, length)
            for (first, end), (place, length) in zip(bounds, sources, strict=True)
        ]
        self._chunks = [(s, place, length) for s, place, length in spans if s.end - s.first > 1]
        steps = slab_steps((place, s) for s, place, _ in spans if s.end - s.first == 1)
        self._steps = [(step, step_mask(step)) for step in steps]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None, *_: Any
    ) -> Tensor:
        """Return the attention's output (tokens, heads, width). `key` and `value` hold nothing of use."""
        outputs = query.new_empty((query.shape[1], query.shape[0], value.shape[-1]))
        for step, mask in self._steps:
            read_step(step, layer, query, query.shape[0], outputs, scale, mask)
        for span, (slab, row), length in self._chunks:
            keys, values = slab.keys[layer, row], slab.values[layer, row]
            ours = query[None, :, span.first : span.end]
            result = scaled_dot_product_attention(
                ours, keys[None, :, :length], values[None, :, :length], scale=scale
            )
            outputs[span.first : span.end] = result[0].transpose(0, 1)
        return outputs


class UnusedProjection(nn.Module):
    """The place of a SourceProjection's layer in a decoder, where its output would be thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.new_zeros((1, 1, self._width))
