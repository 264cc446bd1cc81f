"""An adapter on disk: PEFT's two files with the head among the tensors, written, read back, and started from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec
from rootstock.training.errors import RecipeError
from rootstock.training.network.network import Network, simple_head
from rootstock.training.network.trunk import head_modules, known_warnings, task_model
from rootstock.training.recipe.recipe import Recipe
from rootstock.training.recipe.recipe_file import RecipeFile

if TYPE_CHECKING:
    import torch

_PEFT_PREFIX = "base_model.model."


def save(network: Network, recipe: Recipe, folder: Path, files: FoundationFiles) -> dict[str, bytes]:
    """PEFT's two files of the trained adapter, in `folder` and returned; the same adapter gives the same bytes.

    Nothing in them tells where they were made: the base model goes by the foundation's public name.
    """
    from safetensors.torch import load_file
    from safetensors.torch import save as serialised

    tensors: dict[str, torch.Tensor] = {}
    config: dict[str, Any] = {"peft_type": None, "task_type": recipe.task_type}
    if hasattr(network.model, "peft_config"):
        saved: Any = network.model.to("cpu")
        # "auto" asks the hub whether the vocabulary has grown, which an offline machine cannot answer.
        saved.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = files.name
        config["revision"] = files.revision
        config["target_modules"].sort()
        config["modules_to_save"] = head_modules(network.task_class) if network.head is None else None
        # With SEQ_CLS PEFT would look for a saved classifier; the head here is a linear one of its own.
        config["task_type"] = recipe.task_type if network.head is None else None
        tensors = load_file(folder / WEIGHTS)
    elif network.head is None:
        head = simple_head(network)
        layer = next(iter(network.task_class.head)).rpartition(".")[0]
        tensors = {f"{layer}.weight": head.weight.detach(), f"{layer}.bias": head.bias.detach()}
    if network.head is not None:
        tensors |= {"head.weight": network.head.weight.detach(), "head.bias": network.head.bias.detach()}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    plain = {name: tensor.cpu().contiguous() for name, tensor in sorted(tensors.items())}
    (folder / WEIGHTS).write_bytes(serialised(plain, {"format": "pt"}))
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def load(folder: Path, recipe: Recipe, labels: int, files: FoundationFiles, spec: FoundationSpec) -> Network:
    """A new network with the adapter that is saved in `folder`, as anyone who has its files loads it: by PEFT."""
    import torch
    from safetensors.torch import load_file
    from torch import nn

    from rootstock.training.network.trunk import TASKS

    tensors = load_file(folder / WEIGHTS)
    model = task_model(files, recipe, labels)
    if json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("peft_type") is not None:
        from peft import PeftModel

        with known_warnings():
            model = PeftModel.from_pretrained(cast(Any, model), folder)
    task_class = spec.class_for(TASKS[recipe.task_type])
    head = None
    if "head.weight" in tensors:
        head = nn.Linear(spec.hidden_size, labels)
    network = Network(model, head, spec, task_class, 0)
    if head is not None or not hasattr(model, "peft_config"):
        layer = simple_head(network)
        name = "head" if head is not None else next(iter(task_class.head)).rpartition(".")[0]
        with torch.no_grad():
            layer.weight.copy_(tensors[f"{name}.weight"])
            layer.bias.copy_(tensors[f"{name}.bias"])
    network.train(False)
    return network


def start_from(network: Network, source: RecipeFile) -> None:
    """Set the network's adapter to a saved one's; RecipeError where its sites or ranks are others."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    named = source.recipe.peft.init_from_adapter or ""
    folder, where = source.resolve(named), f"{source.path}: peft.init_from_adapter"
    try:
        tensors = load_file(folder / WEIGHTS)
    except OSError as error:
        raise RecipeError(f"{where}: {folder / WEIGHTS}: cannot be read: {error}") from None
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
            f"{where}: {differing} has the shape {theirs.get(differing)} there and {ours.get(differing)} here; "
            "give peft the same method, r, target_modules and layers_to_transform"
        )
    set_peft_model_state_dict(cast(Any, network.model), sites)
