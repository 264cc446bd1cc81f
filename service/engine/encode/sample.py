"""One input as a trunk takes it, whatever its modality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

# An array of a trunk's inputs, (inputs, …): integers for text, floats for images and audio.
InputArray = npt.NDArray[Any]


class Sample(Protocol):
    """An input after preprocessing.

    `cost` is what it costs to compute, in tokens. `key` is equal for inputs that the trunk cannot tell apart.
    `outputs` is the number of raw outputs that the head gives; a request's limit on rows counts it.
    """

    @property
    def cost(self) -> int: ...

    @property
    def key(self) -> bytes: ...

    @property
    def outputs(self) -> int: ...


@dataclass(frozen=True)
class SampleArrays:
    """Samples side by side, as one forward pass takes them.

    `arrays`: by the trunk's name, (inputs, …). Those named in `ragged` are padded along their second axis, on the
    right. `lengths`: how much of that axis each input fills; where nothing is ragged, each input's cost.
    """

    arrays: Mapping[str, InputArray]
    lengths: tuple[int, ...]
    ragged: frozenset[str]

    def only(self, chosen: Sequence[int]) -> SampleArrays:
        """Return some of the inputs, in this order, at the same padded length."""
        arrays = {name: array[list(chosen)] for name, array in self.arrays.items()}
        return SampleArrays(arrays, tuple(self.lengths[i] for i in chosen), self.ragged)

    def trimmed(self) -> SampleArrays:
        """Return the inputs padded to the longest of them and no further."""
        longest = max(self.lengths)
        arrays = {
            name: array[:, :longest] if name in self.ragged else array for name, array in self.arrays.items()
        }
        return SampleArrays(arrays, self.lengths, self.ragged)


# Puts distinct samples side by side: one function a modality.
Collate = Callable[[Sequence[Any]], SampleArrays]
