"""Reads how a sentence-transformers folder embeds a text, from the files that describe its modules.

Each step of that library is either served or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rootstock.adapters.bundle.manifest import read_json
from rootstock.adapters.spec import HeadSpec, Pooling, Rejected

MODULES = "modules.json"
_SERVED = ("Transformer", "Pooling", "Normalize")
_SENTENCE = "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_TOKENIZER = "tokenizer_config.json"


@dataclass(frozen=True)
class SentenceModules:
    """A sentence-transformers model: pooling and normalisation (`head`), longest text in tokens, and prompt."""

    head: HeadSpec
    max_length: int | None
    prefix: str


def read_sentence_modules(descriptions: Mapping[str, bytes]) -> SentenceModules | None:
    """Return the model that the files describe; None if they describe none, or one without a Pooling module.

    Raise Rejected (check "schema") for a module or option that is not served.
    """
    if MODULES not in descriptions:
        return None
    kinds = _kinds(descriptions[MODULES])
    if "Pooling" not in kinds:
        return None
    for kind in kinds:
        if kind not in _SERVED:
            raise _refused(MODULES, f"the module {kind!r} is not served; use only: {', '.join(_SERVED)}")
    pooling = _object(descriptions, f"{kinds['Pooling']}/config.json")
    prefix = _prefix(descriptions)
    if prefix and pooling.get("include_prompt") is False:
        where = f"{kinds['Pooling']}/config.json"
        raise _refused(where, "include_prompt=false is not served; train with a pooling that includes the prompt")
    sentence = _object(descriptions, _SENTENCE)
    if sentence.get("do_lower_case"):
        raise _refused(_SENTENCE, "do_lower_case is not served; let the tokenizer make the text lower-case")
    lengths = (sentence.get("max_seq_length"), _object(descriptions, _TOKENIZER).get("model_max_length"))
    length = next((v for v in lengths if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)
    head = HeadSpec("linear", pooling=_pooling(pooling, kinds["Pooling"]), normalize="Normalize" in kinds)
    return SentenceModules(head, length, prefix)


def _kinds(data: bytes) -> dict[str, str]:
    """Return the folder of each module, by the last part of its class's name."""
    try:
        listed = read_json(b'{"modules": ' + data + b"}", MODULES)["modules"]
        return {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in listed}
    except (TypeError, KeyError):
        raise _refused(MODULES, "is not a list of modules, each with a `type` and a `path`") from None


def _pooling(config: Mapping[str, Any], folder: str) -> Pooling:
    mode = config.get("pooling_mode")
    # Older versions have a key for each mode.
    keys = [k.removeprefix("pooling_mode_") for k, on in config.items() if k.startswith("pooling_mode_") and on]
    modes = keys if mode is None else mode if isinstance(mode, list) else [mode]
    if modes in (["mean"], ["mean_tokens"]):
        return "mean"
    if modes in (["cls"], ["cls_token"]):
        return "cls"
    raise _refused(f"{folder}/config.json", f"the pooling {modes} is not served; served: mean, cls")


def _prefix(descriptions: Mapping[str, bytes]) -> str:
    config = _object(descriptions, _PROMPTS)
    name, prompts = config.get("default_prompt_name"), config.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    return prompt if isinstance(prompt, str) else ""


def _object(descriptions: Mapping[str, bytes], path: str) -> Mapping[str, Any]:
    return read_json(descriptions[path], path) if path in descriptions else {}


def _refused(where: str, message: str) -> Rejected:
    return Rejected("schema", where, message)
