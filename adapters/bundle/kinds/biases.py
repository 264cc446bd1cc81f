"""Turns the trunk's biases that an adapter trained (`bias`) into shifts from the foundation's biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.kinds.lora import needed
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import take
from rootstock.adapters.spec import Array, FoundationSpec, Rejected, SiteUpdate, TaskClass


def with_biases(
    sites: Mapping[str, SiteUpdate],
    left: dict[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    foundation: FoundationSpec,
    base: BaseWeights | None,
) -> dict[str, SiteUpdate]:
    """Return the updates with the trained biases added to their shifts.

    A bias equal to the foundation's changes nothing. `lora_only` means the biases of the targeted modules, and
    `all` means every bias. The biases are taken from `left`. Raise Rejected as `take` does, for a bias of a
    module that is not a site, and if `base` is None.
    """
    changed = dict(sites)
    if config.bias == "none":
        return changed
    base = needed(base, "bias")
    targets = config.targets(task_class)
    for module, width in _modules(config, task_class, foundation).items():
        site = module.removeprefix(task_class.prefix)
        original = base.bias(site)
        # The update of a module that is saved whole already includes its bias.
        if original is None or config.is_saved_whole(module):
            continue
        name = f"{module}.base_layer.bias" if module in targets else f"{module}.bias"
        with np.errstate(all="ignore"):
            shift = take(left, name, (width,)) - original
        if shift.any():
            changed[site] = _shifted(changed.get(site), shift, foundation.sites.get(site, (width, width)))
    if config.bias == "all":
        _drop_unchanged(left, task_class, base)
    return changed


def _modules(config: PeftConfig, task_class: TaskClass, foundation: FoundationSpec) -> dict[str, int]:
    """Return the widths of the trunk's modules whose biases the adapter holds, by full name."""
    prefix = task_class.prefix
    linears = {n: out for n, (_, out) in task_class.linears.items() if n.removeprefix(prefix) in foundation.sites}
    if config.bias == "lora_only":
        return {n: linears[n] for n in config.targets(task_class)}
    return {n: w for n, w in linears.items() if n.startswith(prefix)} | {
        prefix + n: w for n, w in foundation.norms.items()
    }


def _shifted(update: SiteUpdate | None, shift: Array, features: tuple[int, int]) -> SiteUpdate:
    if update is None:
        width_in, width_out = features
        nothing = np.zeros((0, width_in), np.float32), np.zeros((0, width_out), np.float32)
        return SiteUpdate(*nothing, shift=shift)
    return replace(update, shift=shift if update.shift is None else update.shift + shift)


def _drop_unchanged(left: dict[str, Array], task_class: TaskClass, base: BaseWeights) -> None:
    """Drop biases of other modules if they equal the foundation's; raise Rejected for one that differs."""
    for name in [n for n in left if n.startswith(task_class.prefix) and n.endswith(".bias")]:
        original = base.bias(name.removeprefix(task_class.prefix).removesuffix(".bias"))
        if original is None or not np.array_equal(left.pop(name), original):
            raise Rejected(
                "sites",
                name,
                "a trained bias of a module whose bias cannot be changed; train with bias='lora_only' or 'none'",
            )
