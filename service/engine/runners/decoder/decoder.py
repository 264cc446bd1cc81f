"""Run passes of a causal language model on torch, with the tokens of all sequences one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.runners.decoder.kv_rows import KvRows
from rootstock.service.engine.runners.decoder.packed_decoder import PackedDecoder
from rootstock.service.engine.runners.decoder.trunk import DecoderTrunk


class TorchDecoder(PackedDecoder[KvRows]):
    """A decoder of a foundation that transformers loads.

    No token is padded: a pass computes chunks of prompts, single tokens of many sequences, or both. Each linear
    layer adds the update of the adapter that a token belongs to.
    """

    def __init__(
        self,
        folder: Path,
        spec: FoundationSpec,
        slots: int,
        cache_tokens: int,
        threads: int | None = None,
        precision: str = "fp32",
    ) -> None:
        """Load the foundation from a folder. Raise ValueError for an unknown precision or an encoder.

        Raise WrongPasses if a pass does not give the logits of transformers' own forward.
        """
        super().__init__(spec, slots, threads)
        self.trunk = trunk = DecoderTrunk(folder, spec, precision)
        self.precision, self.dtype, self.groups = trunk.precision, trunk.dtype, trunk.groups
        rows = partial(KvRows, _token_shape(trunk.config), dtype=trunk.dtype)
        self._open_cache(rows, cache_tokens, trunk.texts, trunk.expected)

    @torch.inference_mode()
    def _logits(self, segments: Sequence[Segment]) -> Array:
        tokens, spans = self._pass(segments)
        output: Array = self.trunk.logits(tokens, spans, self._mix).float().numpy()
        return output


def _token_shape(config: Any) -> tuple[int, int, int]:
    """Return the shape of one token's keys: layers, heads, width."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width
