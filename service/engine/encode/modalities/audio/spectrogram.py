"""Compute power spectrograms and banks of mel filters, as `transformers.audio_utils` does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def frames(samples: npt.NDArray[np.floating], length: int, hop: int, most: int | None = None) -> Floats:
    """Return overlapping pieces of a wave form, of shape (frames, length): the first `most`, or all."""
    view = np.lib.stride_tricks.sliding_window_view(samples, length)[::hop][:most]
    return view.astype(np.float64)


def power(windowed: Floats, fft_length: int) -> Floats:
    """Return the squared magnitudes of each frame's spectrum, of shape (frames, fft_length // 2 + 1).

    The spectrum is rounded to complex64, as transformers keeps it.
    """
    spectrum = np.fft.rfft(windowed, fft_length).astype(np.complex64)
    magnitude: Floats = np.abs(spectrum, dtype=np.float64)
    return magnitude**2


def kaldi_mel_filters(bins: int, filters: int, rate: int) -> Floats:
    """Return Kaldi's triangles from 20 Hz to half the rate, of shape (bins, filters), straight on the mel scale.

    `bins` is that of a spectrum of 2 · (bins - 1) samples.
    """
    frequencies = rate / ((bins - 1) * 2) * np.arange(bins, dtype=np.float64)
    edges = np.linspace(_kaldi_mel(np.array(20.0)), _kaldi_mel(np.array(float(rate // 2))), filters + 2)
    return _triangles(_kaldi_mel(frequencies), edges)


def slaney_mel_filters(bins: int, filters: int, high: float, rate: int) -> Floats:
    """Return Slaney's triangles of equal area from 0 Hz to `high`, of shape (bins, filters), straight in hertz.

    The mel scale is linear up to 1,000 Hz and logarithmic above it (Slaney, "Auditory Toolbox", 1998).
    """
    edges = _slaney_hertz(np.linspace(0.0, _slaney_mel(high), filters + 2))
    triangles = _triangles(np.linspace(0, rate // 2, bins), edges)
    return triangles * (2.0 / (edges[2:] - edges[:-2]))


def _triangles(frequencies: Floats, edges: Floats) -> Floats:
    """Return, for each three neighbouring edges, a rise from 0 to 1 and the fall back, at these frequencies."""
    widths = np.diff(edges)
    slopes = edges[None, :] - frequencies[:, None]
    falling, rising = slopes[:, 2:] / widths[1:], -slopes[:, :-2] / widths[:-1]
    triangles: Floats = np.maximum(0.0, np.minimum(rising, falling))
    return triangles


def _kaldi_mel(hertz: Floats) -> Floats:
    mel: Floats = 1127.0 * np.log(1.0 + hertz / 700.0)
    return mel


# Slaney's scale: 3 mel for 200 Hz up to 1,000 Hz, then 27 mel for each factor of 6.4.
_BREAK_HERTZ, _BREAK_MEL, _STEP = 1000.0, 15.0, np.log(6.4) / 27.0


def _slaney_mel(hertz: float) -> float:
    if hertz < _BREAK_HERTZ:
        return 3.0 * hertz / 200.0
    return float(_BREAK_MEL + np.log(hertz / _BREAK_HERTZ) / _STEP)


def _slaney_hertz(mel: Floats) -> Floats:
    above = np.exp(_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    hertz: Floats = np.where(mel < _BREAK_MEL, 200.0 * mel / 3.0, _BREAK_HERTZ * above)
    return hertz
