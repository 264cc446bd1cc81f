"""The fixed inputs on which a conversion compares PEFT's outputs with those of the LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec, TextTower

if TYPE_CHECKING:
    from torch import Tensor

TEXTS = (
    "ok",
    "Where is my parcel? It was due on Monday, and nobody answers the telephone.",
    "The quick brown fox jumps over the lazy dog while 12 of 1,337 sensors report 98.6 °F.",
    "Ada Lovelace met Charles Babbage in London in June 1833. " * 8,
)
# Noise has every pattern, so each convolution's change shows in the outputs.
_NOISES = 4
# A wave form of one second at 16 kHz.
_LENGTH = 16_000


def fixed_inputs(files: FoundationFiles, spec: FoundationSpec) -> list[dict[str, Tensor]]:
    """Return the arguments of the model for each input: texts, or noise in place of images and recordings."""
    return _texts(files, spec) if spec.modality == "text" else _noises(spec)


def fixed_pairs(files: FoundationFiles, spec: FoundationSpec, tower: TextTower) -> list[dict[str, Tensor]]:
    """Return the arguments of a model of two towers for each pair of noise and a text."""
    pairs = zip(_noises(spec), _texts(files, tower.trunk), strict=True)
    return [{**noise, **text} for noise, text in pairs]


def _texts(files: FoundationFiles, spec: FoundationSpec) -> list[dict[str, Tensor]]:
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(files.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = [torch.tensor([tokenizer.encode(text).ids[: spec.max_tokens]]) for text in TEXTS]
    # The decoder of an encoder–decoder model reads the text too.
    names = ("input_ids",) if spec.seq2seq_lm is None else ("input_ids", "decoder_input_ids")
    return [dict.fromkeys(names, ids) for ids in texts]


def _noises(spec: FoundationSpec) -> list[dict[str, Tensor]]:
    import torch

    shape = [_LENGTH if size is None else size for size in spec.input_shape]
    drawn = torch.randn(_NOISES, 1, *shape, generator=torch.Generator().manual_seed(0))
    return [{spec.inputs[0]: noise} for noise in drawn]
