"""Turn samples into a trunk's input, exactly as the feature extractors of transformers do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rootstock.service.engine.encode.modalities.audio.audio_decoder import MAX_RATE, MIN_RATE, Samples
from rootstock.service.engine.encode.modalities.audio.spectrogram import (
    frames,
    kaldi_mel_filters,
    power,
    slaney_mel_filters,
)
from rootstock.service.engine.encode.modalities.reader import UnservedPreprocessing
from rootstock.service.engine.encode.sample import InputArray

# The largest of any count in a config, so that a wrong one fails at load and not by its memory.
_MOST = 2**16


class UnservedFeatures(UnservedPreprocessing):
    """A feature extractor's config whose numbers this module would not reproduce."""


class AudioProcessor(ABC):
    """A feature extractor: a call turns mono samples at `rate` into one input of the trunk. Thread-safe.

    `shape` is the shape of the result; None is a length that differs between recordings. `least_samples` is the
    length from which on a recording has features.
    """

    name: ClassVar[str]
    model_types: ClassVar[frozenset[str]]
    rate: int
    shape: tuple[int | None, ...]
    least_samples: int = 1

    @staticmethod
    def from_config(config: Mapping[str, Any], model_type: str | None = None) -> AudioProcessor:
        """Return the processor of a foundation's `preprocessor_config.json`, or of `processor_config.json`.

        `model_type` is the foundation's. It names the extractor if the config does not, as in transformers. Raise
        UnservedFeatures for an extractor of another type, and for a setting that is not reproduced.
        """
        part = config.get("feature_extractor")
        config = part if isinstance(part, Mapping) else config
        types: tuple[type[AudioProcessor], ...] = (WaveformProcessor, AstProcessor, WhisperProcessor)
        name = config.get("feature_extractor_type")
        for kind in types:
            if name == kind.name or (name is None and model_type in kind.model_types):
                return kind(ExtractorSettings(config))
        raise UnservedFeatures(
            f"the feature extractor {name!r} of a foundation of type {model_type!r} is not served; choose a "
            f"foundation with one of {', '.join(kind.name for kind in types)}"
        )

    @abstractmethod
    def __init__(self, settings: ExtractorSettings) -> None: ...

    @abstractmethod
    def __call__(self, samples: Samples) -> InputArray:
        """Return the features of samples, float32 of shape (samples,), as float32 of shape `shape`."""


class WaveformProcessor(AudioProcessor):
    """The wave form, by default with mean 0 and variance 1: Wav2Vec2, HuBERT and WavLM."""

    name = "Wav2Vec2FeatureExtractor"
    model_types = frozenset({"wav2vec2", "hubert", "wavlm"})

    def __init__(self, settings: ExtractorSettings) -> None:
        self.rate = settings.rate()
        self.shape = (None,)
        self._normalises = settings.switch("do_normalize", True)

    def __call__(self, samples: Samples) -> InputArray:
        if not self._normalises:
            return samples
        # The small number keeps silence from a division by zero.
        normal: Samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        return normal


class AstProcessor(AudioProcessor):
    """Kaldi's filter banks of frames of 400 samples, cut or filled with zeros to one length.

    Gong et al., "AST: Audio Spectrogram Transformer", 2021 (arXiv:2104.01778). transformers takes them from
    torchaudio where that is installed; this is its numpy form.
    """

    name = "ASTFeatureExtractor"
    model_types = frozenset({"audio-spectrogram-transformer"})
    least_samples = 400

    def __init__(self, settings: ExtractorSettings) -> None:
        self.rate = settings.rate()
        self._length, filters = settings.count("max_length", 1024), settings.count("num_mel_bins", 128)
        self.shape = (self._length, filters)
        normalises = settings.switch("do_normalize", True)
        self._mean = settings.number("mean", -4.2677393) if normalises else 0.0
        self._scale = 2 * settings.number("std", 4.5689974) if normalises else 1.0
        if not self._scale:
            raise UnservedFeatures("'std' of the feature extractor is 0; correct it")
        self._filters = kaldi_mel_filters(257, filters, self.rate)
        self._window = np.hanning(400)

    def __call__(self, samples: Samples) -> InputArray:
        pieces = frames(samples, 400, 160, self._length)
        pieces -= pieces.mean(axis=1, keepdims=True)
        pieces[:, 1:] -= 0.97 * pieces[:, :-1]
        pieces[:, 0] *= 1 - 0.97
        bank = np.maximum(np.finfo(np.float32).eps, power(pieces * self._window, 512) @ self._filters)
        features = np.zeros((self._length, bank.shape[1]), np.float32)
        features[: len(bank)] = np.log(bank)
        normal: Samples = (features - self._mean) / self._scale
        return normal


class WhisperProcessor(AudioProcessor):
    """The log-mel spectrogram of 30 s, cut or filled with silence.

    Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (arXiv:2212.04356).
    """

    name = "WhisperFeatureExtractor"
    model_types = frozenset({"whisper"})

    def __init__(self, settings: ExtractorSettings) -> None:
        self.rate = settings.rate()
        self._hop, self._fft_length = settings.count("hop_length", 160), settings.count("n_fft", 400)
        self._samples = settings.count("chunk_length", 30) * self.rate
        settings.refuse_unless_zero("dither")
        settings.refuse_unless_zero("padding_value")
        filters = settings.count("feature_size", 80)
        if self._fft_length % 2 or self._fft_length >= 2 * self._samples or self._hop > self._samples:
            raise UnservedFeatures(
                "'n_fft' of the feature extractor is odd, or longer than its chunk; correct it"
            )
        self.shape = (filters, self._samples // self._hop)
        self._filters = slaney_mel_filters(1 + self._fft_length // 2, filters, 8000.0, self.rate)
        self._window = np.hanning(self._fft_length + 1)[:-1]

    def __call__(self, samples: Samples) -> InputArray:
        chunk = np.zeros(self._samples, np.float32)
        chunk[: len(samples)] = samples[: self._samples]
        chunk = np.pad(chunk, self._fft_length // 2, mode="reflect")
        # The last frame, which is the first of the next chunk, is left out.
        pieces = frames(chunk, self._fft_length, self._hop, self.shape[1])
        bank = np.maximum(1e-10, power(pieces * self._window, self._fft_length) @ self._filters)
        logarithms = np.log10(bank).T.astype(np.float32)
        features: Samples = (np.maximum(logarithms, logarithms.max() - 8.0) + 4.0) / 4.0
        return features


class ExtractorSettings:
    """The settings of a feature extractor by their names in transformers, checked when they are read."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def rate(self) -> int:
        rate = self.count("sampling_rate", 16000)
        if not MIN_RATE <= rate <= MAX_RATE:
            raise UnservedFeatures(f"'sampling_rate' is {rate}, and {MIN_RATE} to {MAX_RATE} are served")
        return rate

    def count(self, key: str, default: int) -> int:
        most = MAX_RATE if key == "sampling_rate" else _MOST
        value = self._config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise UnservedFeatures(f"{key!r} of the feature extractor is {value!r}, not a count from 1 to {most}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise UnservedFeatures(f"{key!r} of the feature extractor is {value!r}, not a number")
        return float(value)

    def switch(self, key: str, default: bool) -> bool:
        value = self._config.get(key, default)
        if not isinstance(value, bool):
            raise UnservedFeatures(f"{key!r} of the feature extractor is {value!r}, not true or false")
        return value

    def refuse_unless_zero(self, key: str) -> None:
        if self.number(key, 0.0) != 0.0:
            raise UnservedFeatures(f"{key!r} of the feature extractor is not 0, which is not served; set it to 0")
