"""Find the bytes that a single token adds to a text."""

from __future__ import annotations

import re

from tokenizers import Tokenizer, decoders

# The mark of a space in SentencePiece's vocabularies, and its form of a byte that no token covers.
_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """The bytes of each token of a tokenizer. A token may hold a part of a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added = {i: token.content for i, token in added.items()}
        self._byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)

    def of(self, token: int) -> bytes:
        """Return the bytes of a token, or none for an id without a token."""
        if token in self._added:
            return self._added[token].encode("utf-8")
        text = self._tokenizer.id_to_token(token)
        if text is None:
            return b""
        if self._byte_level:
            return bytes(_BYTES[character] for character in text)
        if match := _BYTE.fullmatch(text):
            return bytes([int(match[1], 16)])
        return text.replace(_SPACE, " ").encode("utf-8")


def _byte_alphabet() -> dict[str, int]:
    """Return the byte for each character of GPT-2's byte-level alphabet (`bytes_to_unicode`)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()
