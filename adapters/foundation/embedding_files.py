"""Reads how a foundation embeds a text, from the files that sentence-transformers puts beside its model.

Every setting is either served or refused by name; none is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rootstock.adapters.spec import EmbeddingSpec, Pooling

# A function that returns the JSON value in a file, by its path in the folder; None if there is no such file.
Read = Callable[[str], Any]

MODULES = "modules.json"
_PROMPTS = "config_sentence_transformers.json"
_SERVED = ("Transformer", "Pooling", "Normalize")
_REMEDY = f"choose another model, or give a folder without {MODULES}, whose embeddings are the mean of its tokens"
# The names of one file in all versions of sentence-transformers, in the order in which it looks for them.
_SENTENCE = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Older versions have a key for each mode of pooling.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# The values for which an option changes nothing, besides None, false and empty values. True means any value.
_NEUTRAL: Mapping[str, Any] = {
    "max_seq_length": True,
    "do_lower_case": True,
    "unpad_inputs": True,
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


class UnservedEmbedding(ValueError):
    """The refusal of a setting that is not served; the message names the file, the setting and the remedy."""


def read_embedding(read: Read, max_tokens: int, lowercases: bool) -> EmbeddingSpec | None:
    """Return the embedding method that the folder's files state; None for a folder without modules.

    `lowercases` states whether the tokenizer itself makes text lower-case. Raise UnservedEmbedding for a setting
    that is not served.
    """
    listed = read(MODULES)
    if listed is None:
        return None
    folders = _folders(listed)
    prefix = _default_prompt(_object(read, _PROMPTS))
    pooling = _pooling(read, folders["Pooling"], prefix)
    if "Normalize" in folders:
        _check_normalize(_object(read, f"{folders['Normalize']}/config.json"))
    limit = _limit(read, max_tokens, lowercases)
    return EmbeddingSpec(pooling, "Normalize" in folders, limit, prefix)


def _folders(listed: Any) -> dict[str, str]:
    """Return the folder of each module by its kind; raise UnservedEmbedding for an unserved kind or order."""
    if not isinstance(listed, list) or not all(_is_module(module) for module in listed):
        raise UnservedEmbedding(f"{MODULES} is not a list of modules, each with a `type` and a `path`")
    kinds = []
    for module in listed:
        package, _, kind = module["type"].rpartition(".")
        if package.partition(".")[0] != "sentence_transformers" or kind not in _SERVED:
            where = f" (folder {module['path']!r})" if module["path"] else ""
            raise UnservedEmbedding(
                f"{MODULES}: the module {module['type']!r}{where} is not served; served: {', '.join(_SERVED)}; "
                f"{_REMEDY}"
            )
        kinds.append(kind)
    if kinds not in ([*_SERVED[:2]], [*_SERVED]):
        raise UnservedEmbedding(
            f"{MODULES}: the modules are {', '.join(kinds) or 'none'}; served: Transformer and Pooling, then "
            f"Normalize or nothing; {_REMEDY}"
        )
    if listed[0]["path"] not in ("", "."):
        raise UnservedEmbedding(
            f"{MODULES}: the model lies in the folder {listed[0]['path']!r}; save it with a newer "
            f"sentence-transformers, which puts it beside {MODULES}"
        )
    return {kind: module["path"] for kind, module in zip(kinds, listed, strict=True)}


def _is_module(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("type", "path"))


def _pooling(read: Read, folder: str, prefix: str) -> Pooling:
    where = f"{folder}/config.json"
    settings = _object(read, where)
    mode_setting = settings.get("pooling_mode")
    if mode_setting is None:
        # sentence-transformers takes the mean if no mode is on.
        mode_setting = [mode for key, mode in _POOLINGS.items() if settings.get(key)] or ["mean"]
    modes = mode_setting if isinstance(mode_setting, list) else [mode_setting]
    known = ("pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension", *_POOLINGS)
    _refuse_unknown(where, {k: v for k, v in settings.items() if k not in known})
    if prefix and settings.get("include_prompt") is False:
        raise UnservedEmbedding(
            f"{where}: include_prompt is false, but this server always pools the default prompt; {_REMEDY}"
        )
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    joined = " and ".join(map(str, modes))
    raise UnservedEmbedding(f"{where}: the pooling {joined} is not served; served: mean or cls; {_REMEDY}")


def _check_normalize(settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if value not in (None, "sentence_embedding"):
            raise UnservedEmbedding(
                f"Normalize: {key} is {value!r}; served: 'sentence_embedding', the pooled vector; {_REMEDY}"
            )


def _limit(read: Read, max_tokens: int, lowercases: bool) -> int:
    """Check the options of the file that states the longest input, and return that length in tokens."""
    where = next((name for name in _SENTENCE if read(name) is not None), _SENTENCE[0])
    settings = _object(read, where)
    _refuse_unknown(where, settings)
    if settings.get("do_lower_case") and not lowercases:
        raise UnservedEmbedding(
            f"{where}: do_lower_case is true, and tokenizer.json does not make text lower-case; add the "
            "normalizer Lowercase to it"
        )
    limit = settings.get("max_seq_length")
    if limit is None:
        return max_tokens
    if type(limit) is not int or limit < 3:
        raise UnservedEmbedding(f"{where}: max_seq_length is {limit!r}; give a whole number of at least 3")
    return min(limit, max_tokens)


def _default_prompt(settings: Mapping[str, Any]) -> str:
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts") or {}
    if (dimensions := settings.get("truncate_dim")) is not None:
        raise UnservedEmbedding(f"{_PROMPTS}: truncate_dim is {dimensions!r}, which is not served; {_REMEDY}")
    if name is None:
        return ""
    # sentence-transformers itself defines these two as empty prompts.
    prompt = {"query": "", "document": "", **prompts}.get(name) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise UnservedEmbedding(
            f"{_PROMPTS}: default_prompt_name is {name!r}, and `prompts` has no such prompt; add it, or leave "
            "out default_prompt_name"
        )
    return prompt


def _refuse_unknown(where: str, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        neutral = _NEUTRAL.get(key)
        if value and neutral is not True and value != neutral:
            raise UnservedEmbedding(f"{where}: {key} is {value!r}, which is not served; {_REMEDY}")


def _object(read: Read, path: str) -> Mapping[str, Any]:
    value = read(path)
    if value is not None and not isinstance(value, dict):
        raise UnservedEmbedding(f"{path} holds {type(value).__name__}, not an object")
    return value or {}
