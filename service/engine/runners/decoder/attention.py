"""Compute the attention of tokens that lie one after the other, each over the cache of its own sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from rootstock.service.engine.runners.decoder.kv_rows import KvRow

# The name under which transformers calls the attention. For a name without masks, it makes no mask either.
NAME = "rootstock_ragged"


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens `first` to `end` (not included) of a pass, which stand at `start` and later in a sequence."""

    row: KvRow
    first: int
    end: int
    start: int


class RaggedAttention:
    """The attention of one pass. `spans` covers its tokens in order; the decoder sets it before each pass."""

    def __init__(self) -> None:
        self.spans: Sequence[Span] = ()

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None
    ) -> Tensor:
        """Return the attention's output (tokens, heads, width), and add keys and values to the cache.

        `query` is (heads, tokens, width); `key` and `value` may have fewer heads, each for a group of the
        query's. With `window`, a token sees itself and the `window` - 1 tokens before it.
        """
        outputs = query.new_empty((query.shape[1], query.shape[0], value.shape[-1]))
        grouped = query.shape[0] != key.shape[0]
        for span in self.spans:
            row, first, end, start = span.row, span.first, span.end, span.start
            stop = start + end - first
            keys, values = row.keys[layer], row.values[layer]
            keys[:, start:stop] = key[:, first:end]
            values[:, start:stop] = value[:, first:end]
            begin = 0 if window is None else max(0, start - window + 1)
            mask = None
            if end - first > 1 and (start or window is not None):
                mask = _mask(start, stop, begin, window)
            outputs[first:end] = scaled_dot_product_attention(
                query[None, :, first:end],
                keys[None, :, begin:stop],
                values[None, :, begin:stop],
                attn_mask=mask,
                is_causal=mask is None and end - first > 1,
                scale=scale,
                enable_gqa=grouped,
            )[0].transpose(0, 1)
        return outputs

    def attach(self, model: nn.Module) -> None:
        """Make the attention layers of a model, loaded with the attention `NAME`, use this object."""
        for module in model.modules():
            if hasattr(module, "layer_idx"):
                object.__setattr__(module, "ragged", self)


def _mask(start: int, stop: int, begin: int, window: int | None) -> Tensor:
    """Return which of the tokens `begin` to `stop` each token from `start` on sees: (tokens, tokens seen)."""
    ours, others = torch.arange(start, stop)[:, None], torch.arange(begin, stop)[None]
    mask = others <= ours
    return mask if window is None else mask & (others > ours - window)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute as transformers' AttentionInterface asks for: in (1, heads, tokens, width), out tokens first."""
    output = module.ragged.attend(module.layer_idx, query[0], key[0], value[0], scaling, sliding_window)
    return output[None], None


AttentionInterface.register(NAME, _attend)
