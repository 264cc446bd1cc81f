"""Adds an adapter's tokens to a foundation's tokenizer, without a copy of its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rootstock.adapters.spec import Rejected
from rootstock.adapters.vocabulary.added_token import AddedToken

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# The most memory that a token takes in the index of the added tokens' texts, which grows with their UTF-8. With
# tokenizers 0.23, tokens of 255 characters of one to four bytes took 15 to 36 bytes a byte, each token included.
_BYTES_A_BYTE = 48
_BYTES_A_TOKEN = 1024


def extended_tokenizer(own: Tokenizer, tokens: Sequence[AddedToken]) -> Tokenizer:
    """Return a tokenizer with more added tokens than `own`, and with no truncation and no padding.

    Both have one model, normaliser, pre-tokeniser, post-processor and decoder, so that only the added tokens take
    memory. Raise Rejected (check "schema") if a token gets another id than it states.
    """
    from tokenizers import AddedToken as HfToken
    from tokenizers import Tokenizer

    extended = Tokenizer(own.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (shared := getattr(own, part)) is not None:
            setattr(extended, part, shared)
    before = [token for _, token in sorted(own.get_added_tokens_decoder().items())]
    added = [HfToken(**{k: v for k, v in token.to_json().items() if k != "id"}) for token in sorted(tokens)]
    # One call for all, because each makes the index of texts anew. It leaves the tokens' `special` as it is.
    extended.add_tokens([*before, *added])
    for token in tokens:
        if (number := extended.token_to_id(token.content)) != token.id:
            raise Rejected(
                "schema",
                "added_tokens",
                f"{token.content!r} gets the id {number} and the adapter states {token.id}; add the tokens to "
                "the foundation's own tokenizer",
            )
    return extended


def memory_of_tokens(own: Tokenizer, tokens: Iterable[AddedToken]) -> int:
    """Return an upper estimate of the bytes of `extended_tokenizer` with these tokens."""
    texts = [token.content for token in own.get_added_tokens_decoder().values()]
    texts += [token.content for token in tokens]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return _BYTES_A_BYTE * size + _BYTES_A_TOKEN * len(texts)
