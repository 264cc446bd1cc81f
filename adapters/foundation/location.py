"""Finds a foundation's files and computes its fingerprint, without torch, pickle or remote code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rootstock.adapters.embedding_files import (
    MODULES,
    TOKENIZER,
    UnservedEmbedding,
    read_embedding,
    token_limit,
)
from rootstock.adapters.foundation.families import (
    REFUSED,
    continues_text,
    identifying_config,
    identifying_text_config,
    known,
    modality_of,
    rewrites_text,
)
from rootstock.adapters.foundation.files import FoundationError as FoundationError
from rootstock.adapters.foundation.files import FoundationFiles as FoundationFiles
from rootstock.adapters.foundation.files import json_value
from rootstock.adapters.foundation.files import read_json as read_json
from rootstock.adapters.foundation.named import NAMED, locate_named
from rootstock.adapters.foundation.processor_files import canonical_processor, input_shape, processor_config
from rootstock.adapters.foundation.text_tower import padding_id, text_tower_type
from rootstock.adapters.foundation.tokenizer_files import disagreement, lowercases
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.home_folder import searched_homes
from rootstock.adapters.spec import EmbeddingSpec, FoundationSpec
from rootstock.adapters.strict_json.canonical import canonical

_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", re.ASCII)
_HUB_FILES = ["*.json", "*.txt", "*.safetensors"]

# The further keys that decide the arithmetic of a checkpoint's language-model head.
_HEAD_KEYS = (
    "tie_word_embeddings", "legacy", "decoder_bias", "classifier_bias", "classifier_activation", "norm_bias",
)  # fmt: skip
# The mask tokens to look for if no file names one.
_MASK_TOKENS = ("[MASK]", "<mask>")
_OTHER_EMBEDDING = (
    f"choose another model, or give a folder without {MODULES}, whose embeddings are the mean of its tokens"
)


def locate(setting: str, homes: Sequence[Path] = ()) -> FoundationFiles:
    """Return the files of a named foundation, a local folder, or `org/name@<40 hex>` from the Hugging Face hub.

    `homes` are the folders to search for a conversion; the last one gets a new conversion. By default the
    environment names them. Raise FoundationError if files are missing or, for a named foundation, are not the
    pinned ones.
    """
    if setting in NAMED:
        return locate_named(setting, homes or searched_homes())
    folder = Path(setting).expanduser()
    if folder.is_dir():
        _check_architecture(folder)
        _check_preparation(folder)
        if not list(folder.glob("*.safetensors")):
            raise FoundationError(
                f"{folder} holds no *.safetensors; pickled weights are never read, so save the model in that form"
            )
        return FoundationFiles(folder, folder.name or folder.resolve().name, None, setting)
    match = _HUB_ID.fullmatch(setting)
    if match is None:
        *most, last = (f"`{name}`" for name in NAMED)
        names = f"{', '.join(most)} or {last}"
        raise FoundationError(
            f"foundation {setting!r} is no folder and not {names}; for a model of the hub, give its id with "
            "the revision pinned: org/name@<40 hex digits of the commit>"
        )
    from huggingface_hub import snapshot_download

    path = snapshot_download(match[1], revision=match[2], allow_patterns=_HUB_FILES)
    _check_architecture(Path(path))
    _check_preparation(Path(path))
    return FoundationFiles(Path(path), match[1], match[2], setting)


def generates(files: FoundationFiles) -> bool:
    """Return whether a foundation generates text, by its architecture and class."""
    config = read_json(files.folder / "config.json")
    return continues_text(config) or rewrites_text(config)


def _check_architecture(folder: Path) -> None:
    """Raise FoundationError if the model in the folder has an architecture that is not served."""
    if not (folder / "config.json").is_file():
        return
    model_type = read_json(folder / "config.json").get("model_type")
    if (reason := REFUSED.get(str(model_type))) is not None:
        raise FoundationError(
            f"{folder} is a model of the architecture {model_type!r}, which is not served: {reason}"
        )
    if model_type not in known():
        raise FoundationError(
            f"{folder} is a model of the architecture {model_type!r}, which is not served; choose a model of one "
            f"of: {', '.join(known())} (docs/compatibility.md)"
        )


def fingerprint(folder: Path) -> str:
    """Return the fingerprint, `sha256:<64 hex>`.

    It covers the trunk's tensors in order of name, the architecture keys and, in canonical form, what prepares
    inputs: the tokenizer, the image processor or the feature extractor. With a tower for texts beside the trunk,
    it covers the same of that tower, and the projections of both.
    """
    config = read_json(folder / "config.json")
    weights = FoundationWeights(folder, config.get("model_type", ""))
    hasher = _hashed(weights, weights.names)
    hasher.update(canonical(identifying_config(config)))
    modality = modality_of(config)
    if modality == "text":
        hasher.update(canonical(canonical_tokenizer(folder)))
    else:
        hasher.update(canonical(canonical_processor(processor_config(folder, modality))))
    if (text_type := text_tower_type(folder, config)) is not None:
        _update(hasher, weights, weights.beside)
        hasher.update(canonical([identifying_text_config(config), padding_id(folder, text_type)]))
        hasher.update(canonical(canonical_tokenizer(folder)))
    return f"sha256:{hasher.hexdigest()}"


def heads_digest(folder: Path) -> str | None:
    """Return `sha256:<64 hex>` over a checkpoint's tensors outside the trunk; None if it has none.

    The digest also covers the config keys that decide how those tensors are used, and the mask token.
    Checkpoints with the same fingerprint may differ in this digest.
    """
    config = read_json(folder / "config.json")
    weights = FoundationWeights(folder, config.get("model_type", ""))
    if not weights.beside:
        return None
    hasher = _hashed(weights, weights.beside)
    hasher.update(canonical({k: config[k] for k in _HEAD_KEYS if k in config}))
    hasher.update(canonical([mask_token(folder)]))
    return f"sha256:{hasher.hexdigest()}"


def _hashed(weights: FoundationWeights, names: Iterable[str]) -> Any:
    hasher = hashlib.sha256()
    _update(hasher, weights, names)
    return hasher


def _update(hasher: Any, weights: FoundationWeights, names: Iterable[str]) -> None:
    for name in names:
        dtype, shape, data = weights.raw(name)
        hasher.update(canonical([name, dtype, shape]))
        hasher.update(data)


def mask_token(folder: Path) -> str | None:
    """Return the mask token: the one that the tokenizer's files name, else a usual one that the tokenizer has."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_json(folder / file).get("mask_token") if (folder / file).is_file() else None
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
    added = {token["content"] for token in read_json(folder / "tokenizer.json").get("added_tokens", [])}
    return next((token for token in _MASK_TOKENS if token in added), None)


def canonical_tokenizer(folder: Path) -> dict[str, Any]:
    """Return the content of tokenizer.json without the truncation and padding settings that it may hold."""
    return {**read_json(folder / "tokenizer.json"), "truncation": None, "padding": None}


def lowercases_text(folder: Path) -> bool:
    """Return whether the foundation's tokenizer makes text lower-case."""
    return lowercases(read_json(folder / "tokenizer.json"))


def embedding_spec(folder: Path, max_tokens: int, lowercases: bool) -> EmbeddingSpec:
    """Return how the foundation itself embeds: by its sentence-transformers files, else by the mean.

    Without such files, a foundation that generates text takes its last token, normalised. Raise FoundationError
    for a setting in those files that is not served.
    """
    try:
        stated = read_embedding(lambda path: _optional(folder / path), lowercases)
    except UnservedEmbedding as error:
        raise FoundationError(f"{folder}: {error.where}: {error.with_remedy(_OTHER_EMBEDDING)}") from None
    if stated is None:
        causal = continues_text(read_json(folder / "config.json"))
        return EmbeddingSpec("last", True, max_tokens) if causal else EmbeddingSpec("mean", False, max_tokens)
    limit = max_tokens if stated.max_tokens is None else min(stated.max_tokens, max_tokens)
    return EmbeddingSpec(stated.pooling, stated.normalize, limit, stated.prefix)


def max_tokens(folder: Path, model_type: str, positions: int, padding: int | None) -> int:
    """Return the longest input in tokens: the number of positions, or the tokenizer's limit if that is lower.

    RoBERTa and similar models have no position for the ids up to the padding's.
    """
    if model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= (padding or 0) + 1
    if positions < 3:
        raise FoundationError(
            f"{folder}: max_position_embeddings leaves {positions} tokens for an input; at least 3 are needed"
        )
    settings = read_json(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else {}
    try:
        stated = token_limit(TOKENIZER, settings, "model_max_length")
    except UnservedEmbedding as error:
        raise FoundationError(f"{folder}: {error.where}: {error.with_remedy(_OTHER_EMBEDDING)}") from None
    return positions if stated is None else min(positions, stated)


def with_files(spec: FoundationSpec, files: FoundationFiles) -> FoundationSpec:
    """Return a cached spec with the values that the fingerprint does not cover read again from these files.

    Folders with the same fingerprint may differ in name and, if they read text, in token limit and embedding
    method. The cached form also leaves out whether the tokenizer makes text lower-case. Raise FoundationError as
    `embedding_spec` does.
    """
    if spec.modality != "text":
        return replace(spec, name=files.name, revision=files.revision)
    config = read_json(files.folder / "config.json")
    positions, padding = config.get("max_position_embeddings"), config.get("pad_token_id")
    if isinstance(positions, int) and isinstance(padding, int):
        limit = max_tokens(files.folder, spec.model_type, positions, padding)
    else:
        # transformers has defaults for keys that this config leaves out, and the cached limit is based on them.
        limit = max_tokens(files.folder, "", spec.max_tokens, None)
    lowers = lowercases_text(files.folder)
    return replace(
        spec,
        name=files.name,
        revision=files.revision,
        max_tokens=limit,
        embedding=embedding_spec(files.folder, limit, lowers),
        lowercases=lowers,
    )


def _check_preparation(folder: Path) -> None:
    """Raise FoundationError if the folder lacks what prepares inputs, or the server cannot use it."""
    _require(folder, "config.json")
    config = read_json(folder / "config.json")
    modality = modality_of(config)
    if modality != "text":
        input_shape(folder, config, processor_config(folder, modality), modality)
        if text_tower_type(folder, config) is not None:
            _check_tokenizer(folder)
        return
    _require(folder, "tokenizer.json")
    _check_tokenizer(folder)


def _require(folder: Path, file: str) -> None:
    if not (folder / file).is_file():
        raise FoundationError(f"{folder} holds no {file}; give a folder that save_pretrained wrote")


def _check_tokenizer(folder: Path) -> None:
    """Raise FoundationError if tokenizer_config.json disagrees with tokenizer.json."""
    if not (folder / "tokenizer_config.json").is_file():
        return
    settings, tokenizer = read_json(folder / "tokenizer_config.json"), read_json(folder / "tokenizer.json")
    if problem := disagreement(settings, tokenizer, read_json(folder / "config.json").get("model_type")):
        raise FoundationError(f"{folder}: {problem}")


def _optional(path: Path) -> Any:
    """Return the JSON value in a file, None if there is no such file."""
    return json_value(path) if path.is_file() else None
