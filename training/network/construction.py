"""New networks: the foundation with an adapter and a head, or the same from random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootstock.training.network.files import load_initial_adapter
from rootstock.training.network.network import Network
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.network.trunk import graft, task_model

if TYPE_CHECKING:
    import torch
    from torch import nn


def new_network(spec: NetworkSpec, method: str | None, seed: int, device: torch.device) -> Network:
    """Return a new network on the foundation's weights; without a method only its head trains."""
    import torch

    torch.manual_seed(seed)
    model = task_model(spec)
    depth = spec.foundation.layers
    if method is not None:
        model = graft(model, spec, method)
        depth = spec.foundation.depth(spec.sites)
    network = _on_device(spec, model, depth, device)
    if method is not None and spec.initial is not None:
        load_initial_adapter(network, spec.initial)
    return network


def random_network(spec: NetworkSpec, seed: int, device: torch.device) -> Network:
    """Return the same architecture with random weights, all of which train."""
    import torch

    torch.manual_seed(seed)
    return _on_device(spec, task_model(spec, random=True).requires_grad_(True), 0, device)


def _on_device(spec: NetworkSpec, model: nn.Module, depth: int, device: torch.device) -> Network:
    from torch import nn

    head = nn.Linear(spec.foundation.hidden_size, spec.labels).to(device) if spec.linear_head else None
    return Network(model.to(device), head, spec.foundation, spec.task_class, depth)
