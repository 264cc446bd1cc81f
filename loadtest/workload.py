"""What the benchmarks run: adapters as PEFT saves them, with random weights of natural size, and sentences."""

from __future__ import annotations

import io
import json
import math
import random
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save

from adapters.bundle import Limits, open_bundle
from adapters.spec import Adapter, Array, FoundationSpec, Preprocessing
from service.engine.tokenizer import Encoded, Tokenizer

LABELS = 4
RANK = 8
TARGETS = ("query", "value")

_WORDS = """
the a my your our this that red blue small large old new good bad early late parcel order book phone
screen battery music game film room hotel food water train road river city market story question answer price
money card account bank letter number name day week month year was is came went broke works stopped arrived
looks sounds feels never always again today and but because with without before after in on at for
"""


@dataclass(frozen=True)
class Kind:
    """What sequence classifiers of a workload change: query and value of some layers (None: all) by updates of
    `rank`, or with rank 0 nothing: a head alone. The i-th has `labels` labels, or with `varied` i more than that.
    """

    rank: int = RANK
    layers: tuple[int, ...] | None = None
    labels: int = LABELS
    varied: bool = False


WHOLE = Kind()
HEAD_ONLY = Kind(rank=0, labels=2, varied=True)


def top_third(spec: FoundationSpec) -> Kind:
    """Adapters that leave the lower two thirds of the layers as they are."""
    return Kind(layers=tuple(range(spec.layers - spec.layers // 3, spec.layers)))


@dataclass(frozen=True)
class Workload:
    """Adapters by name, each the zip of a plain PEFT folder, with one sentence of its own."""

    names: tuple[str, ...]
    bundles: tuple[bytes, ...]
    sentences: tuple[str, ...]

    def adapters(self, spec: FoundationSpec) -> list[Adapter]:
        """The adapters in the engine's form, in order of `names`."""
        limits = Limits()
        return [open_bundle(data, limits, spec).adapter(spec, limits.max_rank) for data in self.bundles]

    def encoded(self, tokenizer: Tokenizer, spec: FoundationSpec) -> list[Encoded]:
        """The sentences' tokens, in order."""
        whole = Preprocessing(spec.max_tokens)
        return [tokenizer.encode(text, whole, truncate=False) for text in self.sentences]


def make_workload(
    spec: FoundationSpec, tokenizer: Tokenizer, adapters: int, tokens: int, kind: Kind = WHOLE
) -> Workload:
    """A workload of this many distinct adapters and of sentences that long; the same call gives the same one."""
    return Workload(
        names=tuple(f"bench-{i:03d}" for i in range(adapters)),
        bundles=tuple(zipped(folder_of(spec, kind, i)) for i in range(adapters)),
        sentences=tuple(sentences(tokenizer, spec, adapters, tokens)),
    )


def folder_of(spec: FoundationSpec, kind: Kind, index: int) -> dict[str, bytes]:
    """The files of the plain PEFT folder of a kind's adapter number `index`."""
    config: dict[str, Any] = {"peft_type": None, "task_type": "SEQ_CLS"}
    if kind.rank:
        config |= {
            "peft_type": "LORA",
            "r": kind.rank,
            "lora_alpha": 2 * kind.rank,
            "target_modules": list(TARGETS),
            "modules_to_save": ["classifier", "score"],
            "bias": "none",
            "inference_mode": True,
        }
        if kind.layers is not None:
            config["layers_to_transform"] = list(kind.layers)
    tensors = _tensors(spec, kind, index)
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(tensors)}


def zipped(files: Mapping[str, bytes]) -> bytes:
    """The files as a zip, not compressed: random weights hardly are smaller for it, and thousands are made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def sentences(tokenizer: Tokenizer, spec: FoundationSpec, count: int, tokens: int) -> list[str]:
    """Sentences of exactly `tokens` tokens, special tokens included."""
    whole = Preprocessing(spec.max_tokens)

    def length(text: str) -> int:
        return len(tokenizer.encode(text, whole, truncate=False).ids)

    special = length("")
    single = [word for word in _WORDS.split() if length(f"{word} {word}") == special + 2]
    picked = random.Random(tokens)  # noqa: S311 - sentences, not secrets
    texts = [" ".join(picked.choices(single, k=tokens - special)) for _ in range(count)]
    if any(length(text) != tokens for text in texts):
        raise ValueError(f"the tokenizer gives these words no sentences of exactly {tokens} tokens")
    return texts


def _tensors(spec: FoundationSpec, kind: Kind, index: int) -> dict[str, Array]:
    """A as PEFT initialises it, B and the head as large as a short training leaves them."""
    task_class = spec.class_for("text-classification")
    random_state = np.random.default_rng(index)
    tensors: dict[str, Array] = {}
    for module, (width_in, width_out) in task_class.linears.items() if kind.rank else ():
        layer = spec.layer_of(module.removeprefix(task_class.prefix))
        if module.rsplit(".", 1)[-1] not in TARGETS or (kind.layers is not None and layer not in kind.layers):
            continue
        bound = 1 / math.sqrt(width_in)
        a = random_state.uniform(-bound, bound, (kind.rank, width_in))
        b = random_state.normal(0, 0.02, (width_out, kind.rank))
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.astype(np.float32)
    if kind.rank and not tensors:
        raise ValueError(f"{task_class.name} has no module named {' or '.join(TARGETS)}")
    labels = kind.labels + (index if kind.varied else 0)
    for name, shape in task_class.head.items():
        sized = tuple(labels if d is None else d for d in shape)
        tensors[f"base_model.model.{name}"] = random_state.normal(0, 0.1, sized).astype(np.float32)
    return tensors
