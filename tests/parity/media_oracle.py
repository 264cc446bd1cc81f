"""PEFT on a tiny foundation of images or recordings: it makes an adapter of any cell, and answers for it."""

from __future__ import annotations

import copy
import functools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from peft import PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.adapters.trunk_class import load_trunk
from tests.media_foundations import make_media_foundation
from tests.parity.matrix import Cell
from tests.parity.media_matrix import MEDIA_KINDS, TARGETS, media_options
from tests.parity.oracle import move
from tests.peft_adapters import without_wrong_warnings

_AUTO = {"image": "AutoModelForImageClassification", "audio": "AutoModelForAudioClassification"}


@dataclass(frozen=True)
class TinyMedia:
    """A tiny foundation of images or recordings in a folder as transformers saves it."""

    folder: Path
    spec: FoundationSpec
    weights: FoundationWeights


def make_tiny_media(architecture: str, folder: Path) -> TinyMedia:
    """Save a model whose tensors are all random: no bias is zero and no normalisation the identity."""
    files = make_media_foundation(architecture, folder, **TARGETS[architecture].config)
    model = transformers.AutoModel.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.2 * torch.randn_like(parameter)
            parameter.copy_(_scaled(noise) if parameter.dim() > 1 else parameter + noise)
    spec = describe(files)
    _measure_batch_norms(model, spec)
    model.save_pretrained(folder)
    spec = describe(files)
    return TinyMedia(folder, spec, FoundationWeights(folder, spec.model_type))


def _scaled(noise: Tensor) -> Tensor:
    """A weight under which the states do not grow from layer to layer."""
    return noise * min(1.0, 5 / noise[0].numel() ** 0.5)


def _measure_batch_norms(model: nn.Module, spec: FoundationSpec) -> None:
    """Take the statistics of batch normalisations from random inputs, so that the states do not vanish."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            model.train()(**{spec.inputs[0]: torch.randn(128, *cast("tuple[int, ...]", spec.input_shape))})


class MediaOracle:
    """Adapters by `save_pretrained`, answers by `PeftModel.from_pretrained`; fp32, one input at a time."""

    def __init__(self, tiny: TinyMedia) -> None:
        self._tiny = tiny

    def base(self, cell: Cell | None) -> Any:
        """A new model of the class that the cell's task has; without a cell the trunk."""
        spec = self._tiny.spec
        if cell is None or cell.task == "embedding":
            return copy.deepcopy(_trunk(self._tiny.folder))
        return copy.deepcopy(_classifier(self._tiny.folder, _AUTO[spec.modality], labels(cell)))

    def save(self, cell: Cell, folder: Path) -> None:
        """An adapter whose every trained tensor differs from its start, in the folder that PEFT makes of it.

        A linear head's tensors are added to PEFT's file.
        """
        kind = MEDIA_KINDS[cell.kind]
        torch.manual_seed(zlib.crc32("/".join(cell).encode()))
        model = self.base(cell)
        if kind.peft is None:
            folder.mkdir(parents=True)
            (folder / "adapter_config.json").write_text(json.dumps({"peft_type": None, "task_type": None}))
            tensors = {}
            if cell.task == "own-head":
                head = self._tiny.spec.class_for(f"{self._tiny.spec.modality}-classification").head
                named = dict(model.named_parameters())
                tensors = {n: named[n].detach() + 0.15 * torch.randn_like(named[n]) for n in head}
        else:
            config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind.peft)]
            with without_wrong_warnings():
                model = get_peft_model(model, config(**media_options(cell)))
                move(model, TARGETS[cell.architecture].moved)
                # A third of the time to save, and no part of the adapter.
                model.create_or_update_model_card = lambda _: None
                model.save_pretrained(folder)
            tensors = load_file(folder / "adapter_model.safetensors")
            if cell.task == "linear-head":
                # With `bias: all` PEFT saves the biases of the class's head too.
                inside = f"base_model.model.{self._prefix()}"
                tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(inside)}
        if cell.task == "linear-head" or (cell.kind == "head" and cell.task == "embedding"):
            width = self._tiny.spec.hidden_size
            tensors |= {
                "head.weight": width**-0.5 * torch.randn(labels(cell), width),
                "head.bias": 0.2 * torch.randn(labels(cell)),
            }
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})

    def answers(self, cell: Cell | None, folder: Path | None, inputs: Sequence[Array]) -> list[Array]:
        """The raw output of each input alone; without a cell that of the bare foundation."""
        model, head = self.base(cell).eval(), {}
        if cell is not None and folder is not None:
            model, head = self.reloaded(cell, folder)
        with torch.inference_mode():
            return [self._raw(cell, model, head, torch.from_numpy(value)[None]).numpy() for value in inputs]

    def reloaded(self, cell: Cell, folder: Path) -> tuple[Any, dict[str, Tensor]]:
        """The model with what is in the folder, without PEFT's class around it, and a linear head beside it."""
        tensors = load_file(folder / "adapter_model.safetensors")
        model = self.base(cell)
        if MEDIA_KINDS[cell.kind].peft is None:
            model.load_state_dict(tensors, strict=False)
        else:
            with without_wrong_warnings():
                model = PeftModel.from_pretrained(model, folder).get_base_model()
        return model.eval(), {n: t for n, t in tensors.items() if n in ("head.weight", "head.bias")}

    def _prefix(self) -> str:
        spec = self._tiny.spec
        return spec.class_for(f"{spec.modality}-classification").prefix

    def _raw(self, cell: Cell | None, model: Any, head: dict[str, Tensor], value: Tensor) -> Tensor:
        spec = self._tiny.spec
        feed = {spec.inputs[0]: value}
        if cell is not None and cell.task == "own-head":
            logits: Tensor = model(**feed).logits[0]
            return logits
        if cell is not None and cell.task == "linear-head":
            model = model.get_submodule(self._prefix().removesuffix("."))
        vector = pooled(model(**feed), spec.embedding.pooling)[0]
        if cell is not None and cell.task == "linear-head" and normalizes(cell):
            vector = nn.functional.normalize(vector, dim=-1)
        return nn.functional.linear(vector, head["head.weight"], head["head.bias"]) if head else vector


def pooled(output: Any, pooling: str) -> Tensor:
    """One vector for each input, by a pooling, of a trunk's output: tokens, or a grid with the width first."""
    hidden: Tensor = output.last_hidden_state
    if pooling == "pooler":
        return torch.as_tensor(output.pooler_output).flatten(1)
    return hidden[:, 0] if pooling == "cls" else (hidden if hidden.dim() == 3 else hidden.flatten(2).mT).mean(1)


def labels(cell: Cell) -> int:
    """How many labels the adapter of a cell has: from 2 to 4."""
    return 2 + list(MEDIA_KINDS).index(cell.kind) % 3


def normalizes(cell: Cell) -> bool:
    """Whether the linear head of a cell normalises the vector: that of every other kind."""
    return list(MEDIA_KINDS).index(cell.kind) % 2 == 1


@functools.lru_cache(maxsize=2)
def _trunk(folder: Path) -> Any:
    return load_trunk(folder)


# Enough for all label counts of one architecture.
@functools.lru_cache(maxsize=3)
def _classifier(folder: Path, auto: str, count: int) -> Any:
    return getattr(transformers, auto).from_pretrained(folder, num_labels=count)
