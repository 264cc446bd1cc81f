"""Reads the tokens that an adapter's tokenizer adds to the foundation's, and refuses any other difference.

Nothing here runs a tokenizer: the files are compared as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.bundle.archive import TOKENIZER_FILE
from rootstock.adapters.bundle.vocabulary.own_tokenizer import OwnTokenizer, part_digest
from rootstock.adapters.spec import Rejected
from rootstock.adapters.vocabulary.added_token import MAX_ADDED_TOKENS, MAX_TOKEN_CHARACTERS, AddedToken

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MAX_ID = 2**31


def added_tokens(content: Mapping[str, Any], own: OwnTokenizer) -> tuple[AddedToken, ...]:
    """Return the tokens that a tokenizer.json adds to the foundation's, `own`, by ascending id.

    Raise Rejected (check "schema") for a file that differs in anything else, because the server runs the
    foundation's tokenizer with these tokens added.
    """
    for part, digest in own.parts.items():
        if part_digest(content.get(part)) != digest:
            raise _wrong(
                part,
                "differs from the foundation's; an adapter may only add tokens: add them to the foundation's own "
                "tokenizer with add_tokens, and save it",
            )
    before = own.added
    after = {token.content: token for token in read_tokens(content.get("added_tokens"), TOKENIZER_FILE, None)}
    for text, token in before.items():
        if after.get(text) != token:
            state = "is missing" if text not in after else "differs from the foundation's"
            raise _wrong("added_tokens", f"{text!r} {state}; an adapter may only add tokens")
    added = tuple(sorted(token for text, token in after.items() if text not in before))
    _check_count(added, f"{TOKENIZER_FILE}: added_tokens")
    check_ids(added, own)
    return added


def read_tokens(value: Any, member: str, most: int | None = MAX_ADDED_TOKENS) -> tuple[AddedToken, ...]:
    """Return the tokens in the JSON value of `added_tokens`.

    Raise Rejected (check "schema") that names the fault. `most` limits their number.
    """
    where = f"{member}: added_tokens"
    if value is None and most is None:
        return ()
    if not isinstance(value, list):
        raise Rejected("schema", where, f"{value!r} is not a list")
    if most is not None:
        _check_count(value, where)
    tokens = tuple(_token(entry, where) for entry in value)
    for key in ("id", "content"):
        if len({getattr(token, key) for token in tokens}) != len(tokens):
            raise Rejected("schema", where, f"two tokens have the same {key}")
    return tokens


def check_ids(tokens: Sequence[AddedToken], own: OwnTokenizer) -> None:
    """Raise Rejected (check "schema") if the foundation's tokenizer would give an added token another id.

    The tokenizers library gives a token that is in the vocabulary the id that it has there, and any other the
    next free id.
    """
    vocabulary, free = own.vocabulary, own.free
    for token in sorted(tokens):
        expected = vocabulary.get(token.content, free)
        if token.id != expected:
            raise Rejected(
                "schema",
                "added_tokens",
                f"{token.content!r} has the id {token.id}, and the foundation's tokenizer gives it {expected}; "
                "add the tokens to the foundation's own tokenizer, and save it",
            )
        free += token.content not in vocabulary


def _token(entry: Any, where: str) -> AddedToken:
    if not isinstance(entry, dict) or set(entry) != {"id", "content", *_FLAGS}:
        raise Rejected("schema", where, f"{entry!r} does not have the keys id, content, {', '.join(_FLAGS)}")
    number, text = entry["id"], entry["content"]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < _MAX_ID:
        raise Rejected("schema", where, f"the id {number!r} is not a number of a token")
    if not isinstance(text, str) or not 0 < len(text) <= MAX_TOKEN_CHARACTERS:
        message = f"the content {text!r} is not a text of 1 to {MAX_TOKEN_CHARACTERS} characters"
        raise Rejected("schema", where, message)
    if any(not isinstance(entry[flag], bool) for flag in _FLAGS):
        raise Rejected("schema", where, f"{text!r}: {', '.join(_FLAGS)} must be true or false")
    return AddedToken(number, text, *(entry[flag] for flag in _FLAGS))


def _check_count(tokens: Sequence[Any], where: str) -> None:
    if len(tokens) > MAX_ADDED_TOKENS:
        message = f"{len(tokens)} tokens are added and the limit is {MAX_ADDED_TOKENS}; add fewer"
        raise Rejected("schema", where, message)


def _wrong(part: str, message: str) -> Rejected:
    return Rejected("schema", f"{TOKENIZER_FILE}: {part}", message)
