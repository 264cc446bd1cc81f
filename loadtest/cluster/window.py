"""A window of load on real replicas: its plan and its figures, which pass between two processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ClientPlan:
    """The servers' ports and processes, the traffic, and the window that counts.

    It begins after `warm` answers and takes `seconds`. `clients` send each next request after an answer; with
    `rate` instead, requests come at random times.
    """

    ports: Sequence[int]
    pids: Sequence[int]
    names: Sequence[str]
    texts: Sequence[str]
    policy: str
    clients: int
    rate: float
    seed: int
    warm: int
    seconds: float


@dataclass(frozen=True)
class WindowFigures:
    """The figures of a window. Loads, batches and CPU time are of all servers, and divided by answers.

    `others_share` is the share of the machine's cores that other programs took. `spread` has the latencies ÷
    their mean. `pass_ms` is the CPU time of a reference pass before and after the window.
    """

    requests_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    cold_per_request: float
    slot_loads_per_request: float
    batches_per_request: float
    server_cpu_ms: float
    client_cpu_ms: float
    others_share: float
    answers: int
    spread: Sequence[float]
    pass_ms: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """Return the CPU milliseconds of the servers and the clients for an answer."""
        return self.server_cpu_ms + self.client_cpu_ms
