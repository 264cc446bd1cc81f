"""Modules of the trunk that an adapter holds whole (`modules_to_save`). Here, the pooler."""

from __future__ import annotations

import numpy as np

from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.kinds.lora import needed
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import take
from rootstock.adapters.spec import Array, FoundationSpec, Rejected, SiteUpdate, TaskClass


def saved_pooler(
    left: dict[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    foundation: FoundationSpec,
    base: BaseWeights | None,
) -> dict[str, SiteUpdate]:
    """Return the update that turns the pooler's linear layer into the one that the adapter holds, if any.

    As a low-rank update it has full rank: `a` is the identity, and `b` is the difference of the weights. The
    rank limit, which bounds the cost of every token, does not apply: the pooler is one layer and sees one vector
    for each row. Raise Rejected (check "sites") for any other module of the trunk that is saved whole.
    """
    sites = {}
    for name in [n for n in left if n.startswith(task_class.prefix) and config.is_saved_whole(n)]:
        module, _, kind = name.rpartition(".")
        site = module.removeprefix(task_class.prefix)
        if site not in foundation.sites or site.partition(".")[0] != "pooler":
            raise Rejected(
                "sites",
                name,
                "modules_to_save names this module; of the trunk, only the pooler and layer normalisations are "
                "served whole, because the adapters of a batch share every other module; use LoRA on this module",
            )
        if kind == "weight":
            sites[site] = _whole(module, site, foundation.sites[site], left, needed(base, "modules_to_save"))
    return sites


def _whole(
    module: str, site: str, features: tuple[int, int], left: dict[str, Array], base: BaseWeights
) -> SiteUpdate:
    width_in, width_out = features
    weight = take(left, f"{module}.weight", (width_out, width_in))
    bias = base.bias(site)
    with np.errstate(all="ignore"):
        shift = None if bias is None else take(left, f"{module}.bias", (width_out,)) - bias
        delta = weight - base.weight(site)
    return SiteUpdate(np.eye(width_in, dtype=np.float32), delta.T, shift=shift)
