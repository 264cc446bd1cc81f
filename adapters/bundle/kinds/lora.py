"""LoRA and DoRA at one module, as PEFT computes them."""

from __future__ import annotations

import numpy as np

from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import take
from rootstock.adapters.spec import Array, SiteUpdate


def lora_update(
    module: str,
    site: str,
    features: tuple[int, int],
    left: dict[str, Array],
    config: PeftConfig,
    base: BaseWeights | None,
) -> SiteUpdate:
    """Return the update W x + c + s·B(A x), plus s·(bias of B) with `lora_bias`.

    With `use_dora` it is the update of `_with_magnitude`. `features` are (in, out). The module's tensors are
    taken from `left`. Raise Rejected as `take` does, and for DoRA without `base`.
    """
    width_in, width_out = features
    rank = config.rank(module)
    a = take(left, f"{module}.lora_A.weight", (rank, width_in))
    b = take(left, f"{module}.lora_B.weight", (width_out, rank))
    with np.errstate(all="ignore"):
        scale = np.float32(config.scale(module))
        update = SiteUpdate(a, b.T * scale)
        if config.values.get("lora_bias"):
            return SiteUpdate(a, update.b, shift=take(left, f"{module}.lora_B.bias", (width_out,)) * scale)
        if config.values.get("use_dora"):
            magnitude = take(left, f"{module}.lora_magnitude_vector", (width_out,))
            return _with_magnitude(update, magnitude, site, needed(base, "use_dora"))
    return update


def needed(base: BaseWeights | None, option: str) -> BaseWeights:
    """Return the foundation's weights; if they are None, raise Rejected that names the option in need of them."""
    if base is None:
        raise wrong_option(option, "it needs the foundation's weights, which were not passed to this check")
    return base


def _with_magnitude(update: SiteUpdate, magnitude: Array, site: str, base: BaseWeights) -> SiteUpdate:
    """Return DoRA's update (W x + s·B A x)·g + c with g = magnitude / ‖row of W + s·B A‖; c is not scaled.

    Source: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024, eq. 5; PEFT's `DoraLinearLayer`.
    """
    weight = base.weight(site) + update.b.T @ update.a
    scale = magnitude / np.linalg.norm(weight, axis=1)
    bias = base.bias(site)
    return SiteUpdate(
        update.a, update.b * scale, output_scale=scale, shift=None if bias is None else (1 - scale) * bias
    )
