"""Run passes of a causal language model on torch, with the tokens of all sequences one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rootstock.adapters.spec import Adapter, Array, FoundationSpec
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.runners.decoder.attention import Span
from rootstock.service.engine.runners.decoder.kv_rows import KvRows
from rootstock.service.engine.runners.decoder.packed_pass import PackedPart, PackedPass
from rootstock.service.engine.runners.decoder.self_check import CHECK_ROOM, check_passes
from rootstock.service.engine.runners.decoder.trunk import DecoderTrunk
from rootstock.service.engine.runners.decoder.updates import AdapterMix, TensorUpdate, to_tensors
from rootstock.service.engine.runners.torch_cores import TorchCores


class TorchDecoder:
    """A decoder (generate.decoder.Decoder) of a foundation that transformers loads, on a CPU.

    No token is padded: a pass computes chunks of prompts, single tokens of many sequences, or both. Each linear
    layer adds the update of the adapter that a token belongs to.
    """

    name = "torch"

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
        self.cores = TorchCores(threads)
        self.spec = spec
        self.slots = slots
        self.precision = precision
        self.trunk = DecoderTrunk(folder, spec, precision)
        self._mix = AdapterMix()
        shape = _token_shape(self.trunk.config)
        self.cache = KvRows(shape, CHECK_ROOM, self.trunk.dtype)
        self.place(0, {})
        check_passes(self._logits, self.cache, self.trunk.texts, self.trunk.expected, precision)
        self.clear(0)
        self.cache = KvRows(shape, cache_tokens, self.trunk.dtype)

    def warm(self, adapter: Adapter) -> None:
        """Do nothing, because every adapter uses the foundation's head."""

    def stage(self, adapter: Adapter) -> Mapping[str, TensorUpdate]:
        """Return the adapter's updates as tensors."""
        return {site: to_tensors(update, self.trunk.dtype) for site, update in adapter.weights.sites.items()}

    def place(self, slot: int, staged: Mapping[str, TensorUpdate]) -> None:
        """Put a staged adapter into a slot."""
        self._mix.place(slot, staged)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._mix.clear(slot)

    def run(self, segments: Sequence[Segment]) -> Array:
        """Return the logits after the last token of each segment: (segments, vocabulary) fp32."""
        self.cores.use()
        return self._logits(segments)

    @torch.inference_mode()
    def _logits(self, segments: Sequence[Segment]) -> Array:
        parts = [PackedPart(segment.slot, segment.tokens, segment.start) for segment in segments]
        decodes = all(len(part.tokens) == 1 for part in parts)
        tokens = PackedPass(parts, self._mix.order([part.slot for part in parts]) if decodes else None)
        spans = [
            Span(self.cache[segment.row], first, end, segment.start)
            for segment, (first, end) in zip(segments, tokens.bounds, strict=True)
        ]
        self._mix.take(tokens.runs)
        output: Array = self.trunk.logits(tokens, spans, self._mix).float().numpy()
        return output


def _token_shape(config: Any) -> tuple[int, int, int]:
    """Return the shape of one token's keys: layers, heads, width."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or heads, width
