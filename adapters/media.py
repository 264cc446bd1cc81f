"""The inputs of foundations that read images or sound: the bytes of a file in a common format."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from mimetypes import guess_type
from pathlib import Path
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image, as the bytes of a file such as a PNG or a JPEG."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A recording, as the bytes of a file such as a WAV or a FLAC."""

    data: bytes


class PillowImage(Protocol):
    """An image of Pillow, which need not be installed."""

    @property
    def mode(self) -> str: ...

    def convert(self, mode: str) -> Any: ...

    def save(self, fp: Any, format: str) -> None: ...


MediaFile = ImageFile | AudioFile
MediaModality = Literal["image", "audio"]
MEDIA_FILES: dict[MediaModality, type[MediaFile]] = {"image": ImageFile, "audio": AudioFile}

# The beginnings of common formats. A RIFF file names its kind after its length.
_BEGINNINGS: tuple[tuple[bytes, MediaModality], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"BM", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"fLaC", "audio"),
    (b"OggS", "audio"),
    (b"ID3", "audio"),
    (b"\xff\xfb", "audio"),
    (b"\xff\xf3", "audio"),
    (b"\xff\xf2", "audio"),
    (b"FORM", "audio"),
)
_CONTAINERS: dict[tuple[bytes, bytes], MediaModality] = {
    (b"RIFF", b"WEBP"): "image",
    (b"RIFF", b"WAVE"): "audio",
}


def modality_of_type(media_type: str | None) -> MediaModality | None:
    """Return the modality that a media type such as `image/png` names, or None for another type."""
    kind = (media_type or "").strip().lower().partition("/")[0]
    return "image" if kind == "image" else "audio" if kind == "audio" else None


def modality_of_bytes(data: bytes) -> MediaModality | None:
    """Return the modality of a file of a common format by its first bytes, or None for any other."""
    for beginning, modality in _BEGINNINGS:
        if data.startswith(beginning):
            return modality
    return _CONTAINERS.get((data[:4], data[8:12]))


def media_file(value: Any, modality: MediaModality | None = None) -> MediaFile | None:
    """Return the file that a value is: a path, bytes, an image of Pillow, or the file itself; None for any other.

    Without a `modality`, the name of a file decides what it is, then its first bytes. Raise ValueError if neither
    does, OSError for a path that cannot be read.
    """
    if isinstance(value, MediaFile):
        return value
    if isinstance(value, os.PathLike):
        data = Path(value).read_bytes()
        modality = modality or modality_of_type(guess_type(str(value))[0]) or modality_of_bytes(data)
    elif isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        modality = modality or modality_of_bytes(data)
    elif (png := _png_of(value)) is not None:
        return ImageFile(png)
    else:
        return None
    if modality is None:
        raise ValueError("neither its name nor its first bytes say whether it is an image or a recording")
    return MEDIA_FILES[modality](data)


def _png_of(value: Any) -> bytes | None:
    """Return an image of Pillow as a PNG file, upright as its EXIF data says, or None for any other value."""
    # If nothing has imported Pillow, no value is an image of it.
    pillow = sys.modules.get("PIL.Image")
    if pillow is None or not isinstance(value, pillow.Image):
        return None
    image = import_module("PIL.ImageOps").exif_transpose(value)
    # PNG holds no CMYK, YCbCr, LAB, HSV or floating-point pixels.
    fits = image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    file = BytesIO()
    (image if fits else image.convert("RGB")).save(file, "PNG")
    return file.getvalue()
