"""Change the rate of a recording by interpolation with a windowed sinc."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array

# The filter: zero crossings of the sinc on either side, and its cutoff as a share of the lower Nyquist frequency.
_CROSSINGS = 6
_ROLLOFF = 0.99
# The weights that are held at once: 2 MiB of float64.
_WEIGHTS = 2**18


def resample(samples: Array, rate: int, new_rate: int) -> Array:
    """Return a recording at another rate, as `torchaudio.functional.resample` does with its default filter.

    The method is band-limited interpolation with a sinc under a Hann window
    (https://ccrma.stanford.edu/~jos/resample/). Sample n of the result, of ceil(len · new_rate / rate), weighs
    the samples around its time. Outputs whose times lie alike between two samples share their weights. At most
    `_WEIGHTS` of them are held at once, for any ratio.
    """
    if rate == new_rate:
        return samples
    common = math.gcd(rate, new_rate)
    old, new = rate // common, new_rate // common
    cutoff = _ROLLOFF * min(1.0, new / old)
    width = math.ceil(_CROSSINGS / cutoff)
    offsets = np.arange(-width, width + 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (width, width + 1)), len(offsets))
    result = np.empty(-(-len(samples) * new // old), np.float32)
    block = max(1, _WEIGHTS // len(offsets))
    for begin in range(0, len(result), block):
        places = np.arange(begin, min(begin + block, len(result)), dtype=np.int64)
        whole, part = np.divmod(places * old, new)
        parts, alike = np.unique(part, return_inverse=True)
        weights = (_kernel((offsets - parts[:, None] / new) * cutoff) * cutoff).astype(np.float32)
        result[places] = np.einsum("nk,nk->n", windows[whole], weights[alike])
    return result


def _kernel(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sinc under a Hann window at these times, counted in zero crossings."""
    times = np.clip(times, -_CROSSINGS, _CROSSINGS)
    kernel: npt.NDArray[np.float64] = np.sinc(times) * np.cos(times * (np.pi / _CROSSINGS / 2)) ** 2
    return kernel
