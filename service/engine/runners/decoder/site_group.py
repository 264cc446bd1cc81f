"""Name the sites whose layers read the same tokens, so that one product serves them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# The last parts of the names of such sites, in transformers' classes.
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class SiteGroup(NamedTuple):
    """Sites that are one product, whose columns are those of each site in turn: `widths` of them."""

    names: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return the name of the group, which is that of its first site."""
        return self.names[0]

    @property
    def columns(self) -> list[slice]:
        """Return the columns of each site."""
        return [slice(*bounds) for bounds in pairwise(accumulate(self.widths, initial=0))]


def alone(widths: Mapping[str, int]) -> list[SiteGroup]:
    """Return a group of each site, given the number of features that each gives."""
    return [SiteGroup((name,), (width,)) for name, width in widths.items()]


def together(widths: Mapping[str, int]) -> list[SiteGroup]:
    """Return the sites in groups: those of one layer's attention, and of its gated product, where it has them."""
    groups: list[SiteGroup] = []
    grouped: set[str] = set()
    for name in widths:
        if name in grouped:
            continue
        names = _siblings(name, widths)
        grouped.update(names)
        groups.append(SiteGroup(names, tuple(widths[sibling] for sibling in names)))
    return groups


def _siblings(name: str, widths: Mapping[str, int]) -> tuple[str, ...]:
    parent, _, last = name.rpartition(".")
    kind: Sequence[str] = next((kind for kind in _TOGETHER if last in kind), (last,))
    names = tuple(f"{parent}.{one}" for one in kind)
    return names if all(one in widths for one in names) else (name,)


def join_layers(layers: Sequence[Any]) -> nn.Module:
    """Return linear layers with the same input as one, without gradients."""
    if len(layers) == 1:
        only: nn.Module = layers[0]
        return only
    bias = join_biases(layers)
    weight = torch.cat([layer.weight for layer in layers])
    joint = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    joint.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        joint.bias = nn.Parameter(bias, requires_grad=False)
    return joint


def join_biases(layers: Sequence[Any]) -> Tensor | None:
    """Return the biases of linear layers one after the other, zeros for one without; None if none has one."""
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat(
        [layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers]
    )
