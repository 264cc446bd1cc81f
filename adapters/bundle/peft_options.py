"""The options in PEFT's configs of the kinds that are served without a conversion: accepted or refused.

An accepted option is read, or has no effect on a trained adapter. docs/compatibility.md lists the options, and a
test compares the tables with the installed PEFT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rootstock.adapters.bundle.kinds.methods import wrong_option

# The newest PEFT whose options are listed here. An option that a newer PEFT adds may change outputs.
PEFT_VERSION = (0, 21)

# By option of every kind: what the server makes of it, for docs/compatibility.md. Each is read, or has no effect
# on a trained adapter's outputs.
_NO_EFFECT = "no effect on a trained adapter"
_DESCRIBES = "no effect: it describes the file"
_SERVED = {
    "peft_type": "read",
    "task_type": "read",
    "target_modules": "read",
    "exclude_modules": "read",
    "modules_to_save": "read",
    "auto_mapping": _DESCRIBES,
    "peft_version": _DESCRIBES,
    "base_model_name_or_path": "read: it names the foundation",
    "revision": _DESCRIBES,
    "inference_mode": _NO_EFFECT,
    "fan_in_fan_out": "no effect: PEFT sets it by the module's class",
}
# Of the kinds that know no linear layer.
_SERVED_OF_LAYERS = {option: how for option, how in _SERVED.items() if option != "fan_in_fan_out"}
_SERVED_OF_TOKENS = {
    option: how
    for option, how in _SERVED_OF_LAYERS.items()
    if option not in ("exclude_modules", "modules_to_save")
} | {"token_indices": "read", "init_weights": _NO_EFFECT}
_SERVED_WITH_LORA = {
    "layers_to_transform": "read",
    "layers_pattern": "read",
    "r": "read",
    "lora_alpha": "read",
    "rank_pattern": "read",
    "alpha_pattern": "read",
    "use_rslora": "read",
    "init_lora_weights": "read; see below",
    "bias": "read",
    "lora_dropout": _NO_EFFECT,
    "megatron_core": "no effect without `megatron_config`",
    "qalora_group_size": "no effect without `use_qalora`",
    "loftq_config": "no effect: `init_lora_weights` decides",
    "corda_config": "no effect: `init_lora_weights` decides",
    "lora_ga_config": "no effect: `init_lora_weights` decides",
    "eva_config": _NO_EFFECT,
    "runtime_config": _NO_EFFECT,
    "ensure_weight_tying": "no effect: the file holds the rows of both layers",
    "trainable_token_indices": "read: tokens of the word embedding, and of the output layer of a decoder",
}
# By option that only LoRA reads.
_SERVED_WITH_LORA_ALONE = {
    "use_dora": "read",
    "lora_bias": "read",
    "use_bdlora": "read: each block-diagonal factor is filled up with zeros",
    "target_parameters": "read: weights of linear layers; another parameter is refused",
    "velora_config": "no effect: only the training reads its tensors",
    "monteclora_config": "no effect: only the training draws weights",
}
SERVED_OPTIONS: dict[str, dict[str, str]] = {
    "LORA": _SERVED | _SERVED_WITH_LORA | _SERVED_WITH_LORA_ALONE,
    # r, alpha_pattern and use_rslora come from LoRA, and PEFT's AdaLoRA does not read them.
    "ADALORA": _SERVED
    | _SERVED_WITH_LORA
    | dict.fromkeys(("r", "alpha_pattern", "use_rslora"), "no effect: AdaLoRA does not read it")
    | {"init_r": "read"}
    | dict.fromkeys(
        ("target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"), _NO_EFFECT
    ),
    "IA3": _SERVED | {"feedforward_modules": "read", "init_ia3_weights": _NO_EFFECT},
    "TRAINABLE_TOKENS": _SERVED_OF_TOKENS,
    "LN_TUNING": _SERVED_OF_LAYERS,
}
KNOWN_TO = {kind: frozenset(options) for kind, options in SERVED_OPTIONS.items()}
# Options of LoRA with which the server first converts the adapter, and why.
CONVERTED_OPTIONS = {
    "kasa_config": "it changes the base weights, and adds a factor between lora_A and lora_B",
}
# By option that is refused: why, and what to do instead.
_TRAIN = "train without it"
REFUSED_OPTIONS = {
    "alora_invocation_tokens": ("the adapter begins inside the text, at its invocation tokens", _TRAIN),
    "arrow_config": ("it mixes several adapters by the input", "upload the adapters that it mixes, each alone"),
    "layer_replication": ("it makes a deeper model than the foundation", _TRAIN),
    "megatron_config": ("it is for Megatron's layers, which no foundation has", _TRAIN),
    "use_qalora": ("it is for quantised layers, whose inputs it averages in groups", _TRAIN),
}
# Initialisations that leave the foundation's weights unchanged.
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
# Those that change them by numbers which the foundation's weights alone decide. The server converts the adapter.
CONVERTED_INITS = ("pissa", "olora")
# By initialisation that changes them otherwise: why it cannot be converted.
REFUSED_INITS = {
    "pissa_niter_N": "it changed the base weights by a random decomposition, which differs each time",
    "corda": "it changed the base weights by texts that the folder does not hold",
    "loftq": "it quantised the base weights, and trained on what it made of them",
    "lora_ga": "it changed the base weights by gradients that the folder does not hold",
}
# By option, a part of the names of the tensors that only its training reads.
_OF_TRAINING = {"velora_config": ".lora_velora_", "monteclora_config": ".lora_monteclora_sampler."}
_SAVE = "to get a plain LoRA, save with path_initial_model_for_weight_conversion"
_RETRAIN = "train with another init_lora_weights"
_ANY = {*REFUSED_OPTIONS, *CONVERTED_OPTIONS}.union(*KNOWN_TO.values())
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})", re.ASCII)


def foreign_keys(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a config that are not options of PEFT, such as a comment; PEFT ignores them too.

    Raise Rejected (check "schema") that names an option that is not served for this kind or that a newer PEFT
    wrote.
    """
    foreign = []
    for key, option in config.items():
        read = key in KNOWN_TO[kind] or (kind == "LORA" and key in CONVERTED_OPTIONS)
        if read or option in (None, False, [], {}):
            continue
        if key in _ANY:
            reason, remedy = REFUSED_OPTIONS.get(key, (f"this server has no such option for {kind}", _TRAIN))
            raise wrong_option(key, f"{option!r} is not served: {reason}; {remedy}")
        if _is_newer(config.get("peft_version")):
            known = ".".join(map(str, PEFT_VERSION))
            raise wrong_option(
                key,
                f"{option!r} is not served: it may change the outputs; PEFT {config['peft_version']} wrote it, "
                f"and this server knows the options up to PEFT {known}; train without it",
            )
        foreign.append(key)
    return tuple(foreign)


def conversion_of(kind: Any, config: Mapping[str, Any]) -> str | None:
    """Return the name of what makes a LoRA one that must first be converted; None for any other adapter.

    Such a LoRA is stated relative to base weights that its initialisation changed, and the foundation's weights
    alone decide how.
    """
    if kind != "LORA":
        return None
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() in CONVERTED_INITS:
        return f"LORA with init_lora_weights={init.lower()}"
    return next((f"LORA with {key}" for key in CONVERTED_OPTIONS if config.get(key)), None)


def is_of_training(name: str, values: Mapping[str, Any]) -> bool:
    """Return whether only the training reads this tensor of an adapter; `values` are the config's options."""
    return any(values.get(key) and part in name for key, part in _OF_TRAINING.items())


def check_init(init: Any) -> None:
    """Raise Rejected (check "schema") if LoRA's initialisation changed the foundation's weights for good."""
    plain: Any = init.lower() if isinstance(init, str) else init
    if isinstance(plain, str | bool | None) and plain in PLAIN_INITS:
        return
    name = re.sub(r"_niter_\d+$", "_niter_N", plain) if isinstance(plain, str) else ""
    reason = REFUSED_INITS.get(name, "it is not an initialisation that this server knows")
    remedy = _RETRAIN if name in ("loftq", "") or name not in REFUSED_INITS else _SAVE
    raise wrong_option("init_lora_weights", f"{init!r} is not served: {reason}; {remedy}")


def _is_newer(version: Any) -> bool:
    """Return whether a newer PEFT wrote the config. A config without a version is from an older PEFT."""
    match = _VERSION.match(version) if isinstance(version, str) else None
    return match is not None and (int(match[1]), int(match[2])) > PEFT_VERSION
