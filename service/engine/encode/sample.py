"""Define one input in the form that a trunk takes, for any modality."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

# An array of a trunk's inputs, of shape (inputs, …): integers for text, floats for images and audio.
InputArray = npt.NDArray[Any]


class Sample(Protocol):
    """An input after preprocessing.

    `cost` is the cost to compute it, in tokens. `key` is equal for inputs that the trunk cannot tell apart.
    `outputs` is the number of raw outputs that the head gives. A request's limit on rows counts these outputs.
    The inputs of one batch have equal `group`s. It is None where padding makes all inputs alike, as for text, and
    else the shape of the input's array.
    """

    @property
    def cost(self) -> int: ...

    @property
    def key(self) -> bytes: ...

    @property
    def outputs(self) -> int: ...

    @property
    def group(self) -> Hashable: ...


@dataclass(frozen=True)
class SampleArrays:
    """The samples of one forward pass, stacked.

    `arrays` maps the trunk's input names to arrays of shape (inputs, …). Those named in `ragged` are padded on
    the right of their second axis. `lengths` gives how much of that axis each input fills, or, where no array is
    ragged, each input's cost.
    """

    arrays: Mapping[str, InputArray]
    lengths: tuple[int, ...]
    ragged: frozenset[str]

    def only(self, chosen: Sequence[int]) -> SampleArrays:
        """Return some of the inputs, in this order, at the same padded length."""
        arrays = {name: array[list(chosen)] for name, array in self.arrays.items()}
        return SampleArrays(arrays, tuple(self.lengths[i] for i in chosen), self.ragged)

    def trimmed(self) -> SampleArrays:
        """Return the inputs, padded only to the length of the longest."""
        longest = max(self.lengths)
        arrays = {
            name: array[:, :longest] if name in self.ragged else array for name, array in self.arrays.items()
        }
        return SampleArrays(arrays, self.lengths, self.ragged)


# Stacks distinct samples. Each modality has one such function.
Collate = Callable[[Sequence[Any]], SampleArrays]
