"""Run passes of an encoder–decoder model on torch: sources are read once, then answers are decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.runners.decoder.attention import NAME, RaggedAttention, attach
from rootstock.service.engine.runners.decoder.packed_decoder import PackedDecoder
from rootstock.service.engine.runners.decoder.packed_pass import PackedPart, PackedPass
from rootstock.service.engine.runners.decoder.self_check import samples
from rootstock.service.engine.runners.decoder.site_group import alone
from rootstock.service.engine.runners.decoder.token_site import MixInUse
from rootstock.service.engine.runners.decoder.trunk import graft, load_model
from rootstock.service.engine.runners.seq2seq.attention import (
    CrossAttention,
    SourceAttention,
    SourceProjection,
    UnusedProjection,
)
from rootstock.service.engine.runners.seq2seq.positions import PackedPositions, RelativeBias
from rootstock.service.engine.runners.seq2seq.source_rows import SourceRows

# The names in transformers' classes of the attention over sources, and of its layers for keys and values.
_CROSS = ("EncDecAttention", "encoder_attn")
_PROJECTIONS = (("k", "v"), ("k_proj", "v_proj"))


class Seq2SeqDecoder(PackedDecoder[SourceRows]):
    """A decoder of a foundation with an encoder, in fp32.

    A pass first reads the sources of the sequences that begin, packed and each under its own adapter. The cache
    keeps their keys and values. The decoder's part of a pass is that of TorchDecoder.
    """

    precision = "fp32"
    dtype = torch.float32

    def __init__(
        self, folder: Path, spec: FoundationSpec, slots: int, cache_tokens: int, threads: int | None = None
    ) -> None:
        """Load the foundation from a folder. Raise ValueError for a foundation without an encoder and a decoder.

        Raise WrongPasses if a pass does not give the logits of transformers' own forward.
        """
        if spec.seq2seq_lm is None:
            raise ValueError(f"{spec.name} is no encoder–decoder model with a language-model head")
        super().__init__(spec, slots, threads)
        model = load_model(transformers.AutoModelForSeq2SeqLM, folder, self.dtype)
        vocabulary = spec.seq2seq_lm.vocabulary
        sources, texts = samples(vocabulary), samples(vocabulary)[::-1]
        expected = [_own_logits(model, *pair) for pair in zip(sources, texts, strict=True)]
        model.set_attn_implementation(NAME)
        self._model = model
        in_use = MixInUse()
        in_use.mix = self._mix
        sites = alone({name: features[1] for name, features in spec.sites.items()})
        self.groups = graft(model.base_model, sites, spec.norms, in_use)
        self._encoder: Any = model.get_encoder()
        decoder: Any = model.get_decoder()
        self._reading = SourceAttention(_relative_bias(self._encoder))
        self._ragged = RaggedAttention(_relative_bias(decoder))
        cross = [module for name, module in decoder.named_modules() if name.rpartition(".")[2] in _CROSS]
        self._cross = CrossAttention([_take_projections(module) for module in cross])
        for stack, attention in ((self._encoder, self._reading), (decoder, self._ragged)):
            attach(stack, attention)
        for module in cross:
            attach(module, self._cross)
        self._source_positions, self._positions = _packed_positions(self._encoder), _packed_positions(decoder)
        # transformers wants an encoder's output, of which only the unused projections would make something.
        self._unread = torch.zeros((1, 1, spec.hidden_size))
        rows = partial(SourceRows, _token_shape(cross), dtype=self.dtype)
        self._open_cache(rows, cache_tokens, texts, expected, sources)

    @torch.inference_mode()
    def _logits(self, segments: Sequence[Segment]) -> Array:
        """Read the sources of segments that have one, then return the logits after the last token of each."""
        if unread := [segment for segment in segments if segment.source]:
            self._read(unread)
        tokens, spans = self._pass(segments)
        self._ragged.take(spans)
        self._cross.take(tokens.bounds, [self.cache.source(segment.row) for segment in segments])
        if self._positions is not None:
            self._positions.take(tokens.positions)
        logits: Tensor = self._model(
            encoder_outputs=(self._unread,), decoder_input_ids=tokens.ids, use_cache=False
        ).logits[0]
        output: Array = logits[tokens.last].numpy()
        return output

    def _read(self, segments: Sequence[Segment]) -> None:
        """Compute the keys and values of the segments' sources in one pass of the encoder."""
        tokens = PackedPass([PackedPart(segment.slot, segment.source) for segment in segments], self._mix)
        self._reading.take(tokens.bounds)
        if self._source_positions is not None:
            self._source_positions.take(tokens.positions)
        hidden = self._encoder(input_ids=tokens.ids).last_hidden_state
        self._cross.write(hidden, tokens.bounds, [self.cache.source(segment.row)[0] for segment in segments])


@torch.inference_mode()
def _own_logits(model: Any, source: Sequence[int], text: Sequence[int]) -> Array:
    """Return transformers' own logits for the tokens of a decoder under a source: (tokens, vocabulary) fp32."""
    ids = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([text])}
    logits: Array = model(**ids, use_cache=False).logits[0].numpy()
    return logits


def _take_projections(attention: Any) -> SourceProjection:
    """Take the layers that project sources out of a decoder layer's attention."""
    names = next(names for names in _PROJECTIONS if hasattr(attention, names[0]))
    taken = SourceProjection(*(getattr(attention, name) for name in names))
    for name, layer in zip(names, taken, strict=True):
        setattr(attention, name, UnusedProjection(layer.linear.out_features))
    return taken


def _relative_bias(stack: nn.Module) -> RelativeBias | None:
    """Return the bias of a stack with relative positions; None for one with position embeddings."""
    return next(map(RelativeBias, _with_table(stack)), None)


def _with_table(stack: nn.Module) -> Iterator[nn.Module]:
    return (module for module in stack.modules() if getattr(module, "has_relative_attention_bias", False))


def _packed_positions(stack: Any) -> PackedPositions | None:
    """Put PackedPositions around a stack's position embeddings, if it has any, and return it."""
    if not hasattr(stack, "embed_positions"):
        return None
    stack.embed_positions = packed = PackedPositions(stack.embed_positions)
    return packed


def _token_shape(cross: Sequence[Any]) -> tuple[int, int, int]:
    """Return the shape of one token's keys: layers, heads, width."""
    first = cross[0]
    if hasattr(first, "n_heads"):
        return len(cross), first.n_heads, first.key_value_proj_dim
    return len(cross), first.num_heads, first.head_dim
