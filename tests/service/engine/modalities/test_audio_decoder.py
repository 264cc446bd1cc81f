"""A recording in each accepted format becomes mono samples; anything else is refused with a typed error."""

from __future__ import annotations

import gc
import io
import resource
import threading
import warnings

import numpy as np
import pytest
import soundfile

from rootstock.service.engine.core.errors import EngineError, InvalidInput, TooLarge
from rootstock.service.engine.encode.modalities.audio.audio_decoder import MAX_BYTES, MAX_SECONDS, decode
from tests.service.engine.modalities.audio_files import CODINGS, recording, tone, with_total


@pytest.mark.parametrize(("container", "coding"), CODINGS)
def test_every_accepted_format_gives_back_the_samples_that_were_written(container: str, coding: str) -> None:
    written = tone(16000, 16000)
    read = decode(recording(written, 16000, container, coding))
    assert read.rate == 16000
    assert read.samples.dtype == np.float32
    assert read.samples.shape == (16000,)
    np.testing.assert_allclose(read.samples[:-100], written[:-100], atol=CODINGS[container, coding])


@pytest.mark.parametrize(("container", "coding"), CODINGS)
def test_stereo_becomes_the_mean_of_its_channels(container: str, coding: str) -> None:
    left, right = tone(16000, 16000), tone(16000, 16000, 1000.0) * 0.4
    read = decode(recording(np.stack([left, right], 1), 16000, container, coding))
    mean = (left + right) / 2
    np.testing.assert_allclose(read.samples[:-100], mean[:-100], atol=CODINGS[container, coding])


def test_stereo_and_more_channels_are_mixed_as_transformers_load_audio_mixes_them() -> None:
    load_audio = pytest.importorskip("transformers.audio_utils")._load_audio_soundfile
    rng = np.random.default_rng(0)
    for channels in (1, 2, 6):
        file = recording(rng.uniform(-1, 1, (1000, channels)), 8000)
        with pytest.MonkeyPatch.context() as patch:
            # Without resampling, soxr is not needed.
            patch.setattr("transformers.audio_utils.requires_backends", lambda *_: None)
            patch.setattr("transformers.audio_utils.sf", soundfile, raising=False)
            np.testing.assert_array_equal(decode(file).samples, load_audio(file, 8000))


def test_an_id3_tag_before_an_mp3_is_passed_over() -> None:
    file = recording(tone(16000, 16000), 16000, "MP3", "MPEG_LAYER_III")
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
    np.testing.assert_array_equal(decode(tag + file).samples, decode(file).samples)


def test_a_streamed_flac_that_states_no_length_is_read_to_its_end() -> None:
    file = recording(tone(16000, 16000), 16000, "FLAC", "PCM_16")
    np.testing.assert_array_equal(decode(with_total(file, 0)).samples, decode(file).samples)
    long = recording(np.zeros(8000 * MAX_SECONDS + 1), 8000, "FLAC", "PCM_16")
    with pytest.raises(TooLarge, match="more than 30 s"):
        decode(with_total(long, 0))


def test_a_wav_that_is_cut_is_read_as_far_as_it_goes() -> None:
    file = recording(tone(16000, 16000))
    np.testing.assert_array_equal(decode(file[: 44 + 2 * 5000]).samples, decode(file).samples[:5000])


def test_a_streamed_wav_that_states_no_length_is_read_to_its_end() -> None:
    file = recording(tone(16000, 16000))
    place = file.index(b"data") + 4
    streamed = file[:place] + b"\xff\xff\xff\xff" + file[place + 4 :]
    np.testing.assert_array_equal(decode(streamed).samples, decode(file).samples)


def test_the_longest_recording_is_read_and_a_longer_one_refused() -> None:
    assert len(decode(recording(np.zeros(MAX_SECONDS * 8000), 8000)).samples) == MAX_SECONDS * 8000
    with pytest.raises(TooLarge, match=r"lasts 31\.0 s and the limit is 30 s; cut it into parts"):
        decode(recording(np.zeros(31 * 8000), 8000))


@pytest.mark.parametrize("total", [2**31, 2**36 - 1])
def test_a_forged_length_is_refused_without_memory(total: int) -> None:
    file = with_total(recording(tone(1000, 8000), 8000, "FLAC", "PCM_16"), total)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLarge, match="cut it into parts"):
        decode(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**14, "in KiB"


def test_too_many_channels_samples_or_bytes_are_refused_with_the_limit() -> None:
    with pytest.raises(TooLarge, match="9 channels and the limit is 8; mix it to one"):
        decode(recording(np.zeros((10, 9))))
    with pytest.raises(TooLarge, match="in each of 8 channels and the limit is 12000000 in all"):
        decode(recording(np.zeros((20 * 96000, 8), np.int16), 96000, "FLAC", "PCM_16"))
    with pytest.raises(TooLarge, match=f"bytes and the limit is {MAX_BYTES}"):
        decode(bytes(MAX_BYTES + 1))


@pytest.mark.parametrize("rate", [1, 3999, 192_001, 2**31 - 1])
def test_a_rate_outside_the_range_is_refused(rate: int) -> None:
    with pytest.raises(InvalidInput, match=f"has {rate} samples a second, and 4000 to 192000 are read"):
        decode(recording(np.zeros(100), rate))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 1e30])
@pytest.mark.parametrize("channels", [1, 2])
def test_numbers_that_are_not_finite_or_far_too_large_are_refused(value: float, channels: int) -> None:
    samples = np.zeros((100, channels))
    samples[50, channels - 1] = value
    with pytest.raises(InvalidInput, match="samples that are not numbers between"):
        decode(recording(samples, 16000, "WAV", "DOUBLE"))


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_a_recording_without_samples_is_refused(container: str) -> None:
    with pytest.raises(InvalidInput):
        decode(recording(np.zeros(0), 16000, container, "PCM_16"))


def test_bytes_that_are_no_recording_are_refused_with_the_accepted_formats() -> None:
    wav = recording(tone(100, 16000))
    for data in (b"", b"R", b"hello", wav[:11], b"\x89PNG\r\n\x1a\n" + bytes(100), b"ID3", wav[4:], bytes(1000)):
        with pytest.raises(InvalidInput, match="send a WAV, FLAC, Ogg"):
            decode(data)


@pytest.mark.parametrize(("container", "coding"), CODINGS)
def test_a_file_that_is_cut_in_its_header_is_refused(container: str, coding: str) -> None:
    file = recording(tone(16000, 16000), 16000, container, coding)
    for size in (12, 20, 36):
        with pytest.raises(InvalidInput):
            decode(file[:size])


@pytest.mark.parametrize(("container", "coding"), [c for c in CODINGS if c[0] in ("FLAC", "MP3")])
def test_a_file_that_states_its_length_and_is_cut_in_its_sound_is_refused(container: str, coding: str) -> None:
    file = recording(tone(48000, 16000), 16000, container, coding)
    with pytest.raises(InvalidInput):
        decode(file[: len(file) // 2])


def test_other_formats_and_codings_of_libsndfile_are_refused() -> None:
    samples = tone(1000, 16000)
    for container in ("AIFF", "AU", "CAF", "RF64", "VOC", "W64", "MAT5"):
        # libsndfile never sees them.
        with pytest.raises(InvalidInput, match="the input is not a recording that is read; send a WAV"):
            decode(recording(samples, 16000, container))
    for coding in ("IMA_ADPCM", "MS_ADPCM", "GSM610"):
        with pytest.raises(InvalidInput, match=f"coded as {coding} in WAV"):
            decode(recording(samples, 16000, "WAV", coding))


def test_vorbis_is_refused_before_libsndfile_which_leaks_it() -> None:
    vorbis = recording(tone(1000, 16000), 16000, "OGG", "VORBIS")
    opus = recording(tone(1000, 16000), 16000, "OGG", "OPUS")
    # libsndfile passes over a page with a wrong checksum.
    damaged = bytearray(opus[:47])
    damaged[22] ^= 1
    for file in (vorbis, vorbis[:58], bytes(damaged) + vorbis):
        with pytest.raises(InvalidInput, match="coded as Vorbis, which is not read; send a WAV, FLAC, Ogg Opus"):
            decode(file)


def test_a_riff_file_of_another_kind_or_with_lying_chunks_is_refused() -> None:
    wav = recording(tone(100, 16000))
    with pytest.raises(InvalidInput):
        decode(wav.replace(b"WAVE", b"AVI "))
    for lie in (wav.replace(b"fmt ", b"junk"), wav.replace(b"data", b"junk")):
        with pytest.raises(InvalidInput):
            decode(lie)


def test_silence_is_a_valid_recording() -> None:
    assert not decode(recording(np.zeros(1000))).samples.any()


def test_no_file_stays_open_and_no_error_leaves_the_module() -> None:
    wav = recording(tone(1000, 16000))
    refused = recording(np.zeros(10), 1), recording(np.full(10, np.nan), 16000, "WAV", "FLOAT")
    opened: list[soundfile.SoundFile] = []
    original = soundfile.SoundFile.__init__

    def noted(file: soundfile.SoundFile, *arguments: object, **options: object) -> None:
        original(file, *arguments, **options)
        opened.append(file)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(soundfile.SoundFile, "__init__", noted)
        decode(wav)
        for data in refused:
            with pytest.raises(EngineError):
                decode(data)
        gc.collect()
    assert len(opened) == 3
    assert all(file.closed for file in opened)


def test_threads_decode_at_once() -> None:
    files = [
        recording(tone(4000, 16000, 200.0 + 50 * i), 16000, container, coding)
        for i, (container, coding) in enumerate(CODINGS)
    ]
    expected = [decode(file).samples for file in files]
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                for file, samples in zip(files, expected, strict=True):
                    np.testing.assert_array_equal(decode(file).samples, samples)
                    with pytest.raises(InvalidInput):
                        decode(file[:30])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_soundfile_itself_reads_the_same_numbers() -> None:
    for container, coding in CODINGS:
        file = recording(tone(4000, 16000), 16000, container, coding)
        samples, rate = soundfile.read(io.BytesIO(file), dtype="float32")
        read = decode(file)
        np.testing.assert_allclose(read.samples, samples, atol=1e-6)
        assert read.rate == rate
