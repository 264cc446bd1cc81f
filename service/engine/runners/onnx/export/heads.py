"""Export a task class's head as an ONNX graph whose inputs are the trunk's outputs and the head's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from rootstock.adapters.spec import FoundationSpec, TaskClass
from rootstock.service.engine.runners.modules import MaskedLMHead, TaskHead
from rootstock.service.engine.runners.onnx.export.trunk import is_sequence, to_onnx

_MASK = "attention_mask"


class _Head(nn.Module):
    """A head as a function of the trunk's outputs and, for texts, the mask."""

    def __init__(self, head: TaskHead, names: list[str]) -> None:
        super().__init__()
        self.head = head
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the logits, in the shapes of `logits_of`."""
        inputs = dict(zip(self.names, tensors, strict=True))
        mask = inputs.pop(_MASK, None)
        logits: Tensor = self.head(inputs, mask)
        return logits


def export_head(
    folder: Path, spec: FoundationSpec, task_class: TaskClass, outputs: Mapping[str, tuple[int, ...]], path: Path
) -> bool:
    """Write a task class's head. Return whether it reads only the first token's state.

    `outputs` holds the shapes of the trunk's outputs for one input.
    """
    head = TaskHead(folder, spec, task_class, labels=3)
    for parameter in head.parameters():
        parameter.normal_()
    rows = 2
    inputs = {name: torch.randn(rows, *shape) for name, shape in outputs.items()}
    sequence = is_sequence(inputs["hidden"])
    if spec.modality == "text":
        inputs[_MASK] = torch.ones(rows, outputs["hidden"][0], dtype=torch.long)
    wrapped = _Head(head, list(inputs)).eval()
    tokens = {1: "tokens"} if sequence else {}
    logits = wrapped(*inputs.values())
    per_token = logits.dim() == 3
    axes: dict[str, dict[int, str]] = {name: {0: "rows"} | tokens for name in inputs if name != "pooled"}
    axes["logits"] = {0: "rows"} | (tokens if per_token else {})
    if "pooled" in inputs:
        axes["pooled"] = {0: "rows"}
    to_onnx(wrapped, tuple(inputs.values()), path, list(inputs), ["logits"], axes, fold=False)
    _weights_as_inputs(path, task_class)
    if not sequence or per_token:
        return False
    first = {name: value if name == "pooled" else value[:, :1] for name, value in inputs.items()}
    # A head that needs more tokens may give numbers that are not a number.
    return torch.equal(logits, wrapped(*first.values()))


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
    named = {f"head.model.{name}": name for name in task_class.head}
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
