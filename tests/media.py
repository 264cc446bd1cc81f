"""Small files of images and recordings, made without a library."""

from __future__ import annotations

import io
import struct
import wave
import zlib


def png(width: int = 8, height: int = 8, colour: tuple[int, int, int] = (200, 30, 60)) -> bytes:
    """Return an image of one colour as a PNG file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\x00" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def wav(samples: int = 1600, rate: int = 16_000) -> bytes:
    """Return a saw tooth, in 16 bits, as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(struct.pack(f"<{samples}h", *(i * 97 % 4000 - 2000 for i in range(samples))))
    return file.getvalue()


PNG, WAV = png(), wav()
