"""The input that an upload without a golden set is run on, for each modality."""

from __future__ import annotations

import io
import struct
import wave
import zlib

import numpy as np

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.tasks import Modality

_TEXT = "The quick brown fox jumps over the lazy dog."
_SIZE = 32
_RATE = 16_000
_SECONDS = 1
_HERTZ = 440


def probe(modality: Modality) -> str | ImageFile | AudioFile:
    """Return a valid input of a modality: a sentence, an image of two gradients, or a tone of one second."""
    if modality == "image":
        return ImageFile(_png())
    return AudioFile(_wav()) if modality == "audio" else _TEXT


def _png() -> bytes:
    """Return a PNG of 8 bits and three channels. Source: the PNG specification, third edition, 2025."""
    step = np.linspace(0, 255, _SIZE).astype(np.uint8)
    pixels = np.zeros((_SIZE, _SIZE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = step, step[:, None]
    # Each line begins with the number of its filter; 0 is none.
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", _SIZE, _SIZE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _wav() -> bytes:
    tone = np.sin(2 * np.pi * _HERTZ * np.arange(_RATE * _SECONDS) / _RATE)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((tone * 2**14).astype("<i2").tobytes())
    return buffer.getvalue()
