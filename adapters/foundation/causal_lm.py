"""Finds the language-model head of a checkpoint, with which the foundation generates text."""

from __future__ import annotations

import hashlib
from typing import Any

from rootstock.adapters.bundle.canonical import canonical
from rootstock.adapters.foundation.location import (
    FoundationError,
    FoundationFiles,
    heads_digest,
    read_json,
)
from rootstock.adapters.spec import CausalLM

# transformers computes these positions from the longest sequence of a pass.
_DEPENDENT = ("dynamic", "longrope")
# transformers prefers the first of these files for the tokens that end an answer.
_SETTINGS = ("generation_config.json", "config.json")


def causal_lm(files: FoundationFiles, class_name: str, config: Any, trunk: str) -> CausalLM:
    """Return the head of a decoder's checkpoint, whose trunk has the fingerprint `trunk`.

    Raise FoundationError if no token ends an answer, or if positions depend on the longest sequence of a pass.
    """
    scaling = getattr(config, "rope_parameters", None) or {}
    if (kind := scaling.get("rope_type", "default")) in _DEPENDENT:
        raise FoundationError(
            f"{files.folder}: rope_type {kind!r} is not served, because an answer would depend on the others of "
            "its pass; choose a model with another rope_type"
        )
    heads, vocabulary = heads_digest(files.folder), int(config.vocab_size)
    digest = trunk if heads is None else f"sha256:{hashlib.sha256(canonical([trunk, heads])).hexdigest()}"
    return CausalLM(class_name, vocabulary, _stop_ids(files, vocabulary), digest)


def _stop_ids(files: FoundationFiles, vocabulary: int) -> tuple[int, ...]:
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
