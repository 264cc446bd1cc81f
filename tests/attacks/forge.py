"""Uploads made by hand: a good bundle for a tiny BERT, and the tools to spoil it."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from rootstock.adapters.bundle import Golden, Limits, Manifest, PlainFields, open_bundle, pack, write_bundle
from rootstock.adapters.bundle.archive import CARD, CONFIG, GOLDEN, MANIFEST, WEIGHTS
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec, HeadSpec, Preprocessing, Rejected

LIMITS = Limits(max_bundle_bytes=2**20, max_unpacked_bytes=2**22, max_text_bytes=2**18, max_rank=16)
LABELS = ("no", "perhaps", "yes")
TRUNK = "base_model.model.bert.encoder.layer"
QUERY = f"{TRUNK}.0.attention.self.query"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(59))]


def tiny_bert(folder: Path, **config: Any) -> FoundationFiles:
    """A random three-layer BERT with a tokenizer.json, saved by transformers: the same on every call."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    sizes |= {"vocab_size": len(WORDS), "max_position_embeddings": 64, **config}
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    save_tokenizer(folder, WORDS)
    return FoundationFiles(folder, "tiny/bert", None)


def save_tokenizer(folder: Path, words: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def good_config(**changes: Any) -> dict[str, Any]:
    """An adapter_config.json as PEFT writes it, with some keys changed."""
    return {
        "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 4, "lora_alpha": 8,
        "target_modules": ["query", "value"], "modules_to_save": ["classifier", "score"], "bias": "none",
        "fan_in_fan_out": False, **changes,
    }  # fmt: skip


def good_tensors(rank: int = 4, labels: int = len(LABELS)) -> dict[str, np.ndarray]:
    """The tensors of `good_config` on the tiny BERT."""
    rng = np.random.default_rng(0)
    sites = [f"{TRUNK}.{i}.attention.self.{kind}" for i in range(3) for kind in ("query", "value")]
    shapes = {f"{site}.lora_A.weight": (rank, 32) for site in sites}
    shapes |= {f"{site}.lora_B.weight": (32, rank) for site in sites}
    shapes |= {"base_model.model.classifier.weight": (labels, 32), "base_model.model.classifier.bias": (labels,)}
    return {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}


def plain_files(
    tensors: Mapping[str, np.ndarray] | bytes | None = None, config: Mapping[str, Any] | bytes | None = None
) -> dict[str, bytes]:
    """A plain PEFT folder; tensors and config are the good ones unless given."""
    config = good_config() if config is None else config
    tensors = good_tensors() if tensors is None else tensors
    return {
        CONFIG: config if isinstance(config, bytes) else json.dumps(config).encode(),
        WEIGHTS: tensors if isinstance(tensors, bytes) else save(dict(tensors)),
    }


def good_manifest(spec: FoundationSpec, **changes: Any) -> Manifest:
    """The manifest of the good files, as the dataclass."""
    fields: dict[str, Any] = {
        "task": "text-classification",
        "problem_type": "single_label_classification",
        "head": HeadSpec("hf", class_name="BertForSequenceClassification"),
        "labels": LABELS,
        "preprocessing": Preprocessing(64),
        "foundation": {"fingerprint": spec.fingerprint, "name": spec.name, "revision": None},
        "targets": tuple(
            f"encoder.layer.{i}.attention.self.{kind}" for i in range(3) for kind in ("query", "value")
        ),
        "files": {},
        "evaluation": {"accuracy": 0.75},
        "provenance": {"seed": 13},
        "license": "Apache-2.0",
    }  # fmt: skip
    return Manifest(**{**fields, **changes})


def good_files(
    spec: FoundationSpec, files: Mapping[str, bytes] | None = None, **changes: Any
) -> dict[str, bytes]:
    """Every member of a bundle by name, bundle.json with the hashes of the others included."""
    golden = Golden(("word1 word2", ("word3", "word4")), (np.float32([0.1, -2, 3]), np.float32([1, 2, 3])))
    others = {**(files or plain_files()), GOLDEN: golden.to_bytes(), CARD: b"---\nlicense: apache-2.0\n---\n"}
    bundle = write_bundle(good_manifest(spec, **changes), others)
    return {**bundle.files, MANIFEST: bundle.manifest.to_bytes()}


def with_json(files: Mapping[str, bytes], member: str, /, **changes: Any) -> dict[str, bytes]:
    """The same files with some keys of a JSON member set; None of them is checked."""
    value = {**json.loads(files[member]), **changes}
    return {**files, member: json.dumps(value).encode()}


def raw_safetensors(header: Mapping[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with whatever header, stating whatever header length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


@contextmanager
def at_most(mebibytes: float) -> Iterator[None]:
    """Fails where Python and numpy together held more than this at any time inside."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * 2**20, f"{peak / 2**20:.1f} MiB were held"


def refused(
    upload: bytes | Mapping[str, bytes],
    spec: FoundationSpec,
    check: str,
    where: str,
    *said: object,
    plain: PlainFields | None = None,
    base: FoundationWeights | None = None,
) -> Rejected:
    """Open an upload in bounded memory: it must fail this check, at this place, with all of this said."""
    data = upload if isinstance(upload, bytes) else pack(upload)
    with at_most(24), pytest.raises(Rejected) as caught:
        open_bundle(data, LIMITS, spec, plain).adapter(spec, LIMITS.max_rank, base)
    error = caught.value
    assert error.check == check, error
    assert where in error.where, error
    for part in said:
        assert str(part) in error.message, error
    return error
