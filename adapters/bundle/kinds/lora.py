"""LoRA and DoRA at one module, as PEFT computes them."""

from __future__ import annotations

import numpy as np

from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.kinds.block_diagonal import blocks_of
from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.bundle.kinds.target import TargetModule
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import take
from rootstock.adapters.spec import Array, SiteUpdate


def lora_update(
    module: TargetModule, left: dict[str, Array], config: PeftConfig, base: BaseWeights | None
) -> SiteUpdate:
    """Return the update W x + c + s·B(A x), plus s·(bias of B) with `lora_bias`.

    With `use_dora` it is the update of `_with_magnitude`. The module's tensors are taken from `left`. Raise
    Rejected as `take` does, and for DoRA without `base`.

    At a convolution A is a convolution of the same geometry, and B mixes its outputs at each place, so that the
    product of the two matrices is the change of the flattened kernel. Source: PEFT's `_ConvNd`.
    """
    blocked, blocks = blocks_of(config.values.get("use_bdlora"), config.written(module.name))
    a, b = module.take_factors(left, config.rank(module.name), blocked, blocks)
    with np.errstate(all="ignore"):
        scale = np.float32(config.scale(module.name))
        update = SiteUpdate(a, b.T * scale)
        if config.values.get("lora_bias"):
            bias = take(left, f"{module.name}.lora_B.bias", (module.width_out,))
            return SiteUpdate(a, update.b, shift=bias * scale)
        if config.values.get("use_dora"):
            magnitude = module.take_magnitude(left)
            return _with_magnitude(update, magnitude, module.site, needed(base, "use_dora"))
    return update


def needed(base: BaseWeights | None, option: str) -> BaseWeights:
    """Return the foundation's weights; if they are None, raise Rejected that names the option in need of them."""
    if base is None:
        raise wrong_option(option, "it needs the foundation's weights, which were not passed to this check")
    return base


def _with_magnitude(update: SiteUpdate, magnitude: Array, site: str, base: BaseWeights) -> SiteUpdate:
    """Return DoRA's update (W x + s·B A x)·g + c with g = magnitude / ‖row of W + s·B A‖; c is not scaled.

    Source: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024, eq. 5; PEFT's `DoraLinearLayer` and
    `DoraConv2dLayer`, whose rows are flattened kernels.
    """
    weight = base.weight(site) + update.b.T @ update.a
    scale = magnitude / np.linalg.norm(weight, axis=1)
    bias = base.bias(site)
    return SiteUpdate(
        update.a, update.b * scale, output_scale=scale, shift=None if bias is None else (1 - scale) * bias
    )
