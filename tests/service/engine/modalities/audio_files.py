"""Recordings in each format, written by libsndfile."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import soundfile

# Format and coding, and how far a sample may move when it is written and read. The Opus encoder garbles the last
# few milliseconds.
CODINGS = {
    ("WAV", "PCM_U8"): 2 / 2**8,
    ("WAV", "PCM_16"): 2 / 2**16,
    ("WAV", "PCM_24"): 2 / 2**24,
    ("WAV", "PCM_32"): 1e-7,
    ("WAV", "FLOAT"): 1e-7,
    ("WAV", "DOUBLE"): 1e-7,
    ("WAV", "ULAW"): 0.03,
    ("WAV", "ALAW"): 0.03,
    ("WAVEX", "PCM_16"): 2 / 2**16,
    ("FLAC", "PCM_S8"): 2 / 2**8,
    ("FLAC", "PCM_16"): 2 / 2**16,
    ("FLAC", "PCM_24"): 2 / 2**24,
    ("OGG", "OPUS"): 0.1,
    ("MP3", "MPEG_LAYER_III"): 0.1,
}


def tone(length: int, rate: int, hertz: float = 440.0) -> npt.NDArray[np.float64]:
    """A sine wave of half the full amplitude."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(length) / rate)


def recording(
    samples: npt.NDArray[np.floating], rate: int = 16000, container: str = "WAV", coding: str = "PCM_16"
) -> bytes:
    """A file of samples of shape (frames,) or (frames, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=coding)
    return file.getvalue()


def with_total(flac: bytes, total: int) -> bytes:
    """A FLAC whose header states this number of samples: 36 bits from the middle of the 22nd byte on."""
    edited = bytearray(flac)
    edited[21] = edited[21] & 0xF0 | total >> 32
    edited[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(edited)
