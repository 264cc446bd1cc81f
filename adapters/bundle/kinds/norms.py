"""Normalisation layers of the trunk that an adapter holds: those of LN tuning, and those saved whole."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rootstock.adapters.bundle.base_weights import BaseWeights
from rootstock.adapters.bundle.kinds.lora import needed
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.bundle.tensors import check_finite, take
from rootstock.adapters.spec import Array, FoundationSpec, Rejected, SiteUpdate, TaskClass

# The layer's output is scaled after the foundation's bias was added, which costs this share of the scaled bias.
_ROUNDING = 2.0**-24
_TOLERANCE = 1e-5
# Architectures whose RMS norms multiply by 1 + their weight, which the files hold.
_ONE_MORE = ("gemma", "gemma2", "gemma3_text")


def tuned_norms(
    left: dict[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    foundation: FoundationSpec,
    base: BaseWeights | None,
) -> dict[str, SiteUpdate]:
    """Return the updates of the normalisation layers that an adapter of LN tuning targets.

    PEFT's `LNTuningLayer` runs a trained copy of the layer. The copies are taken from `left`; raise Rejected as
    `take` does, and if the config targets no normalisation layer.
    """
    if config.peft_type != "LN_TUNING":
        return {}
    modules = config.norms(task_class, foundation)
    if not modules:
        option = config.values.get("target_modules")
        message = f"{option!r} matches no normalisation layer of {task_class.name} that an adapter can change"
        raise Rejected("sites", "target_modules", message)
    return _updates(
        left, {name: f"{name}.ln_tuning_layers" for name in modules}.items(), task_class, foundation, base
    )


def saved_norms(
    left: dict[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    foundation: FoundationSpec,
    base: BaseWeights | None,
) -> dict[str, SiteUpdate]:
    """Return the updates of the normalisation layers of the trunk that `modules_to_save` names."""
    modules = [task_class.prefix + norm for norm in foundation.norms]
    saved = [name for name in modules if config.is_saved_whole(name) and f"{name}.weight" in left]
    return _updates(left, [(name, name) for name in saved], task_class, foundation, base)


def _updates(
    left: dict[str, Array],
    names: Iterable[tuple[str, str]],
    task_class: TaskClass,
    foundation: FoundationSpec,
    base: BaseWeights | None,
) -> dict[str, SiteUpdate]:
    updates = {}
    for module, stem in names:
        site = module.removeprefix(task_class.prefix)
        more = np.float32(foundation.model_type in _ONE_MORE)
        update = _update(left, site, stem, foundation.norms[site], needed(base, "target_modules"), more)
        if update.output_scale is not None or update.shift is not None:
            updates[site] = update
    return updates


def _update(
    left: dict[str, Array], site: str, stem: str, width: int, base: BaseWeights, more: np.float32
) -> SiteUpdate:
    """Return the update that turns the foundation's layer x ∘ w + b into the trained one, x ∘ w' + b'.

    It is y ∘ g + (b' - b ∘ g) with g = w' / w, for the layer's output y. `more` is what the layer adds to the
    weights in the files. An RMS norm has no b.
    """
    name = f"{stem}.weight"
    weight, original, bias = take(left, name, (width,)), base.weight(site), base.bias(site)
    trained = None if bias is None else take(left, f"{stem}.bias", (width,))
    check_finite({name: weight, f"{stem}.bias": weight if trained is None else trained})
    with np.errstate(all="ignore"):
        scale = np.where(weight == original, np.float32(1), (weight + more) / (original + more))
    if not np.isfinite(scale).all() or (bias is not None and _lost(scale, bias) > _TOLERANCE):
        message = "the foundation's weight is nearly zero where this one is not, so that no factor stands for it"
        raise Rejected("finite", name, message)
    shift = None if bias is None or trained is None else trained - bias * scale
    nothing = np.zeros((0, width), np.float32)
    return SiteUpdate(
        nothing,
        nothing,
        output_scale=scale if (scale != 1).any() else None,
        shift=shift if shift is not None and shift.any() else None,
    )


def _lost(scale: Array, bias: Array) -> float:
    """Return an upper limit on what the rounding of the scaled bias takes from an output."""
    return float(np.abs(scale * bias).max() * _ROUNDING)
