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

# Options of every kind that this package reads, or that have no effect on a trained adapter's outputs.
_KNOWN = {
    "peft_type", "task_type", "target_modules", "exclude_modules", "modules_to_save", "auto_mapping",
    "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    # PEFT itself sets this one by the module's class.
    "fan_in_fan_out",
}  # fmt: skip
_KNOWN_TO_LORA = {
    "layers_to_transform", "layers_pattern", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    "init_lora_weights", "bias", "lora_dropout", "megatron_core", "qalora_group_size", "loftq_config",
    "runtime_config", "eva_config", "ensure_weight_tying",
}  # fmt: skip
KNOWN_TO = {
    "LORA": _KNOWN | _KNOWN_TO_LORA | {"use_dora", "lora_bias"},
    # r, alpha_pattern and use_rslora come from LoRA, and PEFT's AdaLoRA does not read them.
    "ADALORA": _KNOWN
    | _KNOWN_TO_LORA
    | {"target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"},
    "IA3": _KNOWN | {"feedforward_modules", "init_ia3_weights"},
}
_MOVES = "it moves a part of the base weights into the adapter"
REFUSED_OPTIONS = {
    "alora_invocation_tokens": "the adapter begins inside the text, at its invocation tokens",
    "arrow_config": "it mixes several adapters by the input",
    "corda_config": _MOVES,
    "kasa_config": "it changes the base weights, and adds a factor between lora_A and lora_B",
    "layer_replication": "it makes a deeper model than the foundation",
    "lora_ga_config": _MOVES,
    "megatron_config": "it is for Megatron's layers, which no foundation has",
    "monteclora_config": "it draws its weights at random",
    "target_parameters": "it changes parameters that are no linear layers",
    "trainable_token_indices": "it changes token embeddings, which all adapters share",
    "use_bdlora": "its factors are block-diagonal",
    "use_qalora": "it is for quantised layers, whose inputs it averages in groups",
    "velora_config": "its file holds tensors that only its training uses",
}
# Initialisations that leave the foundation's weights unchanged.
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
REFUSED_INITS = ("olora", "pissa", "pissa_niter_N", "corda", "loftq", "lora_ga")
_ANY = {*REFUSED_OPTIONS}.union(*KNOWN_TO.values())
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})", re.ASCII)


def foreign_keys(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a config that are not options of PEFT, such as a comment; PEFT ignores them too.

    Raise Rejected (check "schema") that names an option that is not served for this kind or that a newer PEFT
    wrote.
    """
    foreign = []
    for key, option in config.items():
        if key in KNOWN_TO[kind] or option in (None, False, [], {}):
            continue
        if key in _ANY:
            reason = REFUSED_OPTIONS.get(key, f"this server has no such option for {kind}")
            raise wrong_option(key, f"{option!r} is not served: {reason}; train without it")
        if _is_newer(config.get("peft_version")):
            known = ".".join(map(str, PEFT_VERSION))
            raise wrong_option(
                key,
                f"{option!r} is not served: it may change the outputs; PEFT {config['peft_version']} wrote it, "
                f"and this server knows the options up to PEFT {known}; train without it",
            )
        foreign.append(key)
    return tuple(foreign)


def check_init(init: Any) -> None:
    """Raise Rejected (check "schema") if LoRA's initialisation changed the foundation's weights."""
    if (init.lower() if isinstance(init, str) else init) not in PLAIN_INITS:
        raise wrong_option(
            "init_lora_weights",
            f"{init!r} changes the base weights; to get a plain LoRA, save with "
            "path_initial_model_for_weight_conversion",
        )


def _is_newer(version: Any) -> bool:
    """Return whether a newer PEFT wrote the config. A config without a version is from an older PEFT."""
    match = _VERSION.match(version) if isinstance(version, str) else None
    return match is not None and (int(match[1]), int(match[2])) > PEFT_VERSION
