"""IA3 at one module, as PEFT computes it."""

from __future__ import annotations

import numpy as np

from rootstock.adapters.bundle.kinds.target import TargetModule
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.spec import Array, SiteUpdate


def ia3_update(module: TargetModule, left: dict[str, Array], config: PeftConfig) -> SiteUpdate:
    """Return the update W (x·l) + c at a feed-forward module, and (W x + c)·l, bias included, at any other.

    The module's tensor is taken from `left`; raise Rejected as `take` does. At a convolution l has one number for
    each channel.

    Source: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning", 2022; PEFT's `IA3Layer`.
    """
    a, b = np.zeros((0, module.width_in), np.float32), np.zeros((0, module.width_out), np.float32)
    if config.is_feedforward(module.name):
        return SiteUpdate(a, b, input_scale=module.take_input_scale(left))
    return SiteUpdate(a, b, output_scale=module.take_output_scale(left))
