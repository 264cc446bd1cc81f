"""Finds the language-model head of a checkpoint, with which the foundation generates text."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from rootstock.adapters.foundation.location import (
    FoundationError,
    FoundationFiles,
    heads_digest,
    read_json,
)
from rootstock.adapters.language_model import VocabularyLayer
from rootstock.adapters.spec import CausalLM
from rootstock.adapters.strict_json.canonical import canonical

if TYPE_CHECKING:
    from torch import nn

# transformers computes these positions from the longest sequence of a pass.
_DEPENDENT = {"dynamic", "longrope"}
# transformers prefers the first of these files for the tokens that end an answer.
_SETTINGS = ("generation_config.json", "config.json")


def causal_lm(files: FoundationFiles, config: Any, trunk: str, model: nn.Module) -> CausalLM:
    """Return the head of a decoder's checkpoint, whose trunk has the fingerprint `trunk`.

    `model` is of the head's class and may be without numbers. Raise FoundationError if no token ends an answer.
    """
    vocabulary = int(config.vocab_size)
    digest = language_digest(files, trunk)
    return CausalLM(
        type(model).__name__, vocabulary, stop_ids(files, vocabulary), digest, output_layer(model, vocabulary)
    )


def output_layer(model: Any, vocabulary: int) -> VocabularyLayer | None:
    """Return the output layer of a decoder's class; None if an adapter cannot change rows of it."""
    layer = model.get_output_embeddings()
    if tuple(getattr(getattr(layer, "weight", None), "shape", ()))[:1] != (vocabulary,):
        return None
    name = next(name for name, module in model.named_modules() if module is layer)
    return VocabularyLayer(name, layer.weight is model.get_input_embeddings().weight, layer.bias is not None)


def check_positions(files: FoundationFiles, config: Any) -> None:
    """Raise FoundationError if rotary positions depend on the longest sequence of a pass."""
    if kinds := sorted(_rope_types(config) & _DEPENDENT):
        raise FoundationError(
            f"{files.folder}: rope_type {kinds[0]!r} is not served, because an answer would depend on the others "
            "of its pass; choose a model with another rope_type"
        )


def language_digest(files: FoundationFiles, trunk: str) -> str:
    """Return the digest of a language-model head: `sha256:<64 hex>` over the trunk's fingerprint and the head."""
    heads = heads_digest(files.folder)
    return trunk if heads is None else f"sha256:{hashlib.sha256(canonical([trunk, heads])).hexdigest()}"


def _rope_types(config: Any) -> set[str]:
    """Return the kinds of rotary positions. Some architectures have parameters for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return {str(one.get("rope_type", "default")) for one in nested or [parameters]}


def stop_ids(files: FoundationFiles, vocabulary: int) -> tuple[int, ...]:
    """Return the tokens that end an answer. Raise FoundationError if no file names one."""
    for name in _SETTINGS:
        path = files.folder / name
        stated = read_json(path).get("eos_token_id") if path.is_file() else None
        ids = [stated] if isinstance(stated, int) else stated
        if ids:
            if not isinstance(ids, list) or not all(isinstance(i, int) and 0 <= i < vocabulary for i in ids):
                raise FoundationError(
                    f"{path}: eos_token_id is {stated!r}; expected an id of the vocabulary, from 0 to "
                    f"{vocabulary - 1}, or a list of them"
                )
            return tuple(ids)
    raise FoundationError(
        f"{files.folder} names no token that ends an answer; add eos_token_id to generation_config.json"
    )
