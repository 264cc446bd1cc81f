"""The kinds of PEFT adapter: those served directly, those converted to LoRA first, and those refused."""

from __future__ import annotations

from typing import Any

from rootstock.adapters.spec import Rejected

NATIVE = ("LORA", "IA3", "ADALORA", "LN_TUNING", "TRAINABLE_TOKENS")
# PEFT merges each of these into the trunk's weights and biases, so a LoRA can replace it (adapters/convert).
CONVERTED = (
    "ADAMSS", "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "GLORA", "GRALORA", "HIRA", "HRA", "LOHA",
    "LOKR", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA", "ROAD", "TINYLORA", "UNILORA",
    "VBLORA", "VERA", "WAVEFT",
)  # fmt: skip
_TOKENS = "it puts trained vectors before the input, and rows of one batch would differ in length"
_PROMPTS = "it adds trained keys and values to the attention layers"
_SPARSE = "it changes scattered entries of the weights, which no low rank stands for"
_ROUTED = "its weights depend on the input, and no fixed update of a layer stands for them"
REFUSED = {
    "PROMPT_TUNING": _TOKENS,
    "MULTITASK_PROMPT_TUNING": _TOKENS,
    "P_TUNING": _TOKENS,
    "CPT": _TOKENS,
    "PREFIX_TUNING": _PROMPTS,
    "ADAPTION_PROMPT": _PROMPTS,
    "CARTRIDGE": _PROMPTS,
    "LILY": _ROUTED,
    "POLY": _ROUTED,
    "XLORA": _ROUTED,
    "SHIRA": _SPARSE,
    "SUPERTUNING": _SPARSE,
    "FROD": _SPARSE,
    "SHADOW": "it runs a second network beside the foundation",
}


class Unconverted(Rejected):
    """The refusal of an adapter that must first be converted to LoRA.

    `kind` is its `peft_type`, for a LoRA with what makes the conversion necessary.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(
            "schema",
            "adapter_config.json: peft_type",
            f"{kind!r} must be converted to LoRA first; run: rootstock adapters convert FOLDER OUT.zip",
        )


def check_kind(kind: Any) -> None:
    """Raise Rejected (check "schema") for a `peft_type` that is not served without a conversion.

    Raise Unconverted for one that can be converted.
    """
    if kind in NATIVE:
        return
    if kind in CONVERTED:
        raise Unconverted(kind)
    reason = REFUSED.get(kind) if isinstance(kind, str) else None
    if reason is not None:
        raise wrong_option("peft_type", f"{kind!r} cannot be served: {reason}")
    raise wrong_option(
        "peft_type",
        f"{kind!r} is not served; use one of: {', '.join(NATIVE)}, null for a head alone, or, converted to LoRA: "
        f"{', '.join(CONVERTED)}",
    )


def wrong_option(key: str, message: str) -> Rejected:
    """Return the Rejected error for one option of `adapter_config.json`."""
    return Rejected("schema", f"adapter_config.json: {key}", message)
