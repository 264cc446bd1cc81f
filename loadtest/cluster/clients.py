"""The load generator of real replicas: `python -m rootstock.loadtest.cluster.clients`.

It reads a ClientPlan as JSON on stdin and writes the figures of its window as JSON on stdout. A policy of the
simulated routers chooses the replica of each request. It is a separate process, so that its CPU time is known.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count

import gevent
import numpy as np
from gevent.pool import Pool
from geventhttpclient import HTTPClient

from rootstock.loadtest.cluster.policy import policy_of
from rootstock.loadtest.cluster.traffic import arrivals, zipf
from rootstock.loadtest.cluster.window import ClientPlan, WindowFigures
from rootstock.loadtest.http.requests import PREDICT
from rootstock.loadtest.load.samples import parse
from rootstock.loadtest.measure.machine import cores
from rootstock.loadtest.measure.processes import busy_seconds, cpu_seconds

# An open loop has at most so many requests without an answer.
_IN_FLIGHT = 1000
_TIMEOUT_S = 60.0
# The servers take a while to write their metrics, which must not count as a latency.
_SETTLE_S = 0.5
_POLL_S = 0.01
# Loads into memory, loads into a slot, and batches.
_COUNTERS = ("rootstock_loads_total:memory", "rootstock_loads_total:slot", "rootstock_batch_rows_count")
_HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Snapshot:
    """The answers until a time, and the CPU seconds of the clients, the servers and the machine."""

    at: float
    answers: int
    client: float
    server: float
    machine: float

    def others_since(self, before: Snapshot) -> float:
        """Return the share of the cores that other programs have taken since `before`."""
        machine = self.machine - before.machine
        ours = self.client - before.client + self.server - before.server
        return max(0.0, machine - ours) / (cores() * (self.at - before.at))


class ReplicaClients:
    """Clients that share a router, and the latencies of their answers by the time of each."""

    def __init__(self, plan: ClientPlan) -> None:
        self._plan = plan
        most = max(plan.clients, _IN_FLIGHT if plan.rate else 0)
        self._https = [
            HTTPClient(
                "127.0.0.1",
                port,
                concurrency=most + 1,
                connection_timeout=_TIMEOUT_S,
                network_timeout=_TIMEOUT_S,
            )
            for port in plan.ports
        ]
        self._policy = policy_of(plan.policy, len(plan.names), len(plan.ports), plan.seed)
        self._adapters = zipf(len(plan.names), plan.seed)
        self._texts = count()
        self._waiting = [0] * len(plan.ports)
        self._up = list(range(len(plan.ports)))
        self._ended = array("d")
        self._latencies = array("d")
        self._failed = 0
        self._end = 0.0

    def run(self) -> WindowFigures:
        """Load the servers and return the figures of the window."""
        plan = self._plan
        self._end = float("inf")
        senders = [gevent.spawn(self._closed) for _ in range(0 if plan.rate else plan.clients)]
        if plan.rate:
            senders.append(gevent.spawn(self._open))
        while len(self._ended) < plan.warm and not any(sender.ready() for sender in senders):
            gevent.sleep(_POLL_S)
        # The pages are made outside the window.
        old_pages = self._pages()
        before = self._snapshot()
        begin = time.monotonic() + _SETTLE_S
        self._end = begin + plan.seconds + _SETTLE_S
        gevent.sleep(max(0.0, begin + plan.seconds - time.monotonic()))
        after = self._snapshot()
        new_pages = self._pages()
        gevent.joinall(senders, raise_error=True)
        ended, latencies = np.array(self._ended), np.array(self._latencies)
        inside = latencies[(ended >= begin) & (ended < begin + plan.seconds)]
        p50, p99 = np.percentile(inside, [50, 99]) * 1e3 if len(inside) else (0.0, 0.0)
        old, new = _totals(old_pages), _totals(new_pages)
        each = max(1, after.answers - before.answers)
        cold, slots, batches = ((new[name] - old[name]) / each for name in _COUNTERS)
        return WindowFigures(
            len(inside) / plan.seconds,
            float(p50),
            float(p99),
            self._failed,
            cold,
            slots,
            batches,
            1e3 * (after.server - before.server) / each,
            1e3 * (after.client - before.client) / each,
            after.others_since(before),
            len(inside),
            (inside / inside.mean()).round(4).tolist() if len(inside) else [],
        )

    def _closed(self) -> None:
        while time.monotonic() < self._end:
            self._send(time.monotonic())

    def _open(self) -> None:
        pool = Pool(_IN_FLIGHT)
        at = time.monotonic()
        for gap in arrivals(self._plan.rate, self._plan.seed):
            at += gap
            if at >= self._end:
                break
            gevent.sleep(max(0.0, at - time.monotonic()))
            pool.spawn(self._send, at)
        pool.join()

    def _send(self, due: float) -> None:
        plan, adapter = self._plan, next(self._adapters)
        text = plan.texts[next(self._texts) % len(plan.texts)]
        body = json.dumps({"model": plan.names[adapter], "inputs": text}).encode()
        place = self._policy.choose(adapter, self._waiting, self._up)
        self._waiting[place] += 1
        try:
            answer = self._https[place].post(PREDICT, body=body, headers=_HEADERS)
            answer.read()
            if answer.status_code != 200:
                self._failed += 1
                return
        finally:
            self._waiting[place] -= 1
        now = time.monotonic()
        self._ended.append(now)
        self._latencies.append(now - due)

    def _pages(self) -> list[str]:
        return [http.get("/metrics").read().decode() for http in self._https]

    def _snapshot(self) -> Snapshot:
        own, answers = time.process_time(), len(self._ended)
        servers = sum(cpu_seconds(pid) or 0.0 for pid in self._plan.pids)
        at, machine = time.monotonic(), busy_seconds()
        return Snapshot(at, answers, own, servers, machine)


def _totals(pages: Sequence[str]) -> dict[str, float]:
    """Return the sum of the servers' series by name. It takes long, so call it after the load."""
    totals: Counter[str] = Counter()
    for page in pages:
        totals.update(parse(page))
    return dict(totals)


def main() -> None:
    """Run the plan on stdin and print its figures."""
    plan = ClientPlan(**json.load(sys.stdin))
    json.dump(asdict(ReplicaClients(plan).run()), sys.stdout)


if __name__ == "__main__":
    main()
