"""Turns the changes of a merged model into a LoRA in PEFT's form. This module imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
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


def lora_of(
    base: nn.Module, final: Mapping[str, Tensor], task_class: TaskClass, rank: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and tensors of the LoRA that turns the parameters of `base` into `final`.

    `base` is a model of the task class. For each changed weight the LoRA holds the leading singular vectors of
    the change, as many as needed and at most `rank`. It holds changed biases, the head and a changed pooler
    whole. Raise Rejected (check "conversion") if the adapter changed anything else in the trunk.
    """
    original = {name: parameter.detach() for name, parameter in base.named_parameters()}
    final = {name: final[name] for name in original}
    trunk = [name for name in final if name.startswith(task_class.prefix)]
    # An adapter holds the head of its class. A language-model head belongs to the foundation, as the trunk does.
    shared = [name for name in final if name in trunk or name not in task_class.head]
    changed = [name for name in shared if not torch.equal(final[name], original[name])]
    pooler = f"{task_class.prefix}pooler"
    whole = {name.rpartition(".")[0] for name in changed if name.startswith(f"{pooler}.")}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name in changed:
        module, _, kind = name.rpartition(".")
        layer = base.get_submodule(module)
        if module in whole:
            continue
        if kind == "weight" and isinstance(layer, nn.Linear | Conv1D):
            delta = final[name] - original[name]
            pairs[module] = _low_rank(delta.T if isinstance(layer, Conv1D) else delta, rank)
        elif kind != "bias":
            raise Rejected(
                "conversion",
                name,
                "the adapter changes this parameter, and a LoRA can change only linear layers and biases",
            )
    if not pairs:
        # PEFT needs at least one target, and a pair of zeros changes nothing.
        module = next(name for name in task_class.linears if name.startswith(task_class.prefix))
        width_in, width_out = task_class.linears[module]
        pairs[module] = torch.zeros(1, width_in), torch.zeros(width_out, 1)
    head = [name for name in final if name not in shared]
    saved = sorted({name.partition(".")[0] for name in head} | whole)
    tensors = {name: tensor for name, tensor in final.items() if name in head or name.rpartition(".")[0] in whole}
    for module, (a, b) in pairs.items():
        tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    biased = any(name.endswith(".bias") for name in changed)
    for name in [name for name in trunk if biased and name.endswith(".bias")]:
        module = name.removesuffix(".bias")
        tensors[f"{module}.base_layer.bias" if module in pairs else name] = final[name]
    ranks = {module: len(a) for module, (a, _) in pairs.items()}
    return _config(ranks, saved, biased), {PEFT_PREFIX + name: tensor for name, tensor in tensors.items()}


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
