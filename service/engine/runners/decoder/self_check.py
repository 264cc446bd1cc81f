"""Compare passes of a runner with transformers' own forward of the same tokens, once, when a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.service.engine.generate.decoder import KvCache, Segment

# The largest difference of a logit, as a share of the largest logit.
_ALLOWED = {"fp32": 1e-3, "bf16": 1e-1, "int4": 1e-1}
# The room in tokens that a check needs of its cache.
CHECK_ROOM = 1024
# A part of the first sample, then the rest beside the second sample, then single tokens of both.
_LENGTHS = (12, 9)
_FIRST, _SINGLE = 5, 3


class WrongPasses(ValueError):
    """A model whose packed passes differ from transformers' own, so that its answers would be wrong."""


def samples(vocabulary: int) -> list[list[int]]:
    """Return the tokens of two short texts, spread over the vocabulary."""
    return [[(7919 * (i + 1) + 31 * length) % vocabulary for i in range(length)] for length in _LENGTHS]


def check_passes(
    run: Callable[[Sequence[Segment]], Array],
    cache: KvCache,
    texts: Sequence[Sequence[int]],
    expected: Sequence[Array],
    precision: str,
    sources: Sequence[Sequence[int]] = ((), ()),
) -> None:
    """Raise WrongPasses unless passes of the two texts give the expected logits: (tokens, vocabulary) for each.

    The adapter in slot 0 must be empty. `sources` are what an encoder reads for each text.
    """
    rows = [cache.open(len(source)) for source in sources]
    done = [0, 0]

    def compute(counts: Sequence[int]) -> None:
        chosen = [i for i, count in enumerate(counts) if count]
        segments = [
            Segment(rows[i], 0, texts[i][done[i] : done[i] + counts[i]], done[i], () if done[i] else sources[i])
            for i in chosen
        ]
        for i, logits in zip(chosen, run(segments), strict=True):
            done[i] += counts[i]
            _compare(logits, expected[i][done[i] - 1], precision)

    try:
        for row, text in zip(rows, texts, strict=True):
            cache.extend(row, len(text))
        compute([_FIRST, 0])
        compute([len(texts[0]) - _FIRST - _SINGLE, len(texts[1]) - _SINGLE])
        for _ in range(_SINGLE):
            compute([1, 1])
    finally:
        for row in rows:
            cache.close(row)


def _compare(logits: Array, expected: Array, precision: str) -> None:
    difference = float(np.abs(logits - expected).max())
    largest = float(np.abs(expected).max())
    if not difference <= _ALLOWED[precision] * largest:
        remedy = (
            "this server does not support this configuration; choose another model"
            if precision == "fp32"
            else f"{precision} rounds too much for this model; set ROOTSTOCK_GENERATION_PRECISION to fp32"
        )
        raise WrongPasses(
            f"packed passes differ from transformers' own by {difference:.2g}, and the largest logit is "
            f"{largest:.2g}; {remedy}"
        )
