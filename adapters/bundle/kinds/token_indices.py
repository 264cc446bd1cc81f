"""The ids of the tokens whose embedding was trained, as an adapter's config states them."""

from __future__ import annotations

from typing import Any

from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.vocabulary.words import MAX_WORD_ROWS

# The word embedding, and the output layer.
_MOST_MODULES = 2


def check_indices(value: Any, key: str) -> None:
    """Raise Rejected (check "schema") for a value of `key` that is no list of ids, or an object of lists.

    An object has a list for the word embedding, for the output layer or for both.
    """
    lists = list(value.values()) if isinstance(value, dict) else [value]
    if len(lists) > _MOST_MODULES:
        message = f"{sorted(value)!r}: only tokens of the word embedding and of the output layer can be trained"
        raise wrong_option(key, message)
    for ids in lists:
        if not isinstance(ids, list) or len(ids) > MAX_WORD_ROWS:
            raise wrong_option(key, f"not a list of at most {MAX_WORD_ROWS} ids of tokens")
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31 for i in ids):
            raise wrong_option(key, "an id of a token is not a whole number of at least 0")
