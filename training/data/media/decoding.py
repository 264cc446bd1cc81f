"""Decodes images and recordings, as transformers' pipelines do before they call a processor."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rootstock.adapters.audio.resampling import resample
from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Array
from rootstock.adapters.tasks import Modality
from rootstock.training.errors import DataError, extra

if TYPE_CHECKING:
    from PIL.Image import Image

# The most bytes of a WAV file beside its samples.
_WAV_HEADER = 256


def decoded_image(data: bytes) -> Image:
    """Return the RGB image in a file, turned as its EXIF data says. Raise ValueError or OSError for no image."""
    with extra("images"):
        from PIL import Image, ImageOps
    try:
        with Image.open(io.BytesIO(data)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(str(error)) from None


def decoded_audio(data: bytes) -> tuple[Array, int]:
    """Return the samples (samples,) of a recording, the mean of its channels, and their number a second.

    Raise ValueError for a file that is no recording.
    """
    with extra("recordings"):
        import soundfile
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise ValueError(str(error)) from None
    if not len(samples) or not np.isfinite(samples).all():
        raise ValueError("it has no samples" if not len(samples) else "some of its samples are no numbers")
    return samples.mean(1), int(rate)


def content_digest(path: Path, modality: Modality) -> tuple[str, str]:
    """Return the digest of a file's bytes and that of its pixels or samples.

    Raise DataError for a file that cannot be read or decoded.
    """
    data = read_file(path)
    digest = _DIGESTS[modality]
    try:
        return hashlib.sha256(data).hexdigest(), digest(data)
    except (OSError, ValueError) as error:
        kind = "an image" if modality == "image" else "a recording"
        raise DataError(f"{path}: not {kind} that can be read: {' '.join(str(error).split())}") from None


def read_file(path: Path) -> bytes:
    """Return the content of a file. Raise DataError if it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read: {reason}") from None


def png(data: bytes, most: int) -> ImageFile:
    """Return an image as a PNG in RGB, which decodes to the same pixels everywhere.

    Its sides are halved until it has at most `most` bytes.
    """
    image = decoded_image(data)
    while True:
        out = io.BytesIO()
        image.save(out, "PNG")
        if out.tell() <= most or image.size == (1, 1):
            return ImageFile(out.getvalue())
        width, height = image.size
        image = image.resize((max(1, width // 2), max(1, height // 2)))


def wav(data: bytes, rate: int, most: int) -> AudioFile:
    """Return a recording as a WAV of float samples at a rate, which decodes to the same samples everywhere.

    It is cut at its end to at most `most` bytes.
    """
    import soundfile

    out = io.BytesIO()
    samples = resample(*decoded_audio(data), rate)[: (most - _WAV_HEADER) // 4]
    soundfile.write(out, samples, rate, format="WAV", subtype="FLOAT")
    return AudioFile(out.getvalue())


def _pixels(data: bytes) -> str:
    image = decoded_image(data)
    return hashlib.sha256(f"{image.size} ".encode() + image.tobytes()).hexdigest()


def _samples(data: bytes) -> str:
    samples, rate = decoded_audio(data)
    return hashlib.sha256(f"{rate} ".encode() + samples.tobytes()).hexdigest()


_DIGESTS: dict[str, Callable[[bytes], str]] = {"image": _pixels, "audio": _samples}
