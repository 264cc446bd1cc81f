"""A recording becomes a sample: features at the foundation's rate, a cost, a key, and a shape to batch by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from transformers import Wav2Vec2FeatureExtractor

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.service.engine.core.errors import InvalidInput, TooLarge
from rootstock.service.engine.encode.modalities.audio.audio_decoder import MAX_BYTES, MAX_SECONDS
from rootstock.service.engine.encode.modalities.audio.audio_processor import AudioProcessor
from rootstock.service.engine.encode.modalities.audio.audio_reader import AudioReader
from tests.service.engine.modalities.audio_files import CODINGS, recording, tone
from tests.service.engine.modalities.test_audio_resampling import by_scipy

MAX_TOKENS = 1499
ROOT = Path(__file__).parents[4]
DIGITS = Path(os.environ.get("ROOTSTOCK_DATA") or ROOT.parent / "shared" / "data") / "spoken_digits"


def make_reader(kind: str = "Wav2Vec2", name: str = "input_values", **config: Any) -> AudioReader:
    settings = {"feature_extractor_type": f"{kind}FeatureExtractor", **config}
    return AudioReader(AudioProcessor.from_config(settings), MAX_TOKENS, name, least_samples=400)


def test_a_wave_form_is_sampled_at_the_foundation_s_rate_and_costs_by_its_length() -> None:
    reader = make_reader()
    sample = reader.read(AudioFile(recording(tone(8000 * 3, 8000), 8000)))
    assert sample.arrays["input_values"].shape == sample.group == (48000,)
    assert sample.cost == 150, "a tenth of the longest"
    assert sample.outputs == 1
    shortest = reader.read(AudioFile(recording(tone(400, 16000))))
    longest = reader.read(AudioFile(recording(tone(MAX_SECONDS * 16000, 16000))))
    assert (shortest.cost, longest.cost) == (2, MAX_TOKENS)


@pytest.mark.parametrize(("kind", "shape"), [("AST", (1024, 128)), ("Whisper", (80, 3000))])
def test_features_of_one_shape_all_cost_the_same(kind: str, shape: tuple[int, int]) -> None:
    reader = make_reader(kind, "input_features")
    files = [AudioFile(recording(tone(n, 16000))) for n in (500, 40000)]
    samples = [reader.read(file) for file in files]
    assert [sample.cost for sample in samples] == [MAX_TOKENS] * 2
    assert reader.tokens(files) == 2 * MAX_TOKENS
    batch = reader.collate(samples)
    assert {name: array.shape for name, array in batch.arrays.items()} == {"input_features": (2, *shape)}
    assert batch.lengths == (MAX_TOKENS, MAX_TOKENS)
    assert not batch.ragged


def test_wave_forms_of_one_length_are_stacked_unchanged() -> None:
    reader = make_reader()
    samples = [reader.read(AudioFile(recording(tone(1000, 16000, hertz)))) for hertz in (200.0, 300.0)]
    array = reader.collate(samples).arrays["input_values"]
    assert array.dtype == np.float32
    for row, sample in zip(array, samples, strict=True):
        np.testing.assert_array_equal(row, sample.arrays["input_values"])


def test_equal_files_have_equal_keys_and_others_do_not() -> None:
    reader = make_reader()
    one, same, other = (
        reader.read(AudioFile(recording(tone(1000, 16000, h)))).key for h in (200.0, 200.0, 201.0)
    )
    assert one == same != other


@pytest.mark.parametrize(("container", "coding"), CODINGS)
def test_the_estimate_of_tokens_is_cheap_and_never_beyond_the_longest(container: str, coding: str) -> None:
    reader = make_reader()
    file = AudioFile(recording(tone(16000 * 4, 16000), 16000, container, coding))
    estimate, cost = reader.tokens([file]), reader.read(file).cost
    assert 1 <= estimate <= MAX_TOKENS
    assert reader.tokens([file, file]) == 2 * estimate
    if container.startswith("WAV"):
        assert abs(estimate - cost) <= 1
    else:
        assert cost / 4 <= estimate


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF" + bytes(100), b"RIFF" + b"\xff" * 100, bytes(10**6)])
def test_any_bytes_have_an_estimate(data: bytes) -> None:
    assert 1 <= make_reader().tokens([AudioFile(data)]) <= MAX_TOKENS


def test_an_input_of_another_modality_is_refused_with_its_place() -> None:
    reader = make_reader()
    good = AudioFile(b"")
    for bad, given in (("hello", "a text"), (("a", "b"), "a text"), (ImageFile(b""), "an image")):
        with pytest.raises(InvalidInput, match=f"is {given}, and the model takes a recording") as caught:
            reader.check([good, bad])
        assert caught.value.param == "inputs[1]"
    with pytest.raises(TooLarge, match=f"the limit is {MAX_BYTES}") as too_large:
        reader.check([AudioFile(bytes(MAX_BYTES + 1))])
    assert too_large.value.param == "inputs[0]"
    reader.check([good])


@pytest.mark.parametrize(("kind", "least"), [("Wav2Vec2", 400), ("AST", 400), ("Whisper", 400)])
def test_a_recording_shorter_than_the_receptive_field_is_refused_with_the_least_length(
    kind: str, least: int
) -> None:
    reader = make_reader(kind)
    reader.read(AudioFile(recording(tone(least, 16000))))
    reader.read(AudioFile(recording(tone(least // 2, 8000), 8000)))
    with pytest.raises(
        InvalidInput, match=f"has 399 samples at 16000 a second, and this model needs at least {least}"
    ):
        reader.read(AudioFile(recording(tone(least - 1, 16000))))


def test_a_recording_without_a_frame_for_ast_is_refused_though_the_trunk_would_take_it() -> None:
    processor = AudioProcessor.from_config({"feature_extractor_type": "ASTFeatureExtractor"})
    with pytest.raises(InvalidInput, match="at least 400"):
        AudioReader(processor, MAX_TOKENS, "input_values").read(AudioFile(recording(tone(399, 16000))))


def test_an_error_of_the_check_ends_the_work_before_the_file_is_decoded() -> None:
    class Left(Exception):
        pass

    def leave() -> None:
        raise Left

    reader = make_reader()
    with pytest.raises(Left):
        reader.checked(leave).read(AudioFile(b"not a recording"))
    steps: list[int] = []
    reader.checked(lambda: steps.append(1)).read(AudioFile(recording(tone(1000, 8000), 8000)))
    assert len(steps) == 3, "before decoding, resampling and the features"
    reader.read(AudioFile(recording(tone(1000, 16000))))
    assert len(steps) == 3, "the first reader checks nothing"


def test_spoken_digits_are_read_as_transformers_reads_them() -> None:
    files = sorted(DIGITS.glob("test/*/*_0.wav"))
    if not files:
        pytest.skip(f"the recordings of {DIGITS} are not there")
    reader, extractor = make_reader(), Wav2Vec2FeatureExtractor()
    for file in files:
        samples, rate = soundfile.read(file, dtype="float32")
        resampled = by_scipy(samples, rate, 16000).astype(np.float32)
        expected = extractor(resampled, sampling_rate=16000, return_tensors="np")["input_values"][0]
        features = reader.read(AudioFile(file.read_bytes())).arrays["input_values"]
        np.testing.assert_allclose(features, expected, atol=1e-4)
