"""Adapters of PEFT on tiny trunks of images or sound: PEFT's answers, and the same adapters in our words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import IA3Config, LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel

from rootstock.adapters import trunk_class
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import (
    CLASSIFICATION,
    Adapter,
    AdapterWeights,
    FoundationSpec,
    HeadSpec,
    Preprocessing,
    SiteUpdate,
    TaskClass,
)
from tests.media_foundations import make_media_foundation

# Architectures whose code reads the stride of a convolution, which PEFT's layers do not have.
STRIDES_READ = ("mobilenet_v2", "whisper")


@dataclass(frozen=True)
class MediaAdapter:
    """PEFT's model of an adapter, and the adapter as the engine holds it."""

    name: str
    model: Any
    adapter: Adapter

    def answers(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the answer to each input alone: the model's logits, or a linear head's on its states."""
        with torch.no_grad():
            outputs = [self.model(torch.from_numpy(one)[None]) for one in inputs]
        if self.adapter.head.kind == "hf":
            return [out.logits[0].numpy() for out in outputs]
        weight = self.adapter.weights.head["head.weight"]
        return [_pooled(out, self.adapter.head.pooling).numpy() @ weight.T for out in outputs]


def _pooled(output: Any, pooling: str) -> Tensor:
    if pooling == "pooler":
        return output.pooler_output.flatten()
    hidden = output.last_hidden_state[0]
    tokens = hidden.flatten(1).T if hidden.dim() == 3 else hidden
    return tokens.mean(0) if pooling == "mean" else tokens[0]


def media_adapters(folder: Path, spec: FoundationSpec) -> list[MediaAdapter]:
    """Return the trunk alone under heads of every kind, and an adapter of each kind that PEFT can make on it."""
    task_class = spec.classes.get(_class_name(spec))
    heads = [HeadSpec("linear", pooling="mean"), HeadSpec("linear", pooling="cls")]
    if task_class is not None:
        heads.insert(0, HeadSpec("hf", task_class.name))
    if spec.embedding.pooling == "pooler":
        heads.append(HeadSpec("linear", pooling="pooler"))
    adapters = [_media_adapter(f"{head}", None, folder, spec, head, seed) for seed, head in enumerate(heads)]
    configs = _configs(spec, task_class)
    for seed, (name, config) in enumerate(configs.items(), start=len(heads)):
        adapters.append(_media_adapter(name, config, folder, spec, heads[0], seed))
    return adapters


def _configs(spec: FoundationSpec, task_class: TaskClass | None) -> dict[str, Any]:
    """Return PEFT's configs by name. A kind without a module on this trunk is left out."""
    inside = [s for s in spec.sites if task_class is None or task_class.prefix + s in task_class.linears]
    if spec.model_type in STRIDES_READ:
        inside = [site for site in inside if site not in spec.convolutions]
    linears = [site for site in inside if site not in spec.convolutions]
    attention = [site for site in linears if site.endswith(("q_proj", "v_proj"))]
    # PEFT has no IA3 of convolutions along one axis.
    planes = [s for s in inside if s in spec.convolutions and len(spec.convolutions[s].kernel) == 2]
    waves = [s for s in inside if s in spec.convolutions and len(spec.convolutions[s].kernel) == 1]
    some = [*attention, *planes] or linears
    last = [site for site in (*linears, *planes) if spec.layers > 1 and spec.layer_of(site) == spec.layers - 1]
    made: dict[str, tuple[list[str], Any]] = {
        "LoRA of attention": (attention, LoraConfig(r=4)),
        "LoRA of linear layers": (linears, LoraConfig(r=6, lora_alpha=12)),
        "LoRA of images": (planes, LoraConfig(r=3, lora_alpha=6)),
        "LoRA of waves": (waves, LoraConfig(r=3)),
        "LoRA of the last layer": (last, LoraConfig(r=5)),
        "DoRA": (some, LoraConfig(r=2, use_dora=True)),
        "IA3": (some, IA3Config(feedforward_modules=some[-1:])),
        "IA3 of the last layer": (last, IA3Config(feedforward_modules=last[-1:])),
    }
    return {name: _aimed(config, targets, task_class) for name, (targets, config) in made.items() if targets}


def _aimed(config: Any, sites: Sequence[str], task_class: TaskClass | None) -> Any:
    """Return the config with the sites of the trunk as its targets, by their names in the task class."""
    prefix = "" if task_class is None else task_class.prefix
    config.target_modules = {prefix + site for site in sites}
    if isinstance(config, IA3Config):
        config.feedforward_modules = {prefix + site for site in config.feedforward_modules}
    return config


def _class_name(spec: FoundationSpec) -> str:
    task = CLASSIFICATION[spec.modality]
    return next((name for name, one in spec.classes.items() if one.task == task), "")


def _media_adapter(
    name: str, config: Any, folder: Path, spec: FoundationSpec, head: HeadSpec, seed: int
) -> MediaAdapter:
    torch.manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    if head.class_name is None:
        model, prefix = trunk_class.load_trunk(folder).eval(), ""
        tensors["head.weight"] = torch.randn(3, spec.hidden_size)
    else:
        task_class = spec.classes[head.class_name]
        model, prefix = getattr(transformers, head.class_name).from_pretrained(folder).eval(), task_class.prefix
        tensors = {tensor: model.get_parameter(tensor) for tensor in task_class.head}
        with torch.no_grad():
            for tensor in tensors.values():
                tensor.normal_(0, 0.5)
    sites = {}
    if config is not None:
        model = get_peft_model(model, config).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if ".lora_B." in parameter_name:
                    parameter.normal_(0, 0.1)
                elif "ia3_l" in parameter_name or "magnitude" in parameter_name:
                    parameter.mul_(1 + 0.1 * torch.randn(parameter.shape))
        for module_name, module in model.named_modules():
            if hasattr(module, "base_layer"):
                sites[module_name.removeprefix(f"base_model.model.{prefix}")] = _update(module)
    weights = {n: tensor.detach().numpy().copy() for n, tensor in tensors.items()}
    adapter = Adapter(
        f"sha256:{name}", CLASSIFICATION[spec.modality], "single_label_classification", ("a", "b"), head,
        Preprocessing(0), AdapterWeights(sites, weights),
    )  # fmt: skip
    return MediaAdapter(name, model, adapter)


def _update(layer: Any) -> SiteUpdate:
    """Return the update of a layer of PEFT: LoRA, DoRA or IA3, linear or convolutional."""
    base: nn.Module = layer.base_layer
    weight: Tensor = base.weight.detach().flatten(1)
    if hasattr(layer, "ia3_l"):
        scale = layer.ia3_l["default"].detach().flatten().numpy()
        empty = np.zeros((0, weight.shape[1]), np.float32), np.zeros((0, weight.shape[0]), np.float32)
        return SiteUpdate(*empty, **{"input_scale" if layer.is_feedforward else "output_scale": scale})
    a = layer.lora_A["default"].weight.detach().flatten(1)
    b = layer.lora_B["default"].weight.detach().flatten(1) * layer.scaling["default"]
    if not layer.use_dora["default"]:
        return SiteUpdate(a.numpy(), b.T.contiguous().numpy())
    magnitude = layer.lora_magnitude_vector["default"].weight.detach().flatten()
    scale = magnitude / (weight + b @ a).norm(dim=1)
    bias = torch.zeros(1) if base.bias is None else base.bias.detach()
    shift = bias * (1 - scale)
    return SiteUpdate(
        a.numpy(), (b * scale[:, None]).T.contiguous().numpy(), output_scale=scale.numpy(), shift=shift.numpy()
    )


def make_natural_foundation(name: str, folder: Path) -> FoundationFiles:
    """Save a random foundation with random biases, scales and statistics of batch norms, too."""
    # With inputs smaller than those of its training, DINOv2 interpolates its positions.
    changes = {"image_size": 64} if name == "dinov2" else {}
    files = make_media_foundation(name, folder, **changes)
    model = AutoModel.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor_name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor_name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and tensor.numel() > 1 and (tensor == tensor.flatten()[0]).all():
                tensor.add_(torch.randn(tensor.shape) * 0.2)
            elif tensor.is_floating_point() and tensor.dim() > 1 and tensor.std() < 0.05:
                tensor.mul_(0.2 / tensor.std())
    model.save_pretrained(folder)
    return files
