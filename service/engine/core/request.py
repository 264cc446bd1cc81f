"""A request as admitted, and what has become of it so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.core.admission import Ticket
from rootstock.service.engine.core.work import Priority

if TYPE_CHECKING:
    from rootstock.service.engine.core.observer import BatchStats


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
    inputs: Sequence[Any]
    parameters: Mapping[str, Any]
    deadline: float
    admitted: float
    tenant: str = ""
    priority: Priority = "normal"
    verifying: bool = False
    ticket: Ticket = field(default_factory=Ticket)
    encoded: Sequence[Sequence[Any]] = ()
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
