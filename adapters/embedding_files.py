"""Reads how a model embeds a text, from the files that sentence-transformers writes into the model's folder.

A foundation and a plain PEFT folder have the same files and follow the same rules. Every setting is either served
or refused by name; none is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rootstock.adapters.spec import MAX_PREFIX_CHARACTERS, Pooling

# A function that returns the JSON value in a file, by its path in the folder; None if there is no such file.
Read = Callable[[str], Any]

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
TOKENIZER = "tokenizer_config.json"
# The names of one file in all versions of sentence-transformers, in the order in which it looks for them.
SENTENCE = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_SERVED = ("Transformer", "Pooling", "Normalize")
# Older versions have a key for each mode of pooling.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SERVED_POOLINGS = "mean, cls or lasttoken"
# The values for which an option changes nothing, besides None, false and empty values. True means any value.
_NEUTRAL: Mapping[str, Any] = {
    "max_seq_length": True,
    "do_lower_case": True,
    "unpad_inputs": True,
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


@dataclass(frozen=True)
class StatedEmbedding:
    """An embedding method as the files state it: pooling, then an optional L2 norm.

    `max_tokens` is the longest text, or None if no file states it. `prefix` is the default prompt.
    """

    pooling: Pooling
    normalize: bool
    max_tokens: int | None
    prefix: str


class UnservedEmbedding(ValueError):
    """The refusal of a setting that is not served.

    `where` is the file, and `cause` names the setting. `remedy` is None if the files cannot be put right.
    """

    def __init__(self, where: str, cause: str, remedy: str | None = None) -> None:
        self.where, self.cause, self.remedy = where, cause, remedy
        super().__init__(f"{where}: {cause}")

    def with_remedy(self, otherwise: str) -> str:
        """Return the cause and its remedy. `otherwise` is the remedy if the refusal has none."""
        return f"{self.cause}; {self.remedy or otherwise}"


def read_embedding(read: Read, lowercases: bool) -> StatedEmbedding | None:
    """Return the embedding method that a folder's files state; None for a folder without modules.

    `lowercases` states whether the foundation's tokenizer makes text lower-case. Raise UnservedEmbedding for a
    setting that is not served.
    """
    listed = read(MODULES)
    if listed is None:
        return None
    folders = _folders(listed)
    prefix = _default_prompt(_object(read, PROMPTS))
    pooling = _pooling(read, folders["Pooling"], prefix)
    if "Normalize" in folders:
        _check_normalize(read, folders["Normalize"])
    return StatedEmbedding(pooling, "Normalize" in folders, _limit(read, lowercases), prefix)


def lists_pooling(listed: Any) -> bool:
    """Return whether the value in modules.json lists a Pooling, as that of a model for embeddings does.

    The result is also true for a value that is no list of modules, which `read_embedding` refuses.
    """
    if listed is None:
        return False
    return not _are_modules(listed) or any(m["type"].rpartition(".")[2] == "Pooling" for m in listed)


def token_limit(where: str, settings: Mapping[str, Any], key: str) -> int | None:
    """Return the limit in tokens that a file's settings state under a key; None if they state none.

    Raise UnservedEmbedding for a value that is not a whole number of at least 3.
    """
    value = settings.get(key)
    if value is None:
        return None
    # transformers writes 10**30 for no limit, which other programs may have made a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 3 or value % 1 != 0:
        raise UnservedEmbedding(where, f"{key} is {value!r}", "give a whole number of at least 3")
    return int(value)


def _folders(listed: Any) -> dict[str, str]:
    """Return the folder of each module by its kind; raise UnservedEmbedding for an unserved kind or order."""
    if not _are_modules(listed):
        raise UnservedEmbedding(
            MODULES, "the value is not a list of modules, each with a `type` and a `path`", "save the model again"
        )
    kinds = []
    for module in listed:
        path = PurePosixPath(module["path"])
        if path.is_absolute() or ".." in path.parts:
            raise UnservedEmbedding(
                MODULES, f"the module's folder {module['path']!r} is outside the model's", "save the model again"
            )
        package, _, kind = module["type"].rpartition(".")
        if package.partition(".")[0] != "sentence_transformers" or kind not in _SERVED:
            where = f" (folder {module['path']!r})" if module["path"] else ""
            raise UnservedEmbedding(
                MODULES, f"the module {module['type']!r}{where} is not served; served: {', '.join(_SERVED)}"
            )
        kinds.append(kind)
    if kinds not in ([*_SERVED[:2]], [*_SERVED]):
        raise UnservedEmbedding(
            MODULES,
            f"the modules are {', '.join(kinds) or 'none'}; served: Transformer and Pooling, then Normalize or "
            "nothing",
        )
    if listed[0]["path"] not in ("", "."):
        raise UnservedEmbedding(
            MODULES,
            f"the model lies in the folder {listed[0]['path']!r}",
            f"save it with a newer sentence-transformers, which puts it beside {MODULES}",
        )
    return {kind: module["path"] for kind, module in zip(kinds, listed, strict=True)}


def _are_modules(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(module, dict) and all(isinstance(module.get(key), str) for key in ("type", "path"))
        for module in value
    )


def _pooling(read: Read, folder: str, prefix: str) -> Pooling:
    where = _config_in(folder)
    settings = _object(read, where)
    if not settings:
        raise UnservedEmbedding(where, f"a Pooling without settings is not served; served: {_SERVED_POOLINGS}")
    mode_setting = settings.get("pooling_mode")
    if mode_setting is None:
        # sentence-transformers takes the mean if no mode is on.
        mode_setting = [mode for key, mode in _POOLINGS.items() if settings.get(key)] or ["mean"]
    modes = mode_setting if isinstance(mode_setting, list) else [mode_setting]
    known = ("pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension", *_POOLINGS)
    _refuse_unknown(where, {k: v for k, v in settings.items() if k not in known})
    if prefix and settings.get("include_prompt") is False:
        raise UnservedEmbedding(where, "include_prompt is false, but this server always pools the default prompt")
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    if modes == ["lasttoken"]:
        return "last"
    joined = " and ".join(map(str, modes))
    raise UnservedEmbedding(where, f"the pooling {joined} is not served; served: {_SERVED_POOLINGS}")


def _check_normalize(read: Read, folder: str) -> None:
    where = _config_in(folder)
    for key, value in _object(read, where).items():
        if value not in (None, "sentence_embedding"):
            raise UnservedEmbedding(where, f"{key} is {value!r}; served: 'sentence_embedding', the pooled vector")


def _limit(read: Read, lowercases: bool) -> int | None:
    """Check the options of the files that state the longest text, and return that length in tokens."""
    # sentence-transformers skips a file without settings.
    where = next((name for name in SENTENCE if read(name)), SENTENCE[0])
    settings = _object(read, where)
    _refuse_unknown(where, settings)
    if settings.get("do_lower_case") and not lowercases:
        raise UnservedEmbedding(
            where,
            "do_lower_case is true, and tokenizer.json of the foundation does not make text lower-case",
            "add the normalizer Lowercase to tokenizer.json",
        )
    # Both are checked, although the first one wins.
    own = token_limit(where, settings, "max_seq_length")
    tokenizer = token_limit(TOKENIZER, _object(read, TOKENIZER), "model_max_length")
    return tokenizer if own is None else own


def _default_prompt(settings: Mapping[str, Any]) -> str:
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts") or {}
    if (dimensions := settings.get("truncate_dim")) is not None:
        raise UnservedEmbedding(PROMPTS, f"truncate_dim is {dimensions!r}, which is not served")
    if name is None:
        return ""
    # sentence-transformers itself defines these two as empty prompts.
    known = {"query": "", "document": "", **prompts} if isinstance(prompts, dict) else {}
    prompt = known.get(name) if isinstance(name, str) else None
    if not isinstance(prompt, str):
        raise UnservedEmbedding(
            PROMPTS,
            f"default_prompt_name is {name!r}, and `prompts` has no such prompt",
            "add it, or leave out default_prompt_name",
        )
    if len(prompt) > MAX_PREFIX_CHARACTERS:
        raise UnservedEmbedding(
            PROMPTS,
            f"the prompt {name!r} has {len(prompt)} characters and the limit is {MAX_PREFIX_CHARACTERS}",
            "shorten it",
        )
    return prompt


def _refuse_unknown(where: str, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        neutral = _NEUTRAL.get(key)
        if value and neutral is not True and value != neutral:
            raise UnservedEmbedding(where, f"{key} is {value!r}, which is not served")


def _config_in(folder: str) -> str:
    return str(PurePosixPath(folder) / "config.json")


def _object(read: Read, path: str) -> Mapping[str, Any]:
    value = read(path)
    if value is not None and not isinstance(value, dict):
        raise UnservedEmbedding(path, f"holds {type(value).__name__}, not an object", "save the model again")
    return value or {}
