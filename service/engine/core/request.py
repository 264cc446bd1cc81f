"""Define a request, its options and its progress from admission to its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.core.admission import Ticket
from rootstock.service.engine.core.work import Priority

if TYPE_CHECKING:
    from rootstock.service.engine.core.observer import BatchStats


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """A request's tenant, its priority, and its timeout in seconds (None: the server's own timeout).

    Requests with equal `sticky` keys get equal versions under an alias with a split.
    A `shadow` repeats a request that was answered. It runs only when no other work can. It is refused while the
    queue is busy, takes no room in it, and is reported to no observer.
    """

    tenant: str = ""
    priority: Priority = "normal"
    timeout_s: float | None = None
    sticky: str = ""
    shadow: bool = False

    def deadline(self, arrived: float, most_s: float) -> float:
        """Return the time at which a request expires: at most `most_s` seconds after it `arrived`."""
        return arrived + (most_s if self.timeout_s is None else min(self.timeout_s, most_s))


DEFAULT_OPTIONS = RequestOptions()


class State(Enum):
    """A request's state: ADMITTED → PREPARED → RUNNING → COMPUTED. Each of the first three can become LEFT."""

    ADMITTED = "admitted"
    PREPARED = "prepared"
    RUNNING = "running"
    COMPUTED = "computed"
    LEFT = "left"


class Progress:
    """The progress of one request, with the times of its steps in seconds on the engine's clock.

    At `ready` its adapter was in host memory. From `preparing` to `prepared` its inputs became samples. At
    `started` its first batch began, and at `finished` its last output was complete. `samples[i]` holds the rows
    of input i. `outputs` holds the raw head output of each row, input by input. `cost` is the sum of the samples'
    costs. `batch` is its last batch. `compute` is its share, by cost, of the seconds of its batches.

    Several threads call it, each for its own step. A request is LEFT when nobody waits for it: the client left,
    the deadline passed, or another row of the request failed. No later step computes it.
    """

    __slots__ = (
        "_missing", "batch", "compute", "cost", "finished", "outputs", "prepared", "preparing", "ready",
        "samples", "started", "state",
    )  # fmt: skip

    def __init__(self, ready: float = 0.0) -> None:
        self.state = State.ADMITTED
        self.ready = ready
        self.preparing = self.prepared = 0.0
        self.started: float | None = None
        self.finished: float | None = None
        self.samples: Sequence[Sequence[Any]] = ()
        self.outputs: list[Array | None] = []
        self.cost = 0
        self.compute = 0.0
        self.batch: BatchStats | None = None
        self._missing = 0

    @property
    def left(self) -> bool:
        return self.state is State.LEFT

    def time_preparation(self, began: float, ended: float) -> None:
        """Record when the preparation of the inputs began and ended, whether or not it succeeded."""
        self.preparing, self.prepared = began, ended

    def prepare(self, samples: Sequence[Sequence[Any]]) -> None:
        """Take the samples of each input: ADMITTED → PREPARED. Raise ValueError if it was prepared before."""
        if self.state not in (State.ADMITTED, State.LEFT):
            raise ValueError(f"the request is {self.state.value}; only an admitted request can be prepared")
        self.samples = samples
        self.cost = sum(sample.cost for of_input in samples for sample in of_input)
        self._missing = sum(len(of_input) for of_input in samples)
        self.outputs = [None] * self._missing
        if self.state is State.ADMITTED:
            self.state = State.PREPARED

    def start(self, now: float) -> bool:
        """Note that a batch with one of the rows begins: PREPARED → RUNNING. Return whether it is the first."""
        if self.started is not None:
            return False
        self.started = now
        if self.state is State.PREPARED:
            self.state = State.RUNNING
        return True

    def share(self, batch: BatchStats, seconds: float) -> None:
        """Add the request's share, in seconds, of a batch that ran."""
        self.batch = batch
        self.compute += seconds

    def record(self, row: int, output: Array, now: float) -> bool:
        """Take the output of a row. Return whether it is the last one: RUNNING → COMPUTED."""
        if self.state is State.LEFT:
            return False
        self.outputs[row] = output
        self._missing -= 1
        if self._missing:
            return False
        self.finished = now
        self.state = State.COMPUTED
        return True

    def leave(self) -> None:
        """Note that nobody waits for the request any more. A computed request stays COMPUTED."""
        if self.state is not State.COMPUTED:
            self.state = State.LEFT

    def input_of(self, row: int) -> int:
        """Return the index of the input that a row belongs to."""
        return [i for i, samples in enumerate(self.samples) for _ in samples][row]


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """Inputs for one adapter that are admitted and answered together.

    `arrived` and `deadline` are in seconds on the engine's clock. A `verifying` request replays the golden inputs
    of an upload and gives raw outputs. A `shadow` repeats another request (RequestOptions). Requests of one
    `flow` share turns; by default it is the adapter's digest.
    """

    adapter: Adapter
    inputs: Sequence[Any]
    parameters: Mapping[str, Any]
    deadline: float
    arrived: float
    tenant: str = ""
    priority: Priority = "normal"
    verifying: bool = False
    shadow: bool = False
    ticket: Ticket = field(default_factory=Ticket)
    progress: Progress = field(default_factory=Progress)
    flow: str = ""
