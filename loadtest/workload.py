"""What the benchmarks run: adapters as PEFT saves them, with random weights of natural size, and sentences."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save

from adapters.bundle import Limits, open_bundle, pack
from adapters.spec import Adapter, Array, FoundationSpec, Preprocessing, TaskClass
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
class Workload:
    """Adapters by name, each the zip of a plain PEFT folder, with one sentence of its own."""

    names: tuple[str, ...]
    bundles: tuple[bytes, ...]
    sentences: tuple[str, ...]

    def adapters(self, spec: FoundationSpec) -> list[Adapter]:
        """The adapters in the engine's form, in order of `names`."""
        return [open_bundle(data, Limits(), spec).adapter(spec, RANK) for data in self.bundles]

    def encoded(self, tokenizer: Tokenizer, spec: FoundationSpec) -> list[Encoded]:
        """The sentences' tokens, in order."""
        whole = Preprocessing(spec.max_tokens)
        return [tokenizer.encode(text, whole, truncate=False) for text in self.sentences]


def make_workload(spec: FoundationSpec, tokenizer: Tokenizer, adapters: int, tokens: int) -> Workload:
    """A workload of this many distinct adapters and of sentences that long; the same call gives the same one."""
    task_class = spec.class_for("text-classification")
    return Workload(
        names=tuple(f"bench-{i:03d}" for i in range(adapters)),
        bundles=tuple(_bundle(task_class, seed) for seed in range(adapters)),
        sentences=tuple(_sentences(tokenizer, spec, adapters, tokens)),
    )


def _bundle(task_class: TaskClass, seed: int) -> bytes:
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": list(TARGETS),
        "modules_to_save": ["classifier", "score"],
        "bias": "none",
        "inference_mode": True,
    }
    tensors = _tensors(task_class, np.random.default_rng(seed))
    return pack({"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(tensors)})


def _tensors(task_class: TaskClass, random_state: np.random.Generator) -> dict[str, Array]:
    """A as PEFT initialises it, B and the head as large as a short training leaves them."""
    tensors: dict[str, Array] = {}
    for module, (width_in, width_out) in task_class.linears.items():
        if module.rsplit(".", 1)[-1] not in TARGETS:
            continue
        bound = 1 / math.sqrt(width_in)
        a = random_state.uniform(-bound, bound, (RANK, width_in))
        b = random_state.normal(0, 0.02, (width_out, RANK))
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.astype(np.float32)
    if not tensors:
        raise ValueError(f"{task_class.name} has no module named {' or '.join(TARGETS)}")
    for name, shape in task_class.head.items():
        sized = tuple(LABELS if d is None else d for d in shape)
        tensors[f"base_model.model.{name}"] = random_state.normal(0, 0.1, sized).astype(np.float32)
    return tensors


def _sentences(tokenizer: Tokenizer, spec: FoundationSpec, count: int, tokens: int) -> list[str]:
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
