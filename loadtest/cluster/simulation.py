"""A discrete-event simulation of replicas behind a router, on simpy."""

from __future__ import annotations

import random
from array import array
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
from simpy import Environment, Event

from rootstock.loadtest.cluster.cores import AnyCore, SerialThread, SharedCores
from rootstock.loadtest.cluster.costs import ClusterCosts
from rootstock.loadtest.cluster.policy import policy_of
from rootstock.loadtest.cluster.replica import Fate, ReplicaLimits, SimulatedReplica, SimulatedRequest
from rootstock.loadtest.cluster.traffic import arrivals, zipf
from rootstock.loadtest.fixtures.setup import Say


@dataclass(frozen=True)
class SimulatedPhase:
    """A stretch of a simulation: its seconds, and its faults.

    A replica is killed every `kill_every` seconds (0: none), and a rolling deploy begins with a phase that has
    `deploy`.
    """

    name: str
    seconds: float
    kill_every: float = 0.0
    deploy: bool = False


@dataclass(frozen=True)
class SimulationPlan:
    """The cluster, its traffic and its faults.

    Each replica has a machine of `cores` cores. With `one_machine` they share one: each is pinned to a core, in
    turn, and the clients run on any core. `clients` send each next request after an answer; with `rate` instead,
    so many requests a second come at random times.
    `tokens` is the length of each input. A killed replica is back after `restart_s`. A deploy starts new replicas
    beside the share `surge` of the old ones at a time, and they take their places after `restart_s`. At the
    beginning the replicas hold the adapters that `earlier` requests have left in them, and the first phase begins
    after `warm` answers.
    """

    replicas: int
    adapters: int
    policy: str
    phases: Sequence[SimulatedPhase]
    clients: int = 0
    rate: float = 0.0
    tokens: int = 16
    limits: ReplicaLimits = field(default_factory=ReplicaLimits)
    cores: int = 2
    one_machine: bool = False
    restart_s: float = 5.0
    surge: float = 0.25
    earlier: int = 0
    warm: int = 0
    seed: int = 0


@dataclass(frozen=True)
class PhaseFigures:
    """The events of a phase. Latencies are those of its answers, in milliseconds.

    `cpu_ms` is the cores' time for an answer, if all share one machine."""

    name: str
    requests_s: float
    p50_ms: float
    p99_ms: float
    cold_per_request: float
    slot_loads_per_request: float
    batches_per_request: float
    refused: int
    retried: int
    failed: int
    answers: int
    cpu_ms: float


class ClusterSimulation:
    """One run of a plan. Runs of equal plans and costs give equal figures.

    The router knows the requests that are under way in each replica. It notices at once when a replica ends, and
    sends the requests that were in it to another one, once. `latencies` has the seconds of each answer of the
    last phase.
    """

    def __init__(self, plan: SimulationPlan, costs: ClusterCosts) -> None:
        self._plan = plan
        self._costs = costs
        self._environment = Environment()
        pinned = plan.cores if plan.one_machine else 0
        self._pinned = [
            SharedCores(self._environment, 1, costs.slowdown, costs.late, f"core {i} of {plan.seed}")
            for i in range(pinned)
        ]
        self._client = SerialThread(AnyCore(self._pinned)) if self._pinned else None
        self._policy = policy_of(plan.policy, plan.adapters, plan.replicas, plan.seed)
        self._adapters = zipf(plan.adapters, plan.seed)
        self._gaps = arrivals(plan.rate, plan.seed)
        self._dice = random.Random(plan.seed)  # noqa: S311 - a simulation, no secrets
        self._keys = count()
        self._starts = 0
        self._waiting = [0] * plan.replicas
        self._up = list(range(plan.replicas))
        self.latencies = array("d")
        self._cold = self._refused = self._retried = self._failed = self._slot_loads = self._batches = 0
        self._replicas = [self._start(place) for place in range(plan.replicas)]

    def run(self, say: Say = lambda line: None) -> list[PhaseFigures]:
        """Simulate all phases and return the figures of each."""
        plan, figures = self._plan, []
        for adapter in islice(self._adapters, plan.earlier):
            self._replicas[self._policy.choose(adapter, self._waiting, self._up)].hold(adapter)
        for _ in range(plan.clients):
            self._send()
        if plan.rate:
            self._environment.timeout(next(self._gaps)).callbacks.append(self._arrive)
        while len(self.latencies) < plan.warm:
            self._environment.step()
        for phase in plan.phases:
            end = self._environment.now + phase.seconds
            if phase.kill_every:
                self._environment.process(self._kill(phase.kill_every, end))
            if phase.deploy:
                self._environment.process(self._deploy())
            before, used = self._counts(), self._used()
            self.latencies = array("d")
            self._environment.run(until=end)
            figures.append(self._figures(phase, before, used))
            say(f"{plan.policy}, {phase.name}: {figures[-1].answers} answers in {phase.seconds:g} simulated s")
        return figures

    @property
    def under_way(self) -> int:
        """Return the requests that wait for an answer."""
        return sum(self._waiting)

    def _counts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array([self._cold, self._slot_loads, self._batches, self._refused, self._retried, self._failed])

    def _used(self) -> float:
        return sum(core.used for core in self._pinned)

    def _figures(
        self, phase: SimulatedPhase, before: np.ndarray[Any, np.dtype[np.int64]], used: float
    ) -> PhaseFigures:
        answers = len(self.latencies)
        cold, slots, batches, refused, retried, failed = (int(n) for n in self._counts() - before)
        p50, p99 = np.percentile(self.latencies, [50, 99]) * 1e3 if answers else (0.0, 0.0)
        return PhaseFigures(
            phase.name,
            answers / phase.seconds,
            float(p50),
            float(p99),
            cold / max(1, answers),
            slots / max(1, answers),
            batches / max(1, answers),
            refused,
            retried,
            failed,
            answers,
            1e3 * (self._used() - used) / max(1, answers),
        )

    def _start(self, place: int) -> SimulatedReplica:
        # Each start draws other times.
        self._starts += 1
        seed = f"{self._starts} of {self._plan.seed}"
        if self._pinned:
            cores = self._pinned[place % len(self._pinned)]
        else:
            costs = self._costs
            cores = SharedCores(
                self._environment, self._plan.cores, costs.slowdown, costs.late, f"machine {seed}"
            )
        return SimulatedReplica(
            self._environment,
            cores,
            self._costs,
            self._plan.limits,
            self._answer,
            self._count_load,
            self._count_batch,
            seed,
        )

    def _count_load(self) -> None:
        self._cold += 1

    def _count_batch(self, slot_loads: int) -> None:
        # A replica that is replaced or killed has its part in the count, and goes on to the end of its work.
        self._batches += 1
        self._slot_loads += slot_loads

    def _arrive(self, event: Event) -> None:
        self._environment.timeout(next(self._gaps)).callbacks.append(self._arrive)
        self._send()

    def _send(self) -> None:
        """Send a new request. The client's work for it and for its answer comes with each of the two."""
        now = self._environment.now
        request = SimulatedRequest(next(self._adapters), self._plan.tokens, next(self._keys), now)
        if self._client is None:
            self._route(request)
        else:
            self._client.do(self._costs.client / 2, self._route, request)

    def _route(self, request: SimulatedRequest) -> None:
        if not self._up:
            self._failed += 1
            return
        place = request.replica = self._policy.choose(request.adapter, self._waiting, self._up)
        self._waiting[place] += 1
        self._replicas[place].take(request)

    def _answer(self, request: SimulatedRequest, fate: Fate) -> None:
        if self._client is None:
            self._receive((request, fate))
        else:
            self._client.do(self._costs.client / 2, self._receive, (request, fate))

    def _receive(self, answer: tuple[SimulatedRequest, Fate]) -> None:
        request, fate = answer
        self._waiting[request.replica] -= 1
        if fate is Fate.ANSWERED:
            self.latencies.append(self._environment.now - request.due)
        elif fate is Fate.REFUSED:
            self._refused += 1
        else:
            self._failed += 1
        if self._plan.clients:
            self._send()

    def _kill(self, every: float, end: float) -> Generator[Event, Any, None]:
        """Kill a random replica every so many seconds."""
        while self._environment.now + every < end:
            yield self._environment.timeout(every)
            if len(self._up) > 1:
                self._environment.process(self._restart(self._dice.choice(self._up)))

    def _restart(self, place: int) -> Generator[Event, Any, None]:
        self._up.remove(place)
        for request in sorted(self._replicas[place].kill(), key=lambda lost: lost.key):
            self._waiting[place] -= 1
            self._retry(request)
        self._replicas[place] = self._start(place)
        yield self._environment.timeout(self._plan.restart_s)
        self._up = sorted([*self._up, place])

    def _retry(self, request: SimulatedRequest) -> None:
        request.attempts += 1
        if request.attempts > 1:
            self._failed += 1
            if self._plan.clients:
                self._send()
            return
        self._retried += 1
        request.ticket = None
        self._route(request)

    def _deploy(self) -> Generator[Event, Any, None]:
        """Replace all replicas. Each old one ends what it has begun beside the new one in its place."""
        step = max(1, round(self._plan.surge * self._plan.replicas))
        for begin in range(0, self._plan.replicas, step):
            yield self._environment.timeout(self._plan.restart_s)
            for place in range(begin, min(begin + step, self._plan.replicas)):
                self._replicas[place] = self._start(place)
