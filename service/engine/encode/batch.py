"""What is admitted, what one forward pass computes, and the narrow interface between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.core.admission import Ticket
from rootstock.service.engine.encode.modalities.text import Encoded, Input

if TYPE_CHECKING:
    from rootstock.service.engine.core.observer import BatchStats

Ids = npt.NDArray[np.int64]
Priority = Literal["high", "normal", "low"]
# What a token costs its line of the queue: under load a high one gets four times a normal one's share.
PRIORITIES: Mapping[Priority, int] = {"high": 1, "normal": 4, "low": 16}


@dataclass(eq=False)
class Request:
    """Inputs under one adapter, admitted together and answered together.

    `encoded[i]` holds the rows of input i, `outputs` the raw head output of every row once computed, input by
    input. `gone` is set when nobody waits any more (the client left, the deadline passed, another input of the
    request failed): its rows are then not computed. Times are seconds on the engine's clock: when it was
    `admitted`, its adapter was `ready` in host memory, `tokenizing` began, it was `tokenized`, its first batch
    `started` and its last one `finished`. `compute` is its share, by tokens, of the seconds of its batches, the
    last of which is `batch`.
    """

    adapter: Adapter
    inputs: Sequence[Input]
    parameters: Mapping[str, Any]
    deadline: float
    admitted: float
    tenant: str = ""
    priority: Priority = "normal"
    verifying: bool = False
    ticket: Ticket = field(default_factory=Ticket)
    encoded: Sequence[Sequence[Encoded]] = ()
    outputs: list[Array | None] = field(default_factory=list)
    ready: float = 0.0
    tokenizing: float = 0.0
    tokenized: float = 0.0
    started: float | None = None
    finished: float | None = None
    gone: bool = False
    tokens: int = 0
    compute: float = 0.0
    batch: BatchStats | None = None

    def input_of(self, row: int) -> int:
        """Which input a row is of."""
        return [i for i, rows in enumerate(self.encoded) for _ in rows][row]


@dataclass(eq=False, slots=True)
class Row:
    """One row of one request, waiting for or in a batch. `key` is equal for equal inputs."""

    request: Request
    index: int
    encoded: Encoded
    length: int = field(init=False)
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.encoded.ids)
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


class Runner(Protocol):
    """Runs batches on one foundation with adapters in numbered slots; but for `warm`, from one thread at a time.

    `warm` opens whatever an adapter needs beyond its arrays; it may be slow, and any thread may call it. `stage`
    prepares an adapter and may fail; `place` puts what was staged into a slot and does not. `run` gives the raw
    head output of each row: (labels,) or (dimensions,), for token classification (length, labels), for question
    answering (length, 2), start and end, for fill-mask (masks, vocabulary).
    """

    name: str
    precision: str
    slots: int

    def warm(self, adapter: Adapter) -> None: ...

    def stage(self, adapter: Adapter) -> Any: ...

    def place(self, slot: int, staged: Any) -> None: ...

    def clear(self, slot: int) -> None: ...

    def run(self, batch: Batch) -> list[Array]: ...


def pad(rows: Sequence[Encoded], slots: Sequence[int], pad_id: int) -> Batch:
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
