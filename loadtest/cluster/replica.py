"""A simulated replica: the engine's own admission, queue and packing, on simulated time and measured costs."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from simpy import Environment

from rootstock.loadtest.cluster.cores import SerialThread, SharedCores
from rootstock.loadtest.cluster.costs import ClusterCosts
from rootstock.loadtest.cluster.places import AdapterPlaces
from rootstock.service.engine.core.admission import Admission, Capacity, Ticket
from rootstock.service.engine.core.errors import Overloaded
from rootstock.service.engine.core.work import Priority
from rootstock.service.engine.encode.batch import Row
from rootstock.service.engine.encode.packing import BatchLimits
from rootstock.service.engine.encode.queue import Queue

# Of the engine: the slots that no adapter gets, and the loads at once (core/slots.py, core/adapter_cache.py).
_RESERVED_SLOTS = 2
_LOADS_AT_ONCE = 8
# The event loop, and the thread that reads inputs or the one that makes answers.
_FRONT_THREADS = 2


class Fate(Enum):
    """The end of a request in a replica."""

    ANSWERED = "answered"
    REFUSED = "refused"
    EXPIRED = "expired"


@dataclass(frozen=True)
class ReplicaLimits:
    """A replica's settings, by default the server's, and the seconds until its store begins to answer."""

    slots: int = 256
    cache_bytes: int = 512 * 2**20
    capacity: Capacity = field(default_factory=Capacity)
    batches: BatchLimits = field(default_factory=BatchLimits)
    timeout_s: float = 30.0
    store_s: float = 0.0


class SimulatedRequest:
    """A request of one input for one adapter, and its row in the queue. It was sent at the time `due`."""

    __slots__ = ("adapter", "attempts", "cost", "due", "gone", "key", "replica", "ticket")

    # The engine's queue asks this of a row and of its request. All inputs are different and of one length.
    index = 0
    group = 0
    tenant = ""
    priority: Priority = "normal"
    verifying = False
    shadow = False

    def __init__(self, adapter: int, cost: int, key: int, due: float) -> None:
        self.adapter = adapter
        self.cost = cost
        self.key = key
        self.due = due
        self.attempts = 0
        self.replica = -1
        self.gone = False
        self.ticket: Ticket | None = None

    @property
    def request(self) -> SimulatedRequest:
        return self

    @property
    def digest(self) -> int:
        return self.adapter

    @property
    def flow(self) -> int:
        return self.adapter


class SimulatedReplica:
    """One server process, from its start to its end. It calls `answer(request, fate)` once for each request.

    A thread does the HTTP work, another runs batches, and some load adapters, all on `cores`. `loaded` is called
    at each load from the store, and `began` for each batch with its loads into slots. `seed` draws the times of
    batches. A process that `kill` ends answers nothing any more.
    """

    def __init__(
        self,
        environment: Environment,
        cores: SharedCores,
        costs: ClusterCosts,
        limits: ReplicaLimits,
        answer: Callable[[SimulatedRequest, Fate], None],
        loaded: Callable[[], None],
        began: Callable[[int], None],
        seed: str = "",
    ) -> None:
        self._environment = environment
        self._cores = cores
        self._costs = costs
        self._limits = limits
        self._answer_to = answer
        self._count_load = loaded
        self._count_batch = began
        self._dice = random.Random(seed)  # noqa: S311 - a simulation, no secrets
        self._front = SerialThread(cores, _FRONT_THREADS)
        self._admission = Admission(limits.capacity)
        self._queue = Queue(limits.batches)
        memory = max(1, limits.cache_bytes // costs.adapter_bytes)
        self.places = AdapterPlaces(memory, limits.slots - _RESERVED_SLOTS)
        self._held: Counter[int] = Counter()
        self._loading: dict[int, list[SimulatedRequest]] = {}
        self._to_load: deque[int] = deque()
        self._loads = 0
        self._running = False
        self._dead = False
        self.under_way: set[SimulatedRequest] = set()

    def take(self, request: SimulatedRequest) -> None:
        """Take a request from the network."""
        self.under_way.add(request)
        pause = self._cores.begin()
        self._front.do(self._costs.before + self._costs.after_pause(pause), self._admit, request)

    def hold(self, adapter: int) -> None:
        """Have an adapter in memory, as after a request for it."""
        if not self.places.touch(adapter):
            self.places.put(adapter, ())

    def kill(self) -> set[SimulatedRequest]:
        """End the process. Return the requests that it leaves without an answer."""
        self._dead = True
        lost, self.under_way = self.under_way, set()
        for _ in lost:
            self._cores.end()
        return lost

    def _admit(self, request: SimulatedRequest) -> None:
        if self._dead:
            return
        try:
            request.ticket = self._admission.enter(1, request.cost, request.adapter)
        except Overloaded:
            self._end(request, Fate.REFUSED)
            return
        adapter = request.adapter
        self._held[adapter] += 1
        if self.places.touch(adapter):
            self._enqueue(request)
        elif adapter in self._loading:
            self._loading[adapter].append(request)
        else:
            self._loading[adapter] = [request]
            self._to_load.append(adapter)
            self._load()

    def _load(self) -> None:
        """Begin to load the next adapter, if a thread is free for it."""
        if self._to_load and self._loads < _LOADS_AT_ONCE:
            self._loads += 1
            adapter = self._to_load.popleft()
            if self._limits.store_s:
                timeout = self._environment.timeout(self._limits.store_s, adapter)
                timeout.callbacks.append(lambda event: self._read(event.value))
            else:
                self._read(adapter)

    def _read(self, adapter: int) -> None:
        self._cores.wake(self._costs.load, self._loaded, adapter)

    def _loaded(self, adapter: int) -> None:
        if self._dead:
            return
        self._count_load()
        self._loads -= 1
        self.places.put(adapter, self._held)
        for request in self._loading.pop(adapter):
            self._enqueue(request)
        self._load()

    def _enqueue(self, request: SimulatedRequest) -> None:
        self._queue.put(cast(Row, request))
        if not self._running:
            # The thread chooses rows once it works, and more may have come by then.
            self._running = True
            self._cores.wake(0.0, self._run)

    def _run(self, _: Any = None) -> None:
        """Run the next batch. Do nothing if no row can run."""
        if self._dead:
            return
        leased: list[int] = []
        loads = self.places.slot_loads

        def has_slot(row: Row) -> bool:
            adapter = cast(SimulatedRequest, row).adapter
            if not self.places.lease(adapter):
                return False
            leased.append(adapter)
            return True

        rows = cast(list[Any], self._queue.take(has_slot, self._is_gone))
        self._running = bool(rows)
        if not rows:
            return
        for row in rows:
            self._admission.take(row.ticket, row.cost)
        tokens = max(row.cost for row in rows)
        seconds = self._costs.batch_of(len(rows), tokens)
        if self._cores.user not in (None, self):
            seconds += self._costs.turn * self._costs.pass_of(len(rows), tokens)
        self._cores.user = self
        placed = self.places.slot_loads - loads
        self._count_batch(placed)
        seconds += self._costs.slot * placed
        seconds *= self._dice.choice(self._costs.spread)
        self._cores.work(seconds, self._ran, (rows, leased))

    def _is_gone(self, row: Row) -> bool:
        request = cast(SimulatedRequest, row)
        if not request.gone and self._environment.now > request.due + self._limits.timeout_s:
            self._leave(request)
            self._end(request, Fate.EXPIRED)
        return request.gone

    def _ran(self, batch: tuple[list[SimulatedRequest], list[int]]) -> None:
        if self._dead:
            return
        rows, leased = batch
        for adapter in leased:
            self.places.release(adapter)
        for request in rows:
            self._front.do(self._costs.after, self._answer, request)
        self._running = False
        if len(self._queue):
            self._run()

    def _answer(self, request: SimulatedRequest) -> None:
        if self._dead:
            return
        self._leave(request)
        self._end(request, Fate.ANSWERED)

    def _leave(self, request: SimulatedRequest) -> None:
        """Stop counting and holding for a request."""
        if request.ticket is not None:
            self._admission.leave(request.ticket)
        adapter = request.adapter
        self._held[adapter] -= 1
        if not self._held[adapter]:
            del self._held[adapter]
        self.places.trim(self._held)

    def _end(self, request: SimulatedRequest, fate: Fate) -> None:
        request.gone = True
        if request in self.under_way:
            self.under_way.remove(request)
            self._cores.end()
        self._answer_to(request, fate)
