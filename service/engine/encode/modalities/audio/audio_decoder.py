"""Decode a recording into mono samples, with limits that hold before anything is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile

from rootstock.service.engine.core.errors import InvalidInput, TooLarge

# The longest recording. Whisper's window has this length too.
MAX_SECONDS = 30
# The most bytes of a file: 30 s of stereo at 96 kHz with 32 bits a sample take 22 MiB.
MAX_BYTES = 2**25
# The most samples of all channels together, which are decoded into 48 MB: 30 s of stereo at 192 kHz.
MAX_SAMPLES = 12_000_000
MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 192_000
# Files of floats may hold any number. Larger ones than 32-bit integers hold would overflow in the features.
MAX_AMPLITUDE = 2.0**31

ACCEPTED = "a WAV, FLAC, Ogg Opus or MP3 file"
# By libsndfile's name of a container, the codings that are read: the plain ones of WAV, and each other's own.
_WAV = frozenset({"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})
_CODINGS = {
    "WAV": _WAV,
    "WAVEX": _WAV,
    "FLAC": frozenset({"PCM_S8", "PCM_16", "PCM_24"}),
    "OGG": frozenset({"OPUS"}),
    "MP3": frozenset({"MPEG_LAYER_III"}),
}

# The begin of every Ogg Vorbis stream. libsndfile 1.2.2 does not free what it has read of one whose headers are
# incomplete, up to the size of the file.
_VORBIS = b"\x01vorbis"

# Mono samples, float32 of shape (samples,).
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Recording:
    """Mono samples, of shape (samples,), nominally between -1 and 1, and how many there are in a second."""

    samples: Samples
    rate: int


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that is read once, to its end. soundfile would seek after that, and a streamed FLAC has no end."""

    def seekable(self) -> bool:
        return False


def decode(data: bytes) -> Recording:
    """Return a file's samples, its channels mixed to one. Thread-safe.

    The mix is the channels' mean, as `transformers.audio_utils.load_audio` and librosa take it. The bytes form of
    transformers' audio pipelines mixes with `ffmpeg -ac 1`, whose floats are louder by √2 for stereo; a dict of
    the pipelines holds one channel.

    A FLAC or MP3 that is cut is refused, for it states its length. A WAV or Opus file is read as far as it goes,
    as by ffmpeg.

    Raise InvalidInput for bytes that are not such a file, a damaged file, one without samples, and numbers that
    are not finite. Raise TooLarge over a limit of this module. `MAX_SAMPLES` bounds the memory, for any header.
    """
    if len(data) > MAX_BYTES:
        raise TooLarge(
            f"the recording has {len(data)} bytes and the limit is {MAX_BYTES}; shorten it, or send FLAC or MP3",
            "inputs",
        )
    begin = _begin(data)
    try:
        with _Stream(io.BytesIO(data[begin:])) as file:
            return Recording(_mono(_read(file)), file.samplerate)
    except soundfile.SoundFileError as error:
        raise InvalidInput(f"the recording cannot be decoded; send {ACCEPTED} that plays", "inputs") from error


def _begin(data: bytes) -> int:
    """Return where the file begins after an ID3 tag, and raise InvalidInput unless it begins like one we take.

    libsndfile also reads some twenty rare formats. Their parsers never see an input.
    """
    begin = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        # The size has seven bits in each of four bytes (https://id3.org/id3v2.4.0-structure).
        for byte in data[6:10]:
            begin = begin << 7 | byte & 0x7F
        begin += 20 if data[5] & 0x10 else 10
    head = data[begin : begin + 12]
    is_wav = head[:4] == b"RIFF" and head[8:] == b"WAVE"
    is_mpeg = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    if not (is_wav or is_mpeg or head[:4] in (b"fLaC", b"OggS")):
        raise InvalidInput(f"the input is not a recording that is read; send {ACCEPTED}", "inputs")
    # The stream may stand behind damaged pages, which libsndfile passes over.
    if head[:4] == b"OggS" and _VORBIS in data:
        raise InvalidInput(f"the recording is coded as Vorbis, which is not read; send {ACCEPTED}", "inputs")
    return begin


def _read(file: _Stream) -> Samples:
    """Return a file's samples, of shape (frames, channels), if its header keeps the limits."""
    channels, rate, declared = file.channels, file.samplerate, file.frames
    if file.subtype not in _CODINGS.get(file.format, ()):
        raise InvalidInput(
            f"the recording is coded as {file.subtype} in {file.format}, which is not read; send {ACCEPTED}",
            "inputs",
        )
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidInput(
            f"the recording has {rate} samples a second, and {MIN_RATE} to {MAX_RATE} are read; resample it",
            "inputs",
        )
    if channels > MAX_CHANNELS:
        raise TooLarge(
            f"the recording has {channels} channels and the limit is {MAX_CHANNELS}; mix it to one", "inputs"
        )
    most = MAX_SECONDS * rate
    # A streamed file does not state its length: libsndfile gives the largest number for it.
    states_length = declared < 2**63 - 1
    if states_length and declared > most:
        raise _too_long(f"{declared / rate:.1f} s")
    frames = declared if states_length else min(most + 1, MAX_SAMPLES // channels)
    if frames * channels > MAX_SAMPLES:
        raise TooLarge(
            f"the recording has {frames} samples in each of {channels} channels and the limit is {MAX_SAMPLES} "
            "in all; mix it to one channel, or lower its rate",
            "inputs",
        )
    samples: Samples = file.read(out=np.empty((max(0, frames), channels), np.float32))
    if len(samples) > most:
        raise _too_long(f"more than {MAX_SECONDS} s")
    if states_length and len(samples) < declared:
        raise InvalidInput(
            f"the recording ends after {len(samples)} of {declared} samples; send the whole file", "inputs"
        )
    if not len(samples):
        raise InvalidInput("the recording holds no samples; send one with sound", "inputs")
    return samples


def _too_long(length: str) -> TooLarge:
    return TooLarge(f"the recording lasts {length} and the limit is {MAX_SECONDS} s; cut it into parts", "inputs")


def _mono(samples: Samples) -> Samples:
    """Return the mean of the channels. Raise InvalidInput for numbers that are not finite, or too large."""
    if not np.isfinite(samples).all() or max(-samples.min(), samples.max()) > MAX_AMPLITUDE:
        raise InvalidInput(
            f"the recording holds samples that are not numbers between ±{MAX_AMPLITUDE:.0f}; write it again, "
            "with samples between -1 and 1",
            "inputs",
        )
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
