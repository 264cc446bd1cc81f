"""Adapters of every kind on a tiny BERT, with PEFT's own answers: what the torch runner's tests are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Adapter, AdapterWeights, FoundationSpec, HeadSpec, Preprocessing, SiteUpdate
from rootstock.service.engine.core.catalog import foundation_adapter
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.encode.modalities.text import TextSample, pad
from rootstock.service.engine.runners.torch.runner import TorchRunner
from tests.attacks.forge import tiny_bert
from tests.peft_adapters import close, peft_model, save_adapter
from tests.reference_graft import grafted

INPUTS = [[2, 6, 7, 8, 3], [2, 14, 3], [2, 9, 25, 38, 6, 10, 10, 12, 3]]
# Task type, labels, and what goes to PEFT: each field of an update, ranks 1 to 40, whole trunks and top layers.
SAVED: list[tuple[str, int, dict[str, Any]]] = [
    ("SEQ_CLS", 3, {"r": 8}),
    ("SEQ_CLS", 4, {"r": 40, "target_modules": "all-linear"}),
    ("SEQ_CLS", 2, {"r": 1, "layers_to_transform": [2]}),
    ("TOKEN_CLS", 5, {"r": 12, "use_dora": True, "target_modules": ["query", "dense"]}),
    (
        "SEQ_CLS",
        3,
        {"kind": "IA3", "target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"]},
    ),
    ("TOKEN_CLS", 3, {"bias": "all"}),
    ("SEQ_CLS", 3, {"bias": "all", "use_dora": True, "modules_to_save": ["classifier", "pooler"]}),
    ("TOKEN_CLS", 2, {"layers_to_transform": [2]}),
    ("SEQ_CLS", 2, {"r": 2, "layers_to_transform": [1]}),
]
COUNT = len(SAVED) + 7
# What sets them apart, in SAVED.
RANK_8, RANK_40, RANK_1, MIDDLE = 0, 1, 2, 8
HEAD_ONLY, TAGGER_ONLY, POOLER, BARE = 9, 10, 14, 15


@dataclass(frozen=True)
class Made:
    """A foundation, adapters by slot, and what PEFT or transformers itself answers to each of INPUTS."""

    files: FoundationFiles
    spec: FoundationSpec
    adapters: Sequence[Adapter]
    expected: Sequence[Sequence[np.ndarray]]

    def runner(self, adapters: Sequence[int], **kind: Any) -> TorchRunner:
        """A runner on the CPU with these adapters in its first slots."""
        return new_runner(self.files, self.spec, [self.adapters[i] for i in adapters], **kind)


def make(root: Path) -> Made:
    # At the usual 0.02 its layers would hardly react to an adapter.
    files = tiny_bert(root / "tiny", initializer_range=0.2)
    spec = describe(files)
    base = FoundationWeights(files.folder, spec.model_type)
    adapters, models = [], []
    for seed, (task_type, labels, config) in enumerate(SAVED):
        saved = save_adapter(files.folder, root / str(seed), task_type, seed, labels, **config)
        adapters.append(open_bundle(saved.zip(), Limits(), spec).adapter(spec, 64, base))
        models.append(peft_model(files.folder, saved))
    for seed, task in enumerate(("text-classification", "token-classification")):
        head = {"classifier.weight": noise(3, 32, seed=seed), "classifier.bias": noise(3, seed=9 + seed)}
        adapters.append(adapter_of(spec, task, {}, head))
        models.append(grafted(files.folder, spec, adapters[-1]))
    expected = [[raw(model, ids) for ids in INPUTS] for model in models]
    for adapter in [*_linear_adapters(), foundation_adapter(spec)]:
        headless = replace(adapter, weights=AdapterWeights(adapter.weights.sites, {}))
        adapters.append(adapter)
        expected.append(_linear(grafted(files.folder, spec, headless), adapter))
    return Made(files, spec, adapters, expected)


def adapter_of(spec: FoundationSpec, task: str, sites: Any, head: Any) -> Adapter:
    """An adapter with the task's own class."""
    name, labels = spec.class_for(task).name, ("a", "b", "c")
    return Adapter(name, task, None, labels, HeadSpec("hf", name), Preprocessing(64), AdapterWeights(sites, head))


def _linear_adapters() -> list[Adapter]:
    pooler = {"pooler.dense": SiteUpdate(noise(3, 32, seed=3), noise(3, 32, seed=4))}
    top = {"encoder.layer.2.output.dense": SiteUpdate(noise(2, 48, seed=1), noise(2, 32, seed=2))}
    cases: list[tuple[HeadSpec, Any, Any]] = [
        (HeadSpec("linear", pooling="mean", normalize=True), {}, {}),
        (HeadSpec("linear", pooling="cls", normalize=True), top, {"head.weight": noise(3, 32, seed=5)}),
        (
            HeadSpec("linear", pooling="pooler"),
            {},
            {"head.weight": noise(2, 32, seed=6), "head.bias": noise(2, seed=7)},
        ),
        (HeadSpec("linear", pooling="pooler"), pooler, {}),
    ]
    return [
        Adapter("linear", "feature-extraction", None, (), spec, Preprocessing(64), AdapterWeights(sites, head))
        for spec, sites, head in cases
    ]


def noise(*shape: int, seed: int) -> np.ndarray:
    return np.asarray(0.5 * np.random.default_rng(seed).standard_normal(shape), np.float32)


def raw(model: Any, ids: Sequence[int]) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(input_ids=torch.tensor([ids])).logits[0])


def _linear(model: Any, adapter: Adapter) -> list[np.ndarray]:
    """The linear head by its definition, on transformers' hidden states of one unpadded input at a time."""
    answers = []
    for ids in INPUTS:
        with torch.no_grad():
            out = model(input_ids=torch.tensor([ids]))
        hidden = out.last_hidden_state[0].numpy()
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "pooler": out.pooler_output[0].numpy()}[
            adapter.head.pooling
        ]
        if adapter.head.normalize:
            vector = vector / np.sqrt((vector**2).sum())
        weights = adapter.weights.head
        if "head.weight" in weights:
            vector = weights["head.weight"] @ vector + weights.get("head.bias", 0)
        answers.append(vector)
    return answers


def batch_of(rows: Sequence[tuple[int, int]]) -> Batch:
    """Rows of (slot, input)."""
    encoded = [TextSample(INPUTS[i], [0] * len(INPUTS[i]), None, "", 0) for _, i in rows]  # type: ignore[arg-type]
    return pad(encoded, [slot for slot, _ in rows], 0)


def new_runner(
    files: FoundationFiles, spec: FoundationSpec, adapters: Sequence[Adapter], **kind: Any
) -> TorchRunner:
    runner = TorchRunner(files.folder, spec, slots=32, device="cpu", **kind)
    for slot, adapter in enumerate(adapters):
        runner.place(slot, runner.stage(adapter))
    return runner


def check(runner: TorchRunner, rows: Sequence[tuple[int, int]], expected: Sequence[Sequence[np.ndarray]]) -> None:
    for (slot, i), output in zip(rows, runner.run(batch_of(rows)), strict=True):
        assert output.dtype == np.float32
        assert close(output, expected[slot][i]), f"adapter {slot}, input {i}"
