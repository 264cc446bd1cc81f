"""The model that an adapter was made on, told by its tensors: the cause of much that would not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rootstock.adapters.bundle.archive import WEIGHTS
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.spec import Array, FoundationSpec, Rejected, TaskClass

PEFT_PREFIX = "base_model.model."
_TUNER = re.compile(r"(?P<module>.+)\.(?P<kind>lora_A|lora_B|lora_E|lora_magnitude_vector|ia3_l)(\.|$)")
# PEFT reads a name with the adapter's name in it as one without.
_NAMED = re.compile(r"(.+\.(?:lora_[ABE]|ia3_l))\.default(\.weight|\.bias)?")
_NAMED_MAGNITUDE = ".lora_magnitude_vector.default.weight"
_EMBEDDINGS = ("wte", "wpe")


def short_names(tensors: Mapping[str, Array], config: PeftConfig) -> dict[str, Array]:
    """Return the tensors by the names that PEFT's `save_pretrained` gives, without its prefix.

    Left out are the copies of a module saved whole that PEFT keeps beside it and does not run. Rejected (check
    "sites") where two names are one.
    """
    named = {name: _short(name) for name in tensors}
    kept = {name: short for name, short in named.items() if not _is_copy(short, config)}
    if len(set(kept.values())) != len(kept):
        raise Rejected("sites", WEIGHTS, f"two tensors have the same name but for {PEFT_PREFIX!r} or 'default'")
    return {short: tensors[name] for name, short in kept.items()}


def _short(name: str) -> str:
    name = name.removeprefix(PEFT_PREFIX)
    if name.endswith(_NAMED_MAGNITUDE):
        return name.removesuffix(".default.weight")
    match = _NAMED.fullmatch(name)
    return name if match is None else match[1] + (match[2] or "")


def _is_copy(name: str, config: PeftConfig) -> bool:
    module = re.split(r"\.(?:original_module|modules_to_save)\.", name)
    return len(module) > 1 and (config.bias == "all" or config.is_saved_whole(module[0]))


def check_origin(
    named: Mapping[str, Array], config: PeftConfig, task_class: TaskClass, foundation: FoundationSpec
) -> None:
    """Raise Rejected where the tensors are another model's: its size, its architecture, or all of its weights.

    `named` is as `short_names` gives it. The checks of each tensor judge what differs in single tensors.
    """
    tuners = {name: match for name in named if (match := _TUNER.match(name))}
    trunk = [n for n in named if n.removeprefix(task_class.prefix).rpartition(".")[0] in foundation.sites]
    if config.peft_type is not None and not tuners and trunk:
        raise Rejected(
            "sites",
            WEIGHTS,
            f"holds weights of a whole model, such as {trunk[0]}, and none of a {config.peft_type}; save the "
            "PEFT model with its save_pretrained",
        )
    modules = {_first_layer_s(match["module"], task_class, foundation) for match in tuners.values()}
    if modules and not modules & task_class.linears.keys():
        raise Rejected(
            "sites",
            next(iter(tuners)),
            f"{task_class.name} has no such module: the adapter was made on another architecture or for another "
            "task",
        )
    width = _width(named, tuners, task_class, foundation)
    layers = _layers(tuners, config, task_class, foundation)
    if (width, layers) != (foundation.hidden_size, foundation.layers):
        raise Rejected(
            "foundation",
            WEIGHTS,
            f"the adapter was made for width {width}, {layers} layers; foundation {foundation.name!r} has width "
            f"{foundation.hidden_size}, {foundation.layers} layers; serve it on its own base model",
        )


def _layer(module: str, task_class: TaskClass, foundation: FoundationSpec) -> int | None:
    """Return the number of the layer that a module lies in, also beyond the foundation's last; else None."""
    inside = module.removeprefix(task_class.prefix)
    if not foundation.layer_prefix or not inside.startswith(foundation.layer_prefix):
        return None
    number = inside.removeprefix(foundation.layer_prefix).partition(".")[0]
    return int(number) if number.isdecimal() and len(number) < 6 else None


def _first_layer_s(module: str, task_class: TaskClass, foundation: FoundationSpec) -> str:
    """Return the name of the same module in the first layer, which every model has."""
    layer = _layer(module, task_class, foundation)
    if layer is None:
        return module
    before = f"{task_class.prefix if module.startswith(task_class.prefix) else ''}{foundation.layer_prefix}"
    return f"{before}0{module.removeprefix(before).removeprefix(str(layer))}"


def _width(
    named: Mapping[str, Array],
    tuners: Mapping[str, re.Match[str]],
    task_class: TaskClass,
    foundation: FoundationSpec,
) -> int:
    """Return the width that every tensor agrees on that tells it; else the foundation's own."""
    hidden, widths = foundation.hidden_size, set()
    for name, match in tuners.items():
        width_in, width_out = task_class.linears.get(
            _first_layer_s(match["module"], task_class, foundation), (0, 0)
        )
        shape = named[name].shape
        if match["kind"] == "lora_A" and width_in == hidden and len(shape) == 2:
            widths.add(shape[1])
        elif match["kind"] == "lora_B" and width_out == hidden and len(shape) == 2:
            widths.add(shape[0])
        elif match["kind"] == "ia3_l" and width_in == width_out == hidden:
            widths.add(named[name].size)
    for name, wanted in task_class.head.items():
        if name in named and named[name].ndim == len(wanted):
            widths |= {s for s, w in zip(named[name].shape, wanted, strict=True) if w == hidden}
    return int(widths.pop()) if len(widths) == 1 else hidden


def _layers(
    tuners: Mapping[str, re.Match[str]], config: PeftConfig, task_class: TaskClass, foundation: FoundationSpec
) -> int:
    """Return how many layers the adapter was made for, where it has all from the first; else the foundation's."""
    held = {_layer(match["module"], task_class, foundation) for match in tuners.values()} - {None}
    targeted = {_layer(name, task_class, foundation) for name in config.targets(task_class)} - {None}
    if not held or held != set(range(len(held))):
        return foundation.layers
    if len(held) > foundation.layers or targeted == set(range(foundation.layers)):
        return len(held)
    return foundation.layers


def why_left(name: str, task_class: TaskClass, foundation: FoundationSpec) -> str:
    """Return why a tensor has no place in an adapter."""
    told = f"maps to no site of {task_class.name} that the config targets"
    if "lora_embedding_" in name:
        return f"{told}: a LoRA of an embedding, which all adapters share; target linear layers alone"
    if _is_embedding(name):
        return (
            f"{told}: token embeddings, which PEFT saves where they were resized or trained; all adapters share "
            "the foundation's; train without new tokens, or save with save_embedding_layers=False"
        )
    if name.removeprefix(task_class.prefix).rpartition(".")[0] in foundation.sites:
        return f"{told}: a weight of the foundation itself, which all adapters share"
    return told


def _is_embedding(name: str) -> bool:
    *_, module, kind = ["", *name.replace(".base_layer.", ".").split(".")]
    return kind == "weight" and ("embed" in module or module in _EMBEDDINGS)


def head_hint(task_class: TaskClass) -> str:
    """Return how PEFT is made to save the head of a task class."""
    modules = sorted({name.partition(".")[0] for name in task_class.head})
    return f"PEFT saves a head that modules_to_save names; train with modules_to_save={modules}"
