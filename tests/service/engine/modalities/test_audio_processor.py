"""The features of a recording are those of transformers' feature extractors."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

from rootstock.service.engine.encode.modalities.audio.audio_processor import AudioProcessor, UnservedFeatures

# Of each extractor, the settings that checkpoints have.
WAVEFORMS: list[dict[str, Any]] = [{}, {"do_normalize": False}, {"return_attention_mask": True}]
AST: list[dict[str, Any]] = [
    {},
    {"do_normalize": False},
    {"num_mel_bins": 64, "max_length": 100, "mean": -6.6, "std": 5.1},
    {"sampling_rate": 8000, "num_mel_bins": 40, "max_length": 998},
]
WHISPER: list[dict[str, Any]] = [{}, {"feature_size": 128}, {"chunk_length": 5}]


def sound(length: int, seed: int, loudness: float) -> npt.NDArray[np.float32]:
    """Noise over a tone."""
    noise = np.random.default_rng(seed).standard_normal(length)
    return (loudness * (noise * 0.3 + np.sin(np.arange(length) / 20))).astype(np.float32)


SOUNDS = st.builds(
    sound, st.integers(400, 40_000), st.integers(0, 2**16), st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 32768.0])
)


def processor_of(extractor: Any) -> AudioProcessor:
    return AudioProcessor.from_config(json.loads(extractor.to_json_string()))


@pytest.mark.parametrize("options", WAVEFORMS)
def test_wave_forms_are_those_of_wav2vec2(options: dict[str, Any]) -> None:
    extractor = Wav2Vec2FeatureExtractor(**options)
    processor = processor_of(extractor)
    assert (processor.rate, processor.shape) == (16000, (None,))

    @settings(max_examples=30, deadline=None)
    @given(SOUNDS)
    def agrees(samples: npt.NDArray[np.float32]) -> None:
        features = processor(samples)
        assert features.dtype == np.float32
        expected = extractor(samples, sampling_rate=16000, return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(features, expected, atol=1e-6)

    agrees()


@pytest.mark.parametrize("options", AST)
def test_filter_banks_are_those_of_ast(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        extractor = ASTFeatureExtractor(**options)
    processor = processor_of(extractor)
    assert processor.shape == (extractor.max_length, extractor.num_mel_bins)

    @settings(max_examples=20, deadline=None)
    @given(SOUNDS)
    def agrees(samples: npt.NDArray[np.float32]) -> None:
        features = processor(samples)
        assert features.dtype == np.float32
        assert features.shape == processor.shape
        expected = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")
        np.testing.assert_allclose(features, expected["input_values"][0], atol=1e-4)

    agrees()


@pytest.mark.parametrize("options", WHISPER)
def test_log_mel_spectrograms_are_those_of_whisper(options: dict[str, Any]) -> None:
    extractor = WhisperFeatureExtractor(**options)
    processor = processor_of(extractor)
    assert processor.shape == (extractor.feature_size, extractor.nb_max_frames)

    @settings(max_examples=5, deadline=None)
    @given(SOUNDS)
    def agrees(samples: npt.NDArray[np.float32]) -> None:
        features = processor(samples)
        assert features.dtype == np.float32
        assert features.shape == processor.shape
        chunk = np.zeros(extractor.n_samples, np.float32)
        chunk[: len(samples)] = samples[: extractor.n_samples]
        expected = extractor._np_extract_fbank_features(chunk[None], "cpu")[0]
        np.testing.assert_allclose(features, expected, atol=1e-4)

    agrees()


def test_whisper_s_call_with_torch_gives_the_same_to_its_own_tolerance() -> None:
    extractor = WhisperFeatureExtractor()
    samples = sound(16000, 1, 0.1)
    expected = extractor(samples, sampling_rate=16000, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(processor_of(extractor)(samples), expected, atol=1e-3)


@pytest.mark.parametrize("extractor", [Wav2Vec2FeatureExtractor, ASTFeatureExtractor, WhisperFeatureExtractor])
def test_silence_has_finite_features(extractor: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        config = json.loads(extractor().to_json_string())
    assert np.isfinite(AudioProcessor.from_config(config)(np.zeros(1000, np.float32))).all()


@pytest.mark.parametrize("extractor", [Wav2Vec2FeatureExtractor, ASTFeatureExtractor, WhisperFeatureExtractor])
def test_the_loudest_samples_that_are_decoded_have_finite_features(extractor: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        config = json.loads(extractor().to_json_string())
    samples = np.float32(2**31) * np.where(np.arange(480_000) % 7 < 3, -1, 1).astype(np.float32)
    assert np.isfinite(AudioProcessor.from_config(config)(samples)).all()


def test_the_part_of_a_processor_s_config_is_read(tmp_path: Path) -> None:
    WhisperFeatureExtractor(feature_size=128).save_pretrained(tmp_path)
    part = json.loads((tmp_path / "preprocessor_config.json").read_text())
    processor = AudioProcessor.from_config({"processor_class": "WhisperProcessor", "feature_extractor": part})
    assert processor.shape == (128, 3000)


@pytest.mark.parametrize(
    "model_type", ["wav2vec2", "hubert", "wavlm", "audio-spectrogram-transformer", "whisper"]
)
def test_a_config_without_a_type_gets_the_extractor_of_its_model_as_in_transformers(model_type: str) -> None:
    processor = AudioProcessor.from_config({"sampling_rate": 16000}, model_type)
    assert processor.name == FEATURE_EXTRACTOR_MAPPING_NAMES[model_type]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "None of a foundation of type None is not served; choose a foundation with one of Wav2Vec2"),
        ({"feature_extractor_type": "ClapFeatureExtractor"}, "'ClapFeatureExtractor' of"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "dither": 0.1}, "'dither' .* is not 0"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "padding_value": 1.0}, "'padding_value'"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "n_fft": 401}, "'n_fft'"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": -1}, "-1, not a count"),
        ({"feature_extractor_type": "ASTFeatureExtractor", "std": 0.0}, "'std'"),
        ({"feature_extractor_type": "ASTFeatureExtractor", "mean": "x"}, "'x', not a number"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": 1}, "1, not true or false"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 100}, "'sampling_rate' is 100"),
    ],
)
def test_a_config_whose_numbers_would_differ_is_refused_at_load(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnservedFeatures, match=message):
        AudioProcessor.from_config(config)
