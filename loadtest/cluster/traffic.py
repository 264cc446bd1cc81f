"""The random numbers of a run: the adapters of its requests and the times between them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_TOGETHER = 65536


def zipf(adapters: int, seed: int) -> Iterator[int]:
    """Yield adapters without end, each in proportion to 1/rank. Adapter 0 has rank 1."""
    draw = np.random.default_rng([seed, 1])
    ranked = np.cumsum(1 / np.arange(1, adapters + 1))
    while True:
        chosen = np.searchsorted(ranked, draw.random(_TOGETHER) * ranked[-1], side="right")
        yield from np.minimum(chosen, adapters - 1).tolist()


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Yield the seconds between requests that come at random, `rate` a second (a Poisson process)."""
    draw = np.random.default_rng([seed, 2])
    while True:
        yield from draw.exponential(1 / rate, _TOGETHER).tolist()
