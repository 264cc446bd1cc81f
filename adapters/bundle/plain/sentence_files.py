"""Reads how a plain PEFT folder embeds a text, from the files that sentence-transformers wrote into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rootstock.adapters.embedding_files import (
    MODULES,
    StatedEmbedding,
    UnservedEmbedding,
    lists_pooling,
    read_embedding,
)
from rootstock.adapters.spec import Rejected
from rootstock.adapters.strict_json.json_member import read_value

_OTHER_TRAINING = (
    f"train the adapter without this setting, or leave out {MODULES} and give the form field `task`: the adapter "
    "then embeds as the foundation does"
)


def has_pooling(descriptions: Mapping[str, bytes]) -> bool:
    """Return whether the files describe a model for embeddings; raise Rejected if modules.json is not JSON."""
    return lists_pooling(_reader(descriptions)(MODULES))


def read_sentence_files(descriptions: Mapping[str, bytes], lowercases: bool) -> StatedEmbedding | None:
    """Return the embedding method that the files state; None for a folder without modules.

    `lowercases` states whether the foundation's tokenizer makes text lower-case. Raise Rejected (check "schema")
    for a setting that is not served.
    """
    try:
        return read_embedding(_reader(descriptions), lowercases)
    except UnservedEmbedding as error:
        raise Rejected("schema", error.where, error.with_remedy(_OTHER_TRAINING)) from None


def _reader(descriptions: Mapping[str, bytes]) -> Callable[[str], Any]:
    return lambda path: read_value(descriptions[path], path) if path in descriptions else None
