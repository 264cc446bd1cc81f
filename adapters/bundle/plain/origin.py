"""Finds out from an adapter's tensors whether it was made on another model, to name the cause of a misfit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from rootstock.adapters.bundle.archive import WEIGHTS
from rootstock.adapters.bundle.names.former_names import has_former_names, present_name
from rootstock.adapters.bundle.peft_config import PeftConfig
from rootstock.adapters.spec import Array, FoundationSpec, Rejected, TaskClass

PEFT_PREFIX = "base_model.model."
_TUNER = re.compile(r"(?P<module>.+)\.(?P<kind>lora_A|lora_B|lora_E|lora_magnitude_vector|ia3_l)(\.|$)")
# PEFT also reads a name that contains the adapter's name `default`.
_NAMED = re.compile(r"(.+\.(?:lora_[ABE]|ia3_l))\.default(\.weight|\.bias)?")
_NAMED_MAGNITUDE = ".lora_magnitude_vector.default.weight"
_EMBEDDINGS = ("wte", "wpe")


def short_names(tensors: Mapping[str, Array], config: PeftConfig) -> dict[str, Array]:
    """Return the tensors by the names that PEFT's `save_pretrained` gives them, without its prefix.

    Modules with former names get their present ones, if the config is known to use former names.
    The result leaves out the copies that PEFT keeps of a module that is saved whole, and does not run. Raise
    Rejected (check "sites") if two tensors get the same name.
    """
    short = {name: _short(name) for name in tensors}
    if config.former is not None:
        short = {name: present_name(config.former, short_name) for name, short_name in short.items()}
    kept = {name: short_name for name, short_name in short.items() if not _is_copy(short_name, config)}
    if len(set(kept.values())) != len(kept):
        raise Rejected(
            "sites", WEIGHTS, f"two tensors have the same name once {PEFT_PREFIX!r} and 'default' are left out"
        )
    return {short_name: tensors[name] for name, short_name in kept.items()}


def with_former_names(
    config: PeftConfig, tensors: Iterable[str], task_class: TaskClass, foundation: FoundationSpec
) -> PeftConfig:
    """Return the config, which reads module names as former ones if the adapter's tensors have such names."""
    if not has_former_names(foundation.model_type, tuned_modules(tensors), task_class.linears):
        return config
    return replace(config, former=foundation.model_type)


def tuned_modules(tensors: Iterable[str]) -> list[str]:
    """Return the modules, as an adapter's tensors name them, that it changes by a kind of PEFT."""
    return [match["module"] for name in tensors if (match := _TUNER.match(_short(name)))]


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
    """Raise Rejected if the tensors belong to another model, by size or architecture, or are a whole model.

    `named` is the result of `short_names`. Differences in single tensors are left to the checks of each tensor.
    """
    tuners = {name: match for name in named if (match := _TUNER.match(name))}
    trunk = [n for n in named if n.removeprefix(task_class.prefix).rpartition(".")[0] in foundation.sites]
    if config.peft_type is not None and not tuners and trunk:
        raise Rejected(
            "sites",
            WEIGHTS,
            f"holds weights of a whole model, such as {trunk[0]}, and none of a {config.peft_type} adapter; save "
            "the PEFT model with its save_pretrained",
        )
    modules = {_known_module(match["module"], task_class, foundation) for match in tuners.values()}
    if modules and not modules & task_class.linears.keys():
        raise Rejected(
            "sites",
            next(iter(tuners)),
            f"{task_class.name} has no such module: the adapter was made on another architecture or for another "
            f"task than one with {foundation.modality} inputs; train it on this foundation",
        )
    width = _width(named, tuners, task_class, foundation)
    layers = _layers(tuners, config, task_class, foundation)
    if (width, layers) != (foundation.hidden_size, foundation.layers):
        raise Rejected(
            "foundation",
            WEIGHTS,
            f"the adapter was made for width {width}, {layers} layers; foundation {foundation.name!r} has width "
            f"{foundation.hidden_size}, {foundation.layers} layers; serve the adapter on its own base model",
        )


def _layer(module: str, task_class: TaskClass, foundation: FoundationSpec) -> int | None:
    """Return the number of a module's layer, even if the foundation has fewer layers; None outside the layers."""
    inside = module.removeprefix(task_class.prefix)
    if not foundation.layer_prefix or not inside.startswith(foundation.layer_prefix):
        return None
    number = inside.removeprefix(foundation.layer_prefix).partition(".")[0]
    return int(number) if number.isdecimal() and len(number) < 6 else None


def _known_module(module: str, task_class: TaskClass, foundation: FoundationSpec) -> str:
    """Return the name of a module, or of the same module in layer 0 if the class has no such layer.

    The first stage of a model in stages may lack a module that the others have, such as a downsampling.
    """
    layer = _layer(module, task_class, foundation)
    if layer is None or module in task_class.linears:
        return module
    before = f"{task_class.prefix if module.startswith(task_class.prefix) else ''}{foundation.layer_prefix}"
    return f"{before}0{module.removeprefix(before).removeprefix(str(layer))}"


def _width(
    named: Mapping[str, Array],
    tuners: Mapping[str, re.Match[str]],
    task_class: TaskClass,
    foundation: FoundationSpec,
) -> int:
    """Return the hidden width if all tensors that show it agree; else the foundation's width."""
    hidden, widths = foundation.hidden_size, set()
    for name, match in tuners.items():
        width_in, width_out = task_class.linears.get(
            _known_module(match["module"], task_class, foundation), (0, 0)
        )
        shape = named[name].shape
        if match["kind"] == "lora_A" and width_in == hidden and len(shape) == 2:
            widths.add(shape[1])
        elif match["kind"] == "lora_B" and width_out == hidden and len(shape) == 2:
            widths.add(shape[0])
        elif match["kind"] == "ia3_l" and width_in == width_out == hidden and len(shape) == 2:
            widths.add(named[name].size)
    for name, shape in task_class.head.items():
        if name in named and named[name].ndim == len(shape):
            widths |= {size for size, own in zip(named[name].shape, shape, strict=True) if own == hidden}
    return int(widths.pop()) if len(widths) == 1 else hidden


def _layers(
    tuners: Mapping[str, re.Match[str]], config: PeftConfig, task_class: TaskClass, foundation: FoundationSpec
) -> int:
    """Return the number of layers that the adapter was made for; the foundation's number if that is not clear.

    It is clear only if the adapter has tensors for all layers from the first on.
    """
    present = {_layer(match["module"], task_class, foundation) for match in tuners.values()} - {None}
    targeted = {_layer(name, task_class, foundation) for name in config.targets(task_class)} - {None}
    if not present or present != set(range(len(present))):
        return foundation.layers
    if len(present) > foundation.layers or targeted == set(range(foundation.layers)):
        return len(present)
    return foundation.layers


def why_left(name: str, task_class: TaskClass, foundation: FoundationSpec) -> str:
    """Return why a tensor cannot be part of an adapter."""
    reason = f"maps to no site of {task_class.name} that the config targets"
    if "lora_embedding_" in name:
        return f"{reason}: a LoRA of an embedding, which all adapters share; target only linear layers"
    if _is_embedding(name):
        return (
            f"{reason}: embeddings, which PEFT saves if they were resized or trained; all adapters share these "
            "of the foundation; train without them, or save with save_embedding_layers=False"
        )
    if name.removeprefix(task_class.prefix).rpartition(".")[0] in foundation.sites:
        return f"{reason}: a weight of the foundation itself, which all adapters share"
    return reason


def _is_embedding(name: str) -> bool:
    *_, module, kind = ["", *name.replace(".base_layer.", ".").split(".")]
    return kind == "weight" and ("embed" in module or module in _EMBEDDINGS)


def head_hint(task_class: TaskClass) -> str:
    """Return a hint on how to make PEFT save the head of a task class."""
    modules = sorted({name.removeprefix(task_class.prefix).partition(".")[0] for name in task_class.head})
    return f"PEFT saves a head only if modules_to_save names it; train with modules_to_save={modules}"
