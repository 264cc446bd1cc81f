"""Checks that tokenizer_config.json agrees with tokenizer.json, which alone is served.

For some keys, transformers' classes follow tokenizer_config.json instead of tokenizer.json. A disagreement in one
of these keys is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

CONFIG = "tokenizer_config.json"
_BERT = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
# By class, the keys that it follows even if tokenizer.json says otherwise, with their defaults. Other classes use
# tokenizer.json unchanged.
_OBEYED: Mapping[str, Mapping[str, bool | None]] = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "MPNetTokenizer": _BERT,
    "RobertaTokenizer": {"add_prefix_space": False},
    "GPT2Tokenizer": {"add_prefix_space": False},
    "XLMRobertaTokenizer": {"add_prefix_space": True},
    "CamembertTokenizer": {"add_prefix_space": True},
    "AlbertTokenizer": {"do_lower_case": True, "keep_accents": False, "add_prefix_space": True},
    "DebertaV2Tokenizer": {"do_lower_case": False, "split_by_punct": False},
}
# The class for a file that names none, by `model_type`.
_CLASSES = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "albert": "AlbertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "camembert": "CamembertTokenizer",
    "nomic_bert": "BertTokenizer",
    "gte": "XLMRobertaTokenizer",
    "jina_embeddings_v3": "XLMRobertaTokenizer",
}


def lowercases(tokenizer: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer of a tokenizer.json makes text lower-case."""
    return any(
        part["type"] == "Lowercase" or (part["type"] == "BertNormalizer" and part.get("lowercase"))
        for part in _parts(tokenizer.get("normalizer"))
    )


def disagreement(config: Mapping[str, Any], tokenizer: Mapping[str, Any], model_type: str | None) -> str | None:
    """Return a sentence on how the two files disagree, with the remedy; None if they agree."""
    name = config.get("tokenizer_class") or _CLASSES.get(model_type or "") or ""
    for key, default in _OBEYED.get(str(name).removesuffix("Fast"), {}).items():
        stated, done = config.get(key, default), _DONE[key](tokenizer)
        if stated is None:
            # Unless a file states otherwise, accents are stripped if the text is made lower-case.
            stated = config.get("do_lower_case", True)
        if done is not None and bool(stated) != done:
            return (
                f"{CONFIG} {'says' if key in config else 'leaves'} {key} {_said(stated)}, and for tokenizer.json "
                f"it is {_said(done)}; make the two agree: save the tokenizer again with transformers"
            )
    if (side := config.get("truncation_side")) not in (None, "right"):
        return f"{CONFIG} says truncation_side {side!r}, and a foundation truncates on the right; set 'right'"
    return _other_ids(config, tokenizer)


def _said(value: Any) -> str:
    return "true" if value else "false"


def token_ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of all tokens of a tokenizer.json."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: i for i, entry in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}}


def _other_ids(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> str | None:
    listed = config.get("added_tokens_decoder")
    if not isinstance(listed, dict) or not listed:
        return None
    ids = token_ids(tokenizer)
    for number, token in listed.items():
        content = str(token.get("content") if isinstance(token, dict) else token)
        if str(ids.get(content)) != number:
            other = f"the id {ids[content]}" if content in ids else "none"
            return (
                f"{CONFIG} gives the token {content!r} the id {number} and tokenizer.json gives it {other}; save "
                "the tokenizer again with transformers"
            )
    return None


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the components of a part of tokenizer.json, those inside sequences included."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        yield value
        for key in ("normalizers", "pretokenizers", "processors"):
            for part in value.get(key) or ():
                yield from _parts(part)


def _of_bert(key: str) -> Callable[[Mapping[str, Any]], bool | None]:
    def done(tokenizer: Mapping[str, Any]) -> bool | None:
        for part in _parts(tokenizer.get("normalizer")):
            if part["type"] == "BertNormalizer":
                # Unless the file states otherwise, the setting follows `lowercase`.
                value = part.get("lowercase") if part.get(key) is None else part[key]
                return bool(value)
        return None

    return done


def _strips_accents(tokenizer: Mapping[str, Any]) -> bool:
    return any(part["type"] == "StripAccents" for part in _parts(tokenizer.get("normalizer")))


def _adds_space(tokenizer: Mapping[str, Any]) -> bool | None:
    for part in _parts(tokenizer.get("pre_tokenizer")):
        if part["type"] == "ByteLevel":
            return bool(part.get("add_prefix_space"))
        if part["type"] == "Metaspace":
            return bool(part.get("prepend_scheme", "always") != "never")
    return None


def _splits_punctuation(tokenizer: Mapping[str, Any]) -> bool:
    return any(part["type"] == "Punctuation" for part in _parts(tokenizer.get("pre_tokenizer")))


# By key, a function that returns whether tokenizer.json does what the key asks for; None if it cannot know.
_DONE: Mapping[str, Callable[[Mapping[str, Any]], bool | None]] = {
    "do_lower_case": lowercases,
    "strip_accents": _of_bert("strip_accents"),
    "tokenize_chinese_chars": _of_bert("handle_chinese_chars"),
    "keep_accents": lambda tokenizer: not _strips_accents(tokenizer),
    "add_prefix_space": _adds_space,
    "split_by_punct": _splits_punctuation,
}
