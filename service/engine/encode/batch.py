"""A row of a request, the batch that one forward pass computes, and the runner that computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array
from rootstock.service.engine.core.host import AdapterHost
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.encode.modalities.text import TextSample

Ids = npt.NDArray[np.int64]


@dataclass(eq=False, slots=True)
class Row:
    """One row of one request, waiting for or in a batch. `key` is equal for equal inputs."""

    request: Request
    index: int
    encoded: TextSample
    cost: int = field(init=False)
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.cost = len(self.encoded.ids)
        self.key = self.encoded.key

    @property
    def digest(self) -> str:
        return self.request.adapter.digest


@dataclass(frozen=True)
class Batch:
    """One forward pass: distinct inputs padded to one length, and rows, each an input under a slot's adapter.

    `input_ids`, `attention_mask`, `token_type_ids`: (inputs, tokens) int64. `lengths`: one an input. `slots` and
    `inputs`: one a row, `inputs` indexing the arrays. What rows of one input have in common is computed once.
    """

    input_ids: Ids
    attention_mask: Ids
    token_type_ids: Ids
    lengths: tuple[int, ...]
    slots: tuple[int, ...]
    inputs: tuple[int, ...]

    def only(self, rows: Sequence[int]) -> Batch:
        """The batch of some of the rows, at the same padded length."""
        kept = {source: place for place, source in enumerate(dict.fromkeys(self.inputs[row] for row in rows))}
        chosen = list(kept)
        return Batch(
            self.input_ids[chosen],
            self.attention_mask[chosen],
            self.token_type_ids[chosen],
            tuple(self.lengths[source] for source in chosen),
            tuple(self.slots[row] for row in rows),
            tuple(kept[self.inputs[row]] for row in rows),
        )

    def trimmed(self) -> Batch:
        """The batch padded to its own longest input and no further."""
        longest = max(self.lengths)
        names = ("input_ids", "attention_mask", "token_type_ids")
        return replace(self, **{name: getattr(self, name)[:, :longest] for name in names})


class Encoder(AdapterHost, Protocol):
    """Runs batches on one foundation, one forward pass each, with the adapters in its slots.

    `run` gives the raw head output of each row: (labels,) or (dimensions,), for token classification (length,
    labels), for question answering (length, 2), start and end, for fill-mask (masks, vocabulary). One thread at a
    time calls it.
    """

    name: str
    precision: str

    def run(self, batch: Batch) -> list[Array]: ...


def pad(rows: Sequence[TextSample], slots: Sequence[int], pad_id: int) -> Batch:
    """The batch of these rows: equal inputs held once, padded on the right to the longest."""
    places: dict[bytes, int] = {}
    inputs = tuple(places.setdefault(row.key, len(places)) for row in rows)
    distinct = dict(zip(reversed(inputs), reversed(rows), strict=True))
    lengths = tuple(len(distinct[i].ids) for i in range(len(places)))
    shape = (len(places), max(lengths))
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    types = np.zeros(shape, dtype=np.int64)
    for i, length in enumerate(lengths):
        ids[i, :length] = distinct[i].ids
        mask[i, :length] = 1
        types[i, :length] = distinct[i].type_ids
    return Batch(ids, mask, types, lengths, tuple(slots), inputs)
