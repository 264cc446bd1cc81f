"""IA3 at one module, as PEFT computes it."""

from __future__ import annotations

import numpy as np

from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import take
from rootstock.adapters.spec import Array, SiteUpdate


def ia3_update(module: str, features: tuple[int, int], left: dict[str, Array], config: PeftConfig) -> SiteUpdate:
    """Return the update W (x·l) + c at a feed-forward module, and (W x + c)·l, bias included, at any other.

    `features` are (in, out). The module's tensor is taken from `left`; raise Rejected as `take` does.

    Source: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning", 2022; PEFT's `IA3Layer`.
    """
    width_in, width_out = features
    a, b = np.zeros((0, width_in), np.float32), np.zeros((0, width_out), np.float32)
    name = f"{module}.ia3_l"
    if config.is_feedforward(module):
        return SiteUpdate(a, b, input_scale=take(left, name, (1, width_in))[0])
    return SiteUpdate(a, b, output_scale=take(left, name, (width_out, 1))[:, 0])
