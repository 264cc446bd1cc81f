"""Export a task class's head as an ONNX graph whose inputs are the trunk's outputs and the head's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from rootstock.adapters.spec import TaskClass
from rootstock.service.engine.runners.modules import MaskedLMHead, head_model, logits_of
from rootstock.service.engine.runners.onnx.export.trunk import to_onnx


class _Head(nn.Module):
    """A task class without its trunk. It computes logits from the trunk's outputs and the mask."""

    def __init__(self, model: nn.Module, outputs: list[str]) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits, in the shapes of `logits_of`."""
        stub = cast(Any, self.model).base_model
        stub.outputs = dict(zip(self.outputs, tensors, strict=False))
        mask = tensors[len(self.outputs)]
        return logits_of(cast(Any, self.model)(input_ids=torch.zeros_like(mask), attention_mask=mask))


def export_head(folder: Path, task_class: TaskClass, path: Path) -> bool:
    """Write a task class's head. Return whether it reads only the first token's state."""
    model, width = head_model(folder, task_class.name, labels=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    outputs = ["hidden", "pooled"] if cast(Any, model).base_model.has_pooler else ["hidden"]
    rows, tokens = 2, 7
    inputs = {
        "hidden": torch.randn(rows, tokens, width),
        "pooled": torch.randn(rows, width),
        "attention_mask": torch.ones(rows, tokens, dtype=torch.long),
    }
    inputs = {name: inputs[name] for name in [*outputs, "attention_mask"]}
    wrapped = _Head(model, outputs).eval()
    with torch.no_grad():
        logits = wrapped(*inputs.values())
        first = {name: value if name == "pooled" else value[:, :1] for name, value in inputs.items()}
        from_first = wrapped(*first.values())
    per_token = logits.dim() == 3
    axes = {name: {0: "rows", 1: "tokens"} for name in ("hidden", "attention_mask")}
    axes |= {"pooled": {0: "rows"}, "logits": {0: "rows", 1: "tokens"} if per_token else {0: "rows"}}
    axes = {name: axis for name, axis in axes.items() if name in [*inputs, "logits"]}
    to_onnx(wrapped, tuple(inputs.values()), path, list(inputs), ["logits"], axes, fold=False)
    _weights_as_inputs(path, task_class)
    return not per_token and torch.equal(logits, from_first)


def export_masked_lm(folder: Path, width: int, path: Path) -> None:
    """Write the foundation's own head, with its weights as constants: "hidden" (masks, width) → "logits"."""
    # Constants are not folded, so that the decoder stays equal to the embeddings and is kept once (weights.py).
    hidden = torch.randn(3, width)
    axes = {"hidden": {0: "masks"}, "logits": {0: "masks"}}
    to_onnx(MaskedLMHead(folder), (hidden,), path, ["hidden"], ["logits"], axes, fold=False)


def _weights_as_inputs(path: Path, task_class: TaskClass) -> None:
    """Turn the head's weights from constants into graph inputs with a free label dimension."""
    model = onnx.load(path)
    graph = model.graph
    named = {f"model.{name}": name for name in task_class.head}
    for initializer in list(graph.initializer):
        if initializer.name not in named:
            continue
        name = named[initializer.name]
        shape = ["labels" if d is None else d for d in task_class.head[name]]
        graph.input.append(onnx.helper.make_tensor_value_info(name, initializer.data_type, shape))
        for node in graph.node:
            node.input[:] = [name if i == initializer.name else i for i in node.input]
        graph.initializer.remove(initializer)
    used = {i for node in graph.node for i in node.input}
    for value in [i for i in graph.input if i.name not in used]:
        graph.input.remove(value)
    del graph.value_info[:]
    onnx.save(model, path)
