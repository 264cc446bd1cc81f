"""Learning rates: AdamW's parameter groups, the schedule, and progressive unfreezing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from rootstock.adapters.spec import FoundationSpec
from rootstock.training.recipe.recipe import Training

if TYPE_CHECKING:
    import torch
    from torch import nn


def make_optimizer(
    parameters: dict[str, nn.Parameter], settings: Training, layer: Callable[[str], int | None], layers: int
) -> torch.optim.Optimizer:
    """Return AdamW, without decay on biases and other vectors.

    The head has a separate rate. `layer` gives the layer of a parameter, None for the head's. Each layer below
    the last learns `layerwise_lr_decay` times as fast as the one above (Howard and Ruder, ULMFiT, 2018). lora_B
    learns `loraplus_lr_ratio` times as fast as lora_A (Hayou et al., LoRA+, 2024).
    """
    import torch

    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        at = layer(name)
        if at is None:
            rate = settings.head_learning_rate or settings.learning_rate
        else:
            rate = settings.learning_rate * settings.layerwise_lr_decay ** (layers - 1 - min(at, layers - 1))
            if ".lora_B." in name:
                rate *= settings.loraplus_lr_ratio
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
    )


def layer_of(spec: FoundationSpec) -> Callable[[str], int | None]:
    """Return the function from a parameter's name to its layer, None for the head's."""

    def layer(name: str) -> int | None:
        for part in (".lora_", ".ia3_"):
            if part in name:
                module = name.partition(part)[0]
                inside = [site for site in spec.sites if module.endswith(f".{site}") or module == site]
                return spec.layer_of(max(inside, key=len)) if inside else 0
        return None

    return layer


def rate_schedule(kind: str, total: int, warmup_ratio: float) -> Callable[[int], float]:
    """Return the function from a step to the factor on every rate: a rise over the warm-up, then `kind`."""
    warm_up = round(total * warmup_ratio)

    def factor(step: int) -> float:
        # The first step counts as one, so that it trains too.
        rising = (step + 1) / (warm_up + 1)
        done = (step - warm_up) / max(1, total - warm_up)
        if kind == "constant":
            return min(rising, 1.0)
        falling = 1 - done if kind == "linear" else 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
        return min(rising, falling)

    return factor


def unfreeze(
    parameters: dict[str, nn.Parameter],
    epoch: int,
    every: int | None,
    layer: Callable[[str], int | None],
    layers: int,
) -> None:
    """Unfreeze the last layer in the first epoch (0), and the next layer down every `every` epochs."""
    if every is None:
        return
    lowest = layers - 1 - epoch // every
    for name, parameter in parameters.items():
        at = layer(name)
        parameter.requires_grad_(at is None or min(at, layers - 1) >= lowest)
