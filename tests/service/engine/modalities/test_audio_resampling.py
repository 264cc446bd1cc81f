"""A recording at another rate is the same sound: the filter of torchaudio, for every ratio, in little memory."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import upfirdn

from rootstock.adapters.audio.resampling import resample
from tests.service.engine.modalities.audio_files import tone

RATES = [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000, 192000, 44101, 8009, 15991]


def by_scipy(samples: npt.NDArray[np.float32], rate: int, new_rate: int) -> npt.NDArray[np.float64]:
    """The documented filter of `torchaudio.functional.resample`, sinc_interp_hann, applied by scipy.

    It has a lowpass_filter_width of 6 and a rolloff of 0.99. scipy applies it at the least common multiple of the
    two rates. torchaudio itself is not installed: its kernels agree to 1e-4, and hold every pair of positions,
    which takes 80 s for a prime ratio.
    """
    common = math.gcd(rate, new_rate)
    old, new = rate // common, new_rate // common
    cutoff = 0.99 * min(old, new) / old
    half = math.floor(6 / cutoff * new)
    times = np.arange(-half, half + 1) * cutoff / new
    taps = np.sinc(times) * np.cos(times * np.pi / 12) ** 2 * cutoff
    lead = -half % old
    filtered = upfirdn(np.concatenate([np.zeros(lead), taps]), samples.astype(np.float64), new, old)
    begin, length = (half + lead) // old, math.ceil(len(samples) * new / old)
    return np.pad(filtered, (0, length))[begin : begin + length]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RATES), st.sampled_from([8000, 16000, 24000, 48000]), st.integers(1, 3000), st.integers())
def test_every_ratio_agrees_with_the_documented_filter(rate: int, new_rate: int, length: int, seed: int) -> None:
    assume(rate != new_rate)
    samples = np.random.default_rng(abs(seed)).uniform(-1, 1, length).astype(np.float32)
    resampled = resample(samples, rate, new_rate)
    assert resampled.dtype == np.float32
    assert resampled.shape == (math.ceil(length * new_rate / rate),)
    np.testing.assert_allclose(resampled, by_scipy(samples, rate, new_rate), atol=2e-6)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_below_both_nyquist_frequencies_keeps_its_phase_and_amplitude(rate: int) -> None:
    resampled = resample(tone(rate, rate, 1000.0).astype(np.float32), rate, 16000)
    expected = tone(16000, 16000, 1000.0)
    inside = slice(200, -200)  # the sound begins and ends in silence, which the filter sees
    np.testing.assert_allclose(resampled[inside], expected[: len(resampled)][inside], atol=0.005)


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_a_tone_above_the_new_nyquist_frequency_is_removed(rate: int) -> None:
    resampled = resample(tone(rate, rate, 10_000.0).astype(np.float32), rate, 16000)
    assert np.abs(resampled[200:-200]).max() < 0.005


def test_a_recording_at_the_rate_is_left_as_it_is() -> None:
    samples = tone(100, 16000).astype(np.float32)
    assert resample(samples, 16000, 16000) is samples


def test_silence_stays_silence() -> None:
    assert not resample(np.zeros(1000, np.float32), 44100, 16000).any()


def test_a_prime_ratio_takes_little_memory() -> None:
    samples = np.zeros(10 * 44101, np.float32)
    tracemalloc.start()
    try:
        resample(samples, 44101, 16000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20
