"""Hold the weights of a decoder's linear layers in 4 bits, and those of its output layer in bf16."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rootstock.service.engine.runners.decoder.site_group import SiteGroup, join_biases

# Weights of one row that share a scale and a zero point. GGUF's Q4_1 has groups of as many.
GROUP = 32
# torch packs the rows of 4-bit weights in blocks of so many.
_BLOCK = 16
_LEVELS = 15
_MIDDLE = 8


class Int4Weights(NamedTuple):
    """Levels from 0 to 15, (out, in) int32, and scales with zero points, (in / GROUP, out, 2) bf16."""

    levels: Tensor
    scales: Tensor

    def weights(self) -> Tensor:
        """Return the weights (level - 8) · scale + zero point: (out, in) fp32."""
        scale, zero = (self.scales[..., i].T.float()[..., None] for i in (0, 1))
        weights: Tensor = (self.levels.view(len(self.levels), -1, GROUP) - _MIDDLE) * scale + zero
        return weights.flatten(1)


def fits_int4(layer: nn.Module) -> bool:
    """Return whether a layer is linear, with sizes that torch can pack."""
    return isinstance(layer, nn.Linear) and not (layer.in_features % GROUP or layer.out_features % _BLOCK)


def to_int4(weight: Tensor) -> Int4Weights:
    """Return a weight (out, in) in 4 bits, with the least and the greatest of each group among its levels.

    Weights that were in Q4_1 keep their levels. What changes is the rounding of scales and zero points to bf16.
    """
    groups = weight.float().view(len(weight), -1, GROUP)
    least, most = groups.amin(-1), groups.amax(-1)
    # A group of equal weights has any scale.
    scale = ((most - least) / _LEVELS).clamp_min(1e-12).bfloat16()
    zero = (least + _MIDDLE * scale.float()).bfloat16()
    levels = ((groups - zero.float()[..., None]) / scale.float()[..., None] + _MIDDLE).round().clamp_(0, _LEVELS)
    return Int4Weights(levels.flatten(1).int(), torch.stack([scale.T, zero.T], -1).contiguous())


class Int4Linear(nn.Module):
    """A linear layer with weights in 4 bits. It takes and returns fp32, and multiplies bf16."""

    def __init__(self, weights: Int4Weights, bias: Tensor | None) -> None:
        super().__init__()
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weights.levels, 1)
        self._scales = weights.scales
        self._bias = bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).bfloat16()
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self._packed, GROUP, self._scales)
        return _output(y, self._bias, x)


class Bf16Linear(nn.Module):
    """A linear layer with weights in bf16, in which it multiplies. It takes and returns fp32.

    oneDNN, where the CPU has what it needs, packs the weight for products with about as many rows as these.
    """

    _ROWS = 16

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._packed = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        small = weight.bfloat16()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(small, self._ROWS) if self._packed else small
        self._bias = bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).bfloat16()
        count = len(rows)
        if count == 1:
            # A product of one row adds in another order, and a row must not depend on how many are beside it.
            rows = rows.expand(2, -1)
        if self._packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, None, "none", [], "")
        else:
            y = linear(rows, self._weight)
        return _output(y[:count], self._bias, x)


def _output(y: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return the rows of a product in the shape and the dtype of the layer's input, plus the bias."""
    wide = y.to(x.dtype).view(*x.shape[:-1], y.shape[-1])
    return wide if bias is None else wide + bias


def quantise(trunk: nn.Module, groups: Iterable[SiteGroup]) -> dict[str, nn.Module]:
    """Return a trunk's linear layers in 4 bits by name, those of a group as one under the name of the first.

    The trunk's layers get the values of the 4-bit weights.
    """
    together = {name: group.names for group in groups for name in group.names}
    small: dict[str, nn.Module] = {}
    for name, _ in trunk.named_modules():
        names = together.get(name, (name,))
        layers = [trunk.get_submodule(one) for one in names]
        if name == names[0] and all(map(fits_int4, layers)):
            small[name] = _in_four_bits(layers)
    return small


def _in_four_bits(layers: Sequence[Any]) -> Int4Linear:
    """Return layers as one in 4 bits, and give them its values."""
    parts = [to_int4(layer.weight) for layer in layers]
    for layer, part in zip(layers, parts, strict=True):
        layer.weight.data = part.weights()
    levels, scales = torch.cat([part.levels for part in parts]), torch.cat([part.scales for part in parts], 1)
    return Int4Linear(Int4Weights(levels, scales), join_biases(layers))


def free_memory() -> None:
    """Give the memory of weights that are in use no more back to the system.

    glibc would keep most of it, as much as the model takes in fp32. Other C libraries have no such function.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
