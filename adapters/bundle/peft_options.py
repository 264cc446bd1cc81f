"""Every option of PEFT's configs for the kinds that are served as they are: read, without effect, or refused.

docs/compatibility.md lists them; a test holds the tables to the installed PEFT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rootstock.adapters.bundle.kinds.methods import wrong_option

# The newest PEFT whose options stand here; what a newer one adds may change outputs.
PEFT_VERSION = (0, 21)

# Read by this package, or without effect on a trained adapter's outputs; beside them those of the kind.
_KNOWN = {
    "peft_type", "task_type", "target_modules", "exclude_modules", "modules_to_save", "auto_mapping",
    "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    # PEFT itself sets it by the module's class.
    "fan_in_fan_out",
}  # fmt: skip
_KNOWN_TO_LORA = {
    "layers_to_transform", "layers_pattern", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    "init_lora_weights", "bias", "lora_dropout", "megatron_core", "qalora_group_size", "loftq_config",
    "runtime_config", "eva_config", "ensure_weight_tying",
}  # fmt: skip
KNOWN_TO = {
    "LORA": _KNOWN | _KNOWN_TO_LORA | {"use_dora", "lora_bias"},
    # r, alpha_pattern and use_rslora are LoRA's; PEFT's AdaLoRA does not read them.
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
# How the weights began; these leave the foundation's as they are.
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
REFUSED_INITS = ("olora", "pissa", "pissa_niter_N", "corda", "loftq", "lora_ga")
_ANY = {*REFUSED_OPTIONS}.union(*KNOWN_TO.values())
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})", re.ASCII)


def foreign_keys(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a config that are no options of PEFT's, such as a comment; PEFT ignores them too.

    Rejected (check "schema") naming an option that is not served for this kind, or that is of a newer PEFT.
    """
    foreign = []
    for key, option in config.items():
        if key in KNOWN_TO[kind] or option in (None, False, [], {}):
            continue
        if key in _ANY:
            reason = REFUSED_OPTIONS.get(key, f"{kind} has no such option here")
            raise wrong_option(key, f"{option!r} is not served: {reason}; train without it")
        if _is_newer(config.get("peft_version")):
            known = ".".join(map(str, PEFT_VERSION))
            raise wrong_option(
                key,
                f"{option!r} is not served: it may change the outputs; PEFT {config['peft_version']} wrote it, "
                f"and the options up to PEFT {known} are known here; train without it",
            )
        foreign.append(key)
    return tuple(foreign)


def check_init(init: Any) -> None:
    """Raise Rejected (check "schema") unless LoRA's initial weights leave the foundation's as they are."""
    if (init.lower() if isinstance(init, str) else init) not in PLAIN_INITS:
        raise wrong_option(
            "init_lora_weights",
            f"{init!r} changes the base weights; save with path_initial_model_for_weight_conversion so that it "
            "becomes a plain LoRA",
        )


def _is_newer(version: Any) -> bool:
    """Return whether a newer PEFT wrote the config. One from before PEFT wrote its version is older."""
    match = _VERSION.match(version) if isinstance(version, str) else None
    return match is not None and (int(match[1]), int(match[2])) > PEFT_VERSION
