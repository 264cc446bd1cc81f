"""The foundation's tokenizer.json, in the form with which adapters' files are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rootstock.adapters.vocabulary.added_token import AddedToken

# The parts that decide how text becomes tokens, beside the added tokens.
PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model")


@dataclass(frozen=True)
class OwnTokenizer:
    """The contents of a tokenizer.json: the digests of its parts, its vocabulary and its added tokens.

    `vocabulary` has the id of each text, `added` the added tokens by their texts, and `nbytes` the file's size.
    """

    parts: Mapping[str, str]
    vocabulary: Mapping[str, int]
    added: Mapping[str, AddedToken]
    nbytes: int

    @property
    def free(self) -> int:
        """Return the id that the tokenizers library gives the next added token which is not in the vocabulary."""
        return max(len(self.vocabulary), *(token.id + 1 for token in self.added.values()), 0)


def own_tokenizer(content: Mapping[str, Any], nbytes: int) -> OwnTokenizer:
    """Return the content of a foundation's tokenizer.json, which its file of so many bytes holds."""
    vocabulary = content["model"].get("vocab") or {}
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    known = [field.name for field in fields(AddedToken)]
    added = [
        AddedToken(**{key: token[key] for key in known if key in token})
        for token in content.get("added_tokens") or []
    ]
    parts = {part: part_digest(content.get(part)) for part in PARTS}
    return OwnTokenizer(parts, vocabulary, {token.content: token for token in added}, nbytes)


def part_digest(part: Any) -> str:
    """Return a digest that is equal for parts which tokenise alike."""
    # Keys may be of any text, and half a surrogate pair has no form in UTF-8.
    text = json.dumps(_plain(part), sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _plain(part: Any) -> Any:
    """Return a part of a tokenizer.json without what versions of the library write differently for the same.

    They write a pair of BPE as "a b" or as ["a", "b"], and leave out a key or write null or false.
    """
    if not isinstance(part, dict):
        return part
    kept = {key: _plain(value) for key, value in part.items() if value is not None and value is not False}
    if isinstance(merges := kept.get("merges"), list):
        kept["merges"] = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
    return kept
