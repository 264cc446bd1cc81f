"""Turn the bytes of recordings into samples of a batch."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rootstock.adapters.audio.resampling import resample
from rootstock.adapters.media import AudioFile
from rootstock.adapters.tasks import Modality
from rootstock.service.engine.core.errors import InvalidInput, TooLarge
from rootstock.service.engine.encode.modalities.audio.audio_decoder import (
    MAX_BYTES,
    MAX_SECONDS,
    decode,
)
from rootstock.service.engine.encode.modalities.audio.audio_processor import AudioProcessor
from rootstock.service.engine.encode.modalities.reader import other_modality
from rootstock.service.engine.encode.sample import InputArray, SampleArrays

# The bytes that a second of sound takes at least in a compressed file, roughly: 32 kbit/s.
_COMPRESSED = 4_000


@dataclass(frozen=True, eq=False, slots=True)
class AudioSample:
    """A recording as the trunk takes it: one array under the name of the trunk's input."""

    arrays: Mapping[str, InputArray]
    cost: int
    key: bytes
    outputs: int = 1

    @property
    def group(self) -> tuple[int, ...]:
        """Return the array's shape. Recordings of different shapes never share a batch, as none is padded."""
        return next(iter(self.arrays.values())).shape


class AudioReader:
    """Reads recordings for a foundation with this processor. Thread-safe.

    `max_tokens` is the cost of the longest recording, `MAX_SECONDS`, or of any where all have one shape. `name`
    is the name of the trunk's input. `least_samples` is the length, at the processor's rate, below which the
    trunk has no output: the receptive field of Wav2Vec2's convolutions is 400.
    """

    modality: Modality = "audio"

    def __init__(self, processor: AudioProcessor, max_tokens: int, name: str, least_samples: int = 1) -> None:
        self._processor = processor
        self._max_tokens = max_tokens
        self._name = name
        self._least = max(least_samples, processor.least_samples)
        self._varies = None in processor.shape
        self._check: Callable[[], None] = lambda: None

    def checked(self, check: Callable[[], None]) -> AudioReader:
        """Return a copy that calls `check` before each long step. An error that `check` raises ends the work."""
        reader = copy.copy(self)
        reader._check = check
        return reader

    def check(self, inputs: Sequence[object]) -> None:
        """Raise InvalidInput for inputs that are no recordings, and TooLarge for one of too many bytes."""
        for i, value in enumerate(inputs):
            if not isinstance(value, AudioFile):
                raise other_modality(self.modality, value, f"inputs[{i}]")
            if len(value.data) > MAX_BYTES:
                raise TooLarge(
                    f"a recording has {len(value.data)} bytes and the limit is {MAX_BYTES}; shorten it",
                    f"inputs[{i}]",
                )

    def tokens(self, inputs: Sequence[AudioFile]) -> int:
        """Return about how many tokens the inputs cost, by the size of the files."""
        return sum(self._estimate(value.data) for value in inputs)

    def _estimate(self, data: bytes) -> int:
        if not self._varies:
            return self._max_tokens
        # The plain header of a WAV states its bytes a second (http://soundfile.sapp.org/doc/WaveFormat/).
        rate = int.from_bytes(data[28:32], "little") if data[:4] == b"RIFF" else _COMPRESSED
        return self._cost(len(data), MAX_SECONDS * max(1, rate))

    def _cost(self, length: int, longest: int) -> int:
        return max(1, min(self._max_tokens, -(-length * self._max_tokens // longest)))

    def read(self, value: AudioFile) -> AudioSample:
        """Decode a recording, change its rate to the foundation's, and compute its features.

        The rate changes as in the dict form of transformers' audio pipelines. Their form for bytes leaves it to
        ffmpeg, which is a program and not a library. Raise InvalidInput and TooLarge.
        """
        self._check()
        recording = decode(value.data)
        rate = self._processor.rate
        self._check()
        samples = resample(recording.samples, recording.rate, rate)
        if len(samples) < self._least:
            raise InvalidInput(
                f"the recording has {len(samples)} samples at {rate} a second, and this model needs at least "
                f"{self._least} ({self._least / rate:.3f} s); send a longer one",
                "inputs",
            )
        self._check()
        features = self._processor(samples)
        cost = self._cost(len(samples), MAX_SECONDS * rate) if self._varies else self._max_tokens
        key = hashlib.blake2b(value.data, digest_size=32).digest()
        return AudioSample({self._name: features}, cost, key)

    def collate(self, samples: Sequence[AudioSample]) -> SampleArrays:
        """Return recordings of one shape, stacked under the input's name: float32 of shape (inputs, …)."""
        array = np.stack([sample.arrays[self._name] for sample in samples])
        return SampleArrays({self._name: array}, tuple(sample.cost for sample in samples), frozenset())
