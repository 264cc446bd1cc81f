"""Writes and reads an adapter's files: PEFT's two, with the head among the tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS
from rootstock.training.errors import RecipeError
from rootstock.training.network.network import Network, simple_head
from rootstock.training.network.network_spec import InitialAdapter, NetworkSpec
from rootstock.training.network.trunk import head_modules, known_warnings, task_model

if TYPE_CHECKING:
    import torch


def save(network: Network, spec: NetworkSpec, folder: Path) -> dict[str, bytes]:
    """Write PEFT's two files of the adapter into `folder` and return them; equal adapters give equal bytes.

    They name no folder of this machine: the base model goes by the foundation's public name.
    """
    import torch
    from safetensors.torch import load_file
    from safetensors.torch import save as to_safetensors

    tensors: dict[str, torch.Tensor] = {}
    config: dict[str, Any] = {"peft_type": None, "task_type": spec.task.peft_type}
    if hasattr(network.model, "peft_config"):
        model: Any = network.model.to("cpu")
        # "auto" asks the hub whether the vocabulary has grown, which an offline machine cannot answer.
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = spec.files.name
        config["revision"] = spec.files.revision
        config["target_modules"].sort()
        config["modules_to_save"] = (head_modules(network.task_class) or None) if network.head is None else None
        # With SEQ_CLS PEFT would look for a classifier of the task class; this head is a separate linear layer.
        config["task_type"] = spec.task.peft_type if network.head is None else None
        tensors = load_file(folder / WEIGHTS)
    elif network.head is None:
        head = simple_head(network)
        layer = next(iter(network.task_class.head)).rpartition(".")[0]
        tensors = {f"{layer}.weight": head.weight.detach(), f"{layer}.bias": head.bias.detach()}
    if network.head is not None:
        tensors |= {"head.weight": network.head.weight.detach(), "head.bias": network.head.bias.detach()}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    dtype: torch.dtype = getattr(torch, spec.save_dtype)
    exact = ("head.weight", "head.bias") if spec.exact_head else ()
    plain = {
        name: tensor.cpu().to(torch.float32 if name in exact else dtype).contiguous()
        for name, tensor in sorted(tensors.items())
    }
    (folder / WEIGHTS).write_bytes(to_safetensors(plain, {"format": "pt"}))
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def load(folder: Path, spec: NetworkSpec) -> Network:
    """Return a new network with the adapter in `folder`, which PEFT loads from its files alone."""
    import torch
    from safetensors.torch import load_file
    from torch import nn

    tensors = load_file(folder / WEIGHTS)
    model = task_model(spec)
    if json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("peft_type") is not None:
        from peft import PeftModel

        with known_warnings():
            model = PeftModel.from_pretrained(cast(Any, model), folder)
    task_class = spec.task_class
    head = None
    if "head.weight" in tensors:
        head = nn.Linear(spec.foundation.hidden_size, spec.labels)
    network = Network(model, head, spec.foundation, task_class, 0)
    if head is not None or not hasattr(model, "peft_config"):
        layer = simple_head(network)
        name = "head" if head is not None else next(iter(task_class.head)).rpartition(".")[0]
        with torch.no_grad():
            layer.weight.copy_(tensors[f"{name}.weight"])
            layer.bias.copy_(tensors[f"{name}.bias"])
    network.train(False)
    return network


def load_initial_adapter(network: Network, initial: InitialAdapter) -> None:
    """Give the network's adapter the weights of another. Raise RecipeError if its sites or ranks differ."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    path = initial.folder / WEIGHTS
    try:
        tensors = load_file(path)
    except OSError as error:
        raise RecipeError(f"{initial.origin}: {path}: cannot be read: {error}") from None
    sites = {n: t for n, t in tensors.items() if ".lora_" in n or ".ia3_" in n}
    ours = {
        n.replace(".default", ""): tuple(p.shape)
        for n, p in network.model.named_parameters()
        if ".lora_" in n or ".ia3_" in n
    }
    theirs = {n: tuple(t.shape) for n, t in sites.items()}
    if ours != theirs:
        differing = sorted(set(ours.items()) ^ set(theirs.items()))[0][0]
        raise RecipeError(
            f"{initial.origin}: {differing} has the shape {theirs.get(differing)} in that adapter and "
            f"{ours.get(differing)} in this one; give peft the same method, r, target_modules and "
            "layers_to_transform"
        )
    set_peft_model_state_dict(cast(Any, network.model), sites)
