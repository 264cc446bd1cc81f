"""Define a row of a request, a batch of rows, and the runner that computes a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from rootstock.adapters.spec import Array
from rootstock.service.engine.core.host import AdapterHost
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.encode.sample import Collate, InputArray, Sample, SampleArrays


@dataclass(eq=False, slots=True)
class Row:
    """One row of one request, in the queue or in a batch. Equal inputs have equal `key`s."""

    request: Request
    index: int
    sample: Sample
    # The queue reads these many times for each row.
    cost: int = field(init=False)
    key: bytes = field(init=False)
    digest: str = field(init=False)
    flow: str = field(init=False)
    group: Hashable = field(init=False)

    def __post_init__(self) -> None:
        # An input without tokens is padded to one.
        self.cost = max(1, self.sample.cost)
        self.key = self.sample.key
        self.digest = self.request.adapter.digest
        self.flow = self.request.flow or self.digest
        self.group = self.sample.group


@dataclass(frozen=True)
class Batch:
    """The distinct inputs and the rows of one forward pass. A row is an input under the adapter of a slot.

    `slots` and `inputs` have one entry for each row; an entry of `inputs` is an index into `samples`. The runner
    computes once what the rows of one input have in common.
    """

    samples: SampleArrays
    slots: tuple[int, ...]
    inputs: tuple[int, ...]

    @property
    def arrays(self) -> Mapping[str, InputArray]:
        return self.samples.arrays

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.samples.lengths

    @property
    def longest(self) -> int:
        """Return the length that the inputs are padded to."""
        return next((self.arrays[name].shape[1] for name in self.samples.ragged), max(self.lengths))

    @property
    def padded(self) -> int:
        """Return the cost of the inputs in tokens, padding included."""
        return len(self.lengths) * self.longest

    def only(self, rows: Sequence[int]) -> Batch:
        """Return a batch of some of the rows, at the same padded length."""
        places = {source: place for place, source in enumerate(dict.fromkeys(self.inputs[row] for row in rows))}
        return Batch(
            self.samples.only(list(places)),
            tuple(self.slots[row] for row in rows),
            tuple(places[self.inputs[row]] for row in rows),
        )

    def apart(self) -> Batch:
        """Return a batch of the same rows, each with a separate input, so that they share nothing."""
        return Batch(self.samples.only(self.inputs), self.slots, tuple(range(len(self.inputs))))

    def trimmed(self) -> Batch:
        """Return the batch, padded only to the length of its longest input."""
        return replace(self, samples=self.samples.trimmed())


class Encoder(AdapterHost, Protocol):
    """A runner of batches on one foundation: one forward pass each, with the adapters in its slots.

    `run` returns the raw head output of each row. Its shape is (labels,) or (dimensions,); (length, labels) for
    token classification; (length, 2), start and end, for question answering; and (masks, vocabulary) for
    fill-mask. Only one thread at a time calls it.
    """

    name: str
    precision: str

    def run(self, batch: Batch) -> list[Array]: ...


def assemble(samples: Sequence[Sample], slots: Sequence[int], collate: Collate) -> Batch:
    """Return a batch with one row for each sample, under these slots. Equal samples become one input."""
    places: dict[bytes, int] = {}
    distinct: list[Sample] = []
    inputs: list[int] = []
    for sample in samples:
        place = places.setdefault(sample.key, len(distinct))
        if place == len(distinct):
            distinct.append(sample)
        inputs.append(place)
    return Batch(collate(distinct), tuple(slots), tuple(inputs))
