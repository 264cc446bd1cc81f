"""Tells whether an adapter's tensors may be of tokens that the tokenizer beside it adds."""

from __future__ import annotations

from typing import IO

from rootstock.adapters.bundle.tensors import read_shapes
from rootstock.adapters.spec import Rejected

# Parts of the names of word embeddings and output layers in transformers' classes, and of what PEFT saves of one.
_PARTS = ("embed", ".wte.", "lm_head", "trainable_tokens")


def needs_tokenizer(file: IO[bytes]) -> bool:
    """Return whether a safetensors file names an embedding. Only its header is read; a damaged one names none."""
    try:
        return any(part in name for name in read_shapes(file) for part in _PARTS)
    except Rejected:
        return False
