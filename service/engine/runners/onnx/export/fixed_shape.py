"""Trace trunks whose inputs have a fixed shape as transformers runs them, without branches for other shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rootstock.adapters.spec import FoundationSpec

# Methods of this name interpolate position embeddings to the size of the input.
_INTERPOLATION = "interpolate_pos_encoding"
# Modules of classes with these names compute what positions add to attention: a bias for each pair of patches
# (BEiT, Swin) or rotations (DINOv3). Only the shape of the input changes it.
_POSITIONS = ("RelativePositionBias", "RopePositionEmbedding")


@contextmanager
def fixed_shape(trunk: nn.Module, spec: FoundationSpec) -> Iterator[None]:
    """Within the block, trace the trunk for one shape of inputs, if the foundation has only one.

    The first pass in the block must not be traced: what positions add is kept from it as constants. transformers
    branches as it does outside tracing. During tracing it would take branches that fit inputs of any shape, such
    as masks of zeros and windows of computed size.
    """
    if spec.modality == "text" or None in spec.input_shape:
        yield
        return
    functions = [(module, _INTERPOLATION) for module in trunk.modules() if hasattr(module, _INTERPOLATION)]
    functions += [(module, "forward") for module in trunk.modules() if type(module).__name__.endswith(_POSITIONS)]
    for module, name in functions:
        setattr(module, name, _FirstResult(getattr(module, name)))
    jit: Any = torch.jit
    is_tracing = jit.is_tracing
    jit.is_tracing = lambda: False
    try:
        yield
    finally:
        jit.is_tracing = is_tracing
        for module, name in functions:
            delattr(module, name)


class _FirstResult:
    """A function that keeps its first result."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._results: list[Any] = []

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if not self._results:
            self._results.append(self._function(*arguments, **options))
        return self._results[0]
