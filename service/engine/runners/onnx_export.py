"""The ONNX form of a foundation, written once: three trunk graphs on one weights file, and each head.

A trunk graph adds to each site's output `(x @ A^T) @ B`, with A (rows, r, in) and B (rows, r, out) as graph
inputs named `<site>.A` and `<site>.B`: every row of a batch brings its own update, and r is a dynamic
dimension of each site, 0 where no row targets it. The variants differ in which sites they hold, so that a
batch pays for no more than it uses. Heads take the trunk's outputs and their own weights as inputs.

Imports torch, transformers and onnx; nothing that serves imports this module.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from adapters.spec import FoundationSpec, TaskClass
from service.engine.runners.hf import SiteLinear, graft_sites, head_model, load_trunk

# The TorchScript exporter: for these graphs ONNX Runtime runs its output 5 to 8 % faster than the dynamo one's,
# and it writes them in a tenth of the time (docs/adr/0003).
_OPSET = 17
_SHARE_FROM_BYTES = 1024
VARIANTS = ("bare", "default", "all")

Progress = Callable[[str], None]


def export(folder: Path, spec: FoundationSpec, target: Path, progress: Progress = lambda _: None) -> None:
    """Write the ONNX form of the foundation in `folder` to the new folder `target`, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
        out = Path(temporary) / "export"
        out.mkdir()
        shutil.copyfile(folder / "tokenizer.json", out / "tokenizer.json")
        variants = {}
        for variant in VARIANTS:
            sites = sites_of(variant, spec)
            progress(f"trunk {variant}: {len(sites)} sites")
            _export_trunk(folder, spec, sites, out / f"trunk-{variant}.onnx")
            variants[variant] = sites
        _share_weights(out)
        for task_class in spec.classes.values():
            if task_class.head:
                progress(f"head {task_class.name}")
                _export_head(folder, task_class, out / f"head-{task_class.name}.onnx")
        files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
        content = {"spec": spec.to_json(), "variants": variants, "files": files}
        (out / "foundation.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(out, target)


def sites_of(variant: str, spec: FoundationSpec) -> list[str]:
    """The sites of a variant: none, PEFT's own default targets for the architecture, or all."""
    if variant == "bare":
        return []
    if variant == "all":
        return sorted(spec.sites)
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    targets = DEFAULTS.get(spec.model_type, [])
    return sorted(s for s in spec.sites if any(s == t or s.endswith(f".{t}") for t in targets))


class _Trunk(nn.Module):
    """The trunk with its sites fed from graph inputs; gives hidden states and the pooler's output, if any."""

    def __init__(self, trunk: nn.Module, inputs: tuple[str, ...], sites: list[SiteLinear]) -> None:
        super().__init__()
        self.trunk = trunk
        self.inputs = inputs
        self.sites = sites

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.inputs, tensors, strict=False))
        pairs = tensors[len(self.inputs) :]
        for i, site in enumerate(self.sites):
            site.a, site.b = pairs[2 * i], pairs[2 * i + 1]
        output = self.trunk(**named)
        for site in self.sites:
            site.a = site.b = None
        pooled = getattr(output, "pooler_output", None)
        hidden = output.last_hidden_state
        return (hidden,) if pooled is None else (hidden, pooled)


def _export_trunk(folder: Path, spec: FoundationSpec, sites: list[str], path: Path) -> None:
    trunk = load_trunk(folder, "eager")
    grafted = graft_sites(trunk, sites)
    ids = torch.randint(4, 100, (3, 7))
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    arguments = [feeds[name] for name in spec.inputs]
    names = list(spec.inputs)
    axes: dict[str, dict[int, str]] = {name: {0: "rows", 1: "tokens"} for name in names}
    for i, site in enumerate(sites):
        width_in, width_out = spec.sites[site]
        arguments += [torch.randn(3, 4, width_in), torch.randn(3, 4, width_out)]
        names += [f"{site}.A", f"{site}.B"]
        axes |= {f"{site}.A": {0: "rows", 1: f"r{i}"}, f"{site}.B": {0: "rows", 1: f"r{i}"}}
    wrapped = _Trunk(trunk, spec.inputs, [grafted[s] for s in sites]).eval()
    outputs = ["hidden", "pooled"][: len(wrapped(*arguments))]
    axes |= {"hidden": {0: "rows", 1: "tokens"}, "pooled": {0: "rows"}}
    _to_onnx(
        wrapped, tuple(arguments), path, names, outputs, {k: v for k, v in axes.items() if k in names + outputs}
    )


class _Head(nn.Module):
    """A task class without its trunk: logits from the trunk's outputs."""

    def __init__(self, model: nn.Module, outputs: list[str]) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, *tensors: Tensor) -> Tensor:
        stub = cast(Any, self.model).base_model
        stub.given = dict(zip(self.outputs, tensors, strict=True))
        logits: Tensor = cast(Any, self.model)(
            input_ids=torch.zeros(tensors[0].shape[:2], dtype=torch.long)
        ).logits
        return logits


def _export_head(folder: Path, task_class: TaskClass, path: Path) -> None:
    model, hidden_size = head_model(folder, task_class.name, labels=3)
    outputs = ["hidden", "pooled"] if cast(Any, model).base_model.has_pooler else ["hidden"]
    given = {"hidden": torch.randn(2, 7, hidden_size), "pooled": torch.randn(2, hidden_size)}
    axes = {"hidden": {0: "rows", 1: "tokens"}, "pooled": {0: "rows"}, "logits": {0: "rows", 1: "tokens"}}
    if task_class.task == "text-classification":
        axes["logits"] = {0: "rows"}
    wrapped = _Head(model, outputs).eval()
    kept = {k: v for k, v in axes.items() if k in [*outputs, "logits"]}
    _to_onnx(wrapped, tuple(given[o] for o in outputs), path, outputs, ["logits"], kept, fold=False)
    _weights_as_inputs(path, task_class)


def _to_onnx(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
    fold: bool = True,
) -> None:
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            module,
            arguments,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=_OPSET,
            do_constant_folding=fold,
            dynamo=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every Python branch it fixes; the exported graphs are checked against torch instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _weights_as_inputs(path: Path, task_class: TaskClass) -> None:
    """Turn the head's weights from constants into graph inputs whose label dimension is free."""
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


def _share_weights(out: Path) -> None:
    """Move the trunk graphs' constants to one file, each once: the variants hold the same foundation."""
    places: dict[bytes, tuple[int, int]] = {}
    with (out / "weights.bin").open("wb") as weights:
        for variant in VARIANTS:
            path = out / f"trunk-{variant}.onnx"
            model = onnx.load(path)
            for tensor in model.graph.initializer:
                data = tensor.raw_data
                if len(data) < _SHARE_FROM_BYTES:
                    continue
                if data not in places:
                    weights.write(b"\0" * (-weights.tell() % 4096))
                    places[data] = (weights.tell(), len(data))
                    weights.write(data)
                _point_at(tensor, *places[data])
            onnx.save(model, path)


def _point_at(tensor: Any, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", "weights.bin"), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
