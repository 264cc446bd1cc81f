"""The bytes of a file that a string holds: base64, or a data URL (RFC 2397) with base64."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64

from rootstock.adapters.media import MediaModality, modality_of_type
from rootstock.service.engine.core.errors import InvalidInput

# `data:`, a media type with parameters, and `;base64` before the comma. The comma comes early in a sound URL.
_HEAD = re.compile(r"data:([^;,]*)(?:;[^;,]*)*?;base64", re.IGNORECASE)
_MOST_HEAD = 256
# The characters that are decoded at once, 64 KiB: other threads run between the slices. It is a multiple of 4.
_SLICE = 2**16
_TAKEN = "base64 of RFC 4648 with + and /, padded with =, without spaces and line breaks"


def decode_file(text: str, modality: MediaModality, where: str) -> bytes:
    """Return the bytes of a file from its base64 or its data URL.

    Raise InvalidInput for any other text, for a data URL of another modality, and for no bytes.
    """
    data = decode_base64(_payload(text, modality, where), where)
    if not data:
        raise InvalidInput(f"{where} is an empty file; send the bytes of {_article(modality)} file", where)
    return data


def decode_base64(text: str, where: str) -> bytes:
    """Return the bytes that strict base64 stands for. Raise InvalidInput for any other text."""
    if len(text) % 4:
        raise InvalidInput(
            f"{where} is not base64: it has {len(text)} characters, not a multiple of 4; send {_TAKEN}", where
        )
    # Padding before the end would pass unseen at the end of a slice.
    if 0 <= text.find("=") < len(text) - 2:
        raise InvalidInput(f"{where} is not base64: padding stands before its end; send {_TAKEN}", where)
    try:
        parts = [
            a2b_base64(text[start : start + _SLICE], strict_mode=True) for start in range(0, len(text), _SLICE)
        ]
    except (Error, ValueError):
        # The library's messages differ between versions, and a text beyond ASCII has one about encodings.
        raise InvalidInput(f"{where} is not base64; send {_TAKEN}", where) from None
    return b"".join(parts)


def _payload(text: str, modality: MediaModality, where: str) -> str:
    """Return the base64 of a data URL, or the text itself if it is no URL."""
    if text[:5].lower() != "data:":
        return text
    comma = text.find(",", 0, _MOST_HEAD)
    head = _HEAD.fullmatch(text, 0, comma) if comma >= 0 else None
    if head is None:
        raise InvalidInput(
            f"{where} is a data URL of another form than data:{modality}/…;base64,…; send one of this form", where
        )
    other = modality_of_type(head[1])
    if other is not None and other != modality:
        raise InvalidInput(
            f"{where} is a data URL of type {head[1]}, not of {_article(modality)}; send it under {other!r}",
            where,
        )
    return text[comma + 1 :]


def _article(modality: MediaModality) -> str:
    return "an image" if modality == "image" else "an audio"
