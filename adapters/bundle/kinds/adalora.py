"""AdaLoRA at one module, as PEFT computes it once a saved adapter is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import take
from rootstock.adapters.spec import Array, SiteUpdate

# PEFT adds it to the rank that it divides by.
_EPSILON = 1e-5


def adalora_update(
    module: str, features: tuple[int, int], left: dict[str, Array], config: PeftConfig
) -> SiteUpdate:
    """Return W x + c + (alpha / rank)·B(E·(A x)), the diagonal E folded into B; no direction kept is rank 0.

    `features` are (in, out). Take the module's tensors from `left`; raise Rejected as `take` does. The rank
    divided by is `init_r` also where fewer directions were kept: PEFT carries it over when it loads a
    `rank_pattern`. An alpha of 0 or less means the rank kept.

    Source: Zhang et al., "AdaLoRA", 2023; PEFT's `SVDLinear` and
    `AdaLoraModel.resize_modules_by_rank_pattern`.
    """
    width_in, width_out = features
    initial = int(config.values.get("init_r", 12))
    kept = _kept(config.values.get("rank_pattern") or {}, module)
    rank = initial if kept is None else sum(kept)
    a = take(left, f"{module}.lora_A", (rank, width_in))
    e = take(left, f"{module}.lora_E", (rank, 1))
    b = take(left, f"{module}.lora_B", (width_out, rank))
    alpha = float(config.values.get("lora_alpha", 8))
    scale = (alpha if alpha > 0 else float(rank)) / (initial + _EPSILON)
    with np.errstate(all="ignore"):
        return SiteUpdate(a, b.T * e * np.float32(scale))


def check_allocation(targets: tuple[str, ...], config: PeftConfig) -> None:
    """Raise Rejected where `rank_pattern` names a module that is not targeted: PEFT cannot load that."""
    for name in config.values.get("rank_pattern") or {}:
        if _module(name) not in targets:
            raise wrong_option("rank_pattern", f"{name!r} is not a targeted module's lora_E")


def _kept(pattern: Mapping[str, Any], module: str) -> list[bool] | None:
    return next((mask for name, mask in pattern.items() if _module(name) == module), None)


def _module(name: str) -> str:
    """Return the module of a key such as `bert.encoder.layer.0.attention.self.query.lora_E`."""
    return name.removesuffix(".default").removesuffix(".lora_E")
