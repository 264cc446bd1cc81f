"""A reference for an adapter's updates, as plain as possible: hooks on the transformers model of its task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rootstock.adapters.spec import Adapter, FoundationSpec, SiteUpdate
from tests.peft_adapters import CLASSES

TYPE_OF = {
    "text-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "feature-extraction": "FEATURE_EXTRACTION",
}


def _hook(update: SiteUpdate) -> Any:
    def changed(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        x = inputs[0]
        if update.input_scale is not None:
            out = module.forward(x * torch.tensor(update.input_scale))
        if update.output_scale is not None:
            out = out * torch.tensor(update.output_scale)
        if update.shift is not None:
            out = out + torch.tensor(update.shift)
        return out + (x @ torch.tensor(update.a).T) @ torch.tensor(update.b) if update.rank else out

    return changed


def grafted(folder: Path, spec: FoundationSpec, adapter: Adapter) -> Any:
    """Return the task's transformers model with the adapter's head, and its updates applied by hooks."""
    task_class = spec.class_for(adapter.task)
    sized = {"num_labels": len(adapter.labels)} if adapter.labels else {}
    model = CLASSES[TYPE_OF[adapter.task]].from_pretrained(folder, **sized).eval()
    for site, update in adapter.weights.sites.items():
        model.get_submodule(task_class.prefix + site).register_forward_hook(_hook(update))
    for name, tensor in adapter.weights.head.items():
        model.get_parameter(name).data.copy_(torch.tensor(tensor))
    return model
