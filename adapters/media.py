"""The inputs of foundations that read images or sound: the bytes of a file in a common format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image, as the bytes of a file such as a PNG or a JPEG."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A recording, as the bytes of a file such as a WAV or a FLAC."""

    data: bytes
