"""AdaLoRA at one module, as PEFT computes it after it has loaded a saved adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.bundle.kinds.target import TargetModule
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import take
from rootstock.adapters.spec import Array, SiteUpdate

# PEFT adds this to the rank that it divides by.
_EPSILON = 1e-5


def adalora_update(module: TargetModule, left: dict[str, Array], config: PeftConfig) -> SiteUpdate:
    """Return the update W x + c + (alpha / rank)·B(E·(A x)), with the diagonal E folded into B.

    The module's tensors are taken from `left`; raise Rejected as `take` does. They are matrices at a convolution
    too. The update has rank 0 if no direction was kept. The divisor `rank` is `init_r` even if fewer directions
    were kept, because PEFT keeps it when it loads a `rank_pattern`. An alpha of 0 or less stands for the number
    of kept directions.

    Source: Zhang et al., "AdaLoRA", 2023; PEFT's `SVDLinear`, `SVDConv2d` and
    `AdaLoraModel.resize_modules_by_rank_pattern`.
    """
    initial = int(config.values.get("init_r", 12))
    kept = _kept(config.values.get("rank_pattern") or {}, config.written(module.name))
    rank = initial if kept is None else sum(kept)
    a = take(left, f"{module.name}.lora_A", (rank, module.width_in))
    e = take(left, f"{module.name}.lora_E", (rank, 1))
    b = take(left, f"{module.name}.lora_B", (module.width_out, rank))
    alpha = float(config.values.get("lora_alpha", 8))
    scale = (alpha if alpha > 0 else float(rank)) / (initial + _EPSILON)
    with np.errstate(all="ignore"):
        return SiteUpdate(a, b.T * e * np.float32(scale))


def check_allocation(targets: tuple[str, ...], config: PeftConfig) -> None:
    """Raise Rejected if `rank_pattern` names a module that is not targeted, which PEFT cannot load."""
    written = set(map(config.written, targets))
    for name in config.values.get("rank_pattern") or {}:
        if _module(name) not in written:
            raise wrong_option("rank_pattern", f"{name!r} is not the lora_E of a targeted module")


def _kept(pattern: Mapping[str, Any], module: str) -> list[bool] | None:
    return next((mask for name, mask in pattern.items() if _module(name) == module), None)


def _module(name: str) -> str:
    """Return the module of a key such as `bert.encoder.layer.0.attention.self.query.lora_E`."""
    return name.removesuffix(".default").removesuffix(".lora_E")
