"""Turns the changes of a merged model into a LoRA in PEFT's form. This module imports torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rootstock.adapters.spec import Rejected, TaskClass

PEFT_PREFIX = "base_model.model."
# The share of a weight's change (by Frobenius norm) that a LoRA may lose. The published tolerance is as large.
_TOLERANCE = 1e-4


def merged_parameters(model: Any) -> dict[str, Tensor]:
    """Merge a PEFT model's adapter in place, and return the parameters that it then computes with, by plain name.

    This reads them through PEFT's wrappers, because `merge_and_unload` fails on a module that is saved whole and
    contains other modules (peft 0.21).
    """
    model.merge_adapter()
    return {
        name.replace(".base_layer", "").replace(".modules_to_save.default", ""): parameter.detach()
        for name, parameter in model.base_model.model.named_parameters(remove_duplicate=False)
        if ".original_module." not in name
    }


@dataclass(frozen=True)
class WeightChange:
    """The change from a base model's parameters to others, in the parts that a LoRA's folder can hold.

    `pairs` maps a module to A (r, in) and B (out, r); B A is close to the change of the module's weight. `whole`
    maps each parameter that is kept whole to its value: the head, a changed pooler and, if one of them changed,
    the trunk's biases. `saved` names the modules of the head and the pooler. `transposed` names the modules with
    weights of shape (in, out). `kernels` maps each convolution of the base that a LoRA can change to the shape of
    one row of its weight, (channels, *kernel), which is flattened in `pairs`. `left_out` names the changed
    parameters that a LoRA cannot hold.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    whole: Mapping[str, Tensor]
    saved: tuple[str, ...]
    transposed: frozenset[str]
    kernels: Mapping[str, tuple[int, ...]]
    left_out: tuple[str, ...]

    @property
    def rank(self) -> int:
        return max((len(a) for a, _ in self.pairs.values()), default=0)

    def truncated(self, rank: int) -> WeightChange:
        """Return the change with at most `rank` directions at each module."""
        return replace(self, pairs={n: (a[:rank], b[:, :rank]) for n, (a, b) in self.pairs.items()})

    def parameters(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters that the base and this change give."""
        changed = {**base, **self.whole}
        for module, (a, b) in self.pairs.items():
            name, product = f"{module}.weight", b @ a
            changed[name] = base[name] + (product.T if module in self.transposed else product.view_as(base[name]))
        return changed

    def peft(self, task_class: TaskClass) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the LoRA's config and tensors in PEFT's form."""
        pairs = self.pairs or self._no_change(task_class)
        tensors: dict[str, Tensor] = {}
        for module, (a, b) in pairs.items():
            if (kernel := self.kernels.get(module)) is not None:
                a, b = a.reshape(len(a), *kernel), b.reshape(*b.shape, *(1 for _ in kernel[1:]))
            tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        biased = False
        for name, tensor in self.whole.items():
            module, _, kind = name.rpartition(".")
            if _is_inside(module, self.saved) or not name.startswith(task_class.prefix):
                tensors[name] = tensor
            else:
                biased = True
                tensors[f"{module}.base_layer.{kind}" if module in pairs else name] = tensor
        ranks = {module: len(a) for module, (a, _) in pairs.items()}
        config = _config(ranks, list(self.saved), biased)
        return config, {PEFT_PREFIX + name: tensor for name, tensor in tensors.items()}

    def _no_change(self, task_class: TaskClass) -> dict[str, tuple[Tensor, Tensor]]:
        """Return a pair of zeros, which changes nothing. PEFT needs at least one target."""
        module = next(
            name
            for name in task_class.linears
            if name.startswith(task_class.prefix)
            and (name in self.kernels or name not in task_class.convolutions)
        )
        width_in, width_out = task_class.linears[module]
        return {module: (torch.zeros(1, width_in), torch.zeros(width_out, 1))}


def change_of(
    base: nn.Module,
    final: Mapping[str, Tensor],
    task_class: TaskClass,
    norms: Collection[str],
    rank: int,
) -> WeightChange:
    """Return the change that turns the parameters of `base` into `final`.

    `base` is a model of the task class. For each changed weight of a linear layer or a convolution the result
    holds the leading singular vectors of the change, as many as needed and at most `rank`. `norms` names the
    normalisation layers of the trunk whose biases an adapter may change.
    """
    original = {name: parameter.detach() for name, parameter in base.named_parameters()}
    final = {name: final[name] for name in original}
    prefix = task_class.prefix
    trunk = [name for name in final if name.startswith(prefix)]
    # An adapter holds the head of its class. A language-model head belongs to the foundation, as the trunk does.
    shared = [name for name in final if name in trunk or name not in task_class.head]
    changed = [name for name in shared if not torch.equal(final[name], original[name])]
    pooler = {name.rpartition(".")[0] for name in changed if name.startswith(f"{prefix}pooler.")}
    kernels = _kernels(base, task_class)
    can_shift = {*task_class.linears, *(prefix + name for name in norms)}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    transposed, left_out = set(), []
    for name in changed:
        module, _, kind = name.rpartition(".")
        layer = base.get_submodule(module)
        if module in pooler:
            continue
        is_linear = isinstance(layer, nn.Linear | Conv1D) and module in task_class.linears
        if kind == "weight" and (is_linear or module in kernels):
            delta = final[name] - original[name]
            pairs[module] = _low_rank(delta.T if isinstance(layer, Conv1D) else delta.flatten(1), rank)
            transposed |= {module} if isinstance(layer, Conv1D) else set()
        elif kind != "bias" or module not in can_shift:
            left_out.append(name)
    head = [name for name in final if name not in shared]
    whole = {name: final[name] for name in final if name in head or name.rpartition(".")[0] in pooler}
    if any(name.endswith(".bias") and name not in left_out and name not in whole for name in changed):
        biases = [name for name in trunk if name.endswith(".bias") and name not in whole]
        whole |= {name: original[name] if name in left_out else final[name] for name in biases}
    saved = sorted({name.partition(".")[0] for name in head} | pooler)
    return WeightChange(pairs, whole, tuple(saved), frozenset(transposed), kernels, tuple(left_out))


def lora_of(
    base: nn.Module, final: Mapping[str, Tensor], task_class: TaskClass, norms: Collection[str], rank: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and tensors of the LoRA that turns the parameters of `base` into `final`.

    The arguments are those of `change_of`. Raise Rejected (check "conversion") if the adapter changed something
    that a LoRA cannot hold.
    """
    change = change_of(base, final, task_class, norms, rank)
    if change.left_out:
        raise Rejected(
            "conversion",
            change.left_out[0],
            "the adapter changes this parameter, and a LoRA can change only linear layers, convolutions that are "
            "neither grouped nor dilated, and biases",
        )
    return change.peft(task_class)


def _is_inside(module: str, saved: Collection[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in saved)


def _kernels(base: nn.Module, task_class: TaskClass) -> dict[str, tuple[int, ...]]:
    """Return the shape of a row of the weight of each convolution of which PEFT has a LoRA that it can merge."""
    return {
        name: tuple(module.weight.shape[1:])
        for name, module in base.named_modules()
        if name in task_class.convolutions and isinstance(module, nn.Conv1d | nn.Conv2d)
        if module.groups == 1 and set(module.dilation) == {1}
    }


def _config(ranks: dict[str, int], saved: list[str], biased: bool) -> dict[str, Any]:
    largest = max(ranks.values())
    pattern = {re.escape(module): rank for module, rank in ranks.items() if rank != largest}
    return {
        "peft_type": "LORA",
        "target_modules": sorted(ranks),
        "modules_to_save": saved or None,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "bias": "all" if biased else "none",
        "inference_mode": True,
    }


def _low_rank(delta: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Return A (r, in) and B (out, r) whose product B A is close to `delta` (out, in).

    The product is within _TOLERANCE, or as close as a rank of `limit` allows.
    """
    u, s, v = torch.linalg.svd(delta, full_matrices=False)
    beyond = torch.flip(torch.cumsum(torch.flip(s.double() ** 2, (0,)), 0), (0,)).sqrt()
    needed = int((beyond > _TOLERANCE * beyond[0]).sum())
    rank = max(1, min(needed, limit))
    return v[:rank].contiguous(), (u[:, :rank] * s[:rank]).contiguous()
