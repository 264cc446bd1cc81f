"""Locust's users. What they share is a Run, set on the environment by the generator.

Locust is the one generator for everything that is checked, with closed and open loops alike: its users,
arrivals and the publisher share one process and one clock, without which no answer can be held against what was
live when it was computed. Checking costs it some 0.5 ms of CPU a request on the server's own cores; where that
would spoil a figure, which is a ratio of throughputs, wrk generates the load instead (fixtures/windows.py). An
open loop is one user that spawns a greenlet at each arrival of a constant-rate schedule and takes latencies
from the scheduled time, so that a slow server, or a slow generator, hides nothing (no coordinated omission).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import httpx
from gevent.pool import Pool
from locust import FastHttpUser, task
from locust.exception import StopUser

from rootstock.loadtest.load.ledger import Ledger
from rootstock.loadtest.load.oracle import Oracle
from rootstock.loadtest.load.plan import Move, Phase
from rootstock.loadtest.load.record import CALLER, FLOOD, MOVER, Record
from rootstock.loadtest.load.traffic import LoadRequest, TrafficMix, judge_response
from rootstock.loadtest.load.verdict import FAULTS, Verdict

# Requests of an open loop that may be under way; beyond it an arrival waits, which its latency counts.
IN_FLIGHT = 1000


@dataclass
class Run:
    """What the users of a phase share: where they are in the plan, what they send, and what came of it.

    `broken`: a fault of the generator itself.
    """

    oracle: Oracle
    ledger: Ledger
    moves: list[Move]
    number: int = 0
    phase: Phase = field(default_factory=lambda: Phase("", 0.0))
    rate: float = 0.0
    start: float = 0.0
    traffic: TrafficMix | None = None
    flood: TrafficMix | None = None
    records: list[Record] = field(default_factory=list)
    broken: Exception | None = None

    @property
    def end(self) -> float:
        return self.start + self.phase.seconds


class _User(FastHttpUser):  # type: ignore[misc]
    """Sends requests, judges their answers and records both."""

    abstract = True

    @property
    def run_(self) -> Run:
        run: Run = self.environment.run
        return run

    def ask(self, request: LoadRequest, who: str, at: float) -> None:
        """Send a request that was to go out `at`. What goes wrong here is the generator's: it ends the run."""
        try:
            self._ask(request, who, at)
        except Exception as error:
            self.run_.broken = self.run_.broken or error

    def _ask(self, request: LoadRequest, who: str, at: float) -> None:
        run, number = self.run_, self.run_.number
        start = time.monotonic()
        headers = {"Content-Type": "application/json"}
        with self.client.post(
            request.path, data=request.body, headers=headers, name=f"{who} {request.kind}", catch_response=True
        ) as response:
            end = time.monotonic()
            after = (response.headers or {}).get("retry-after")
            judged, queue, inference = judge_response(
                request, response.status_code, after, response.content or b"", start, end
            )
            if judged.verdict in FAULTS:
                response.failure(f"{judged.verdict}: {judged.detail}")
            else:
                response.success()
        told = (judged.verdict.value, judged.scored, queue, inference, judged.detail)
        run.records.append(Record(number, who, request.kind, at, end - at, end - start, request.inputs, *told))


class Caller(_User):
    """Closed loop: the next request when the last one is answered."""

    concurrency = 1

    @task  # type: ignore[untyped-decorator]
    def call(self) -> None:
        """One request; stops when the phase is over."""
        run = self.run_
        if time.monotonic() >= run.end or run.broken or run.traffic is None:
            raise StopUser
        self.ask(run.traffic.next(), CALLER, time.monotonic())


class Flooder(_User):
    """A client of the adapter that floods: as fast as it is answered; refused, it does not even wait."""

    concurrency = 1

    @task  # type: ignore[untyped-decorator]
    def flood(self) -> None:
        """One request; stops when the phase is over."""
        run = self.run_
        if time.monotonic() >= run.end or run.broken or run.flood is None:
            raise StopUser
        self.ask(run.flood.next(), FLOOD, time.monotonic())


class Arrivals(_User):
    """Open loop: a request at each 1/rate, whether or not the ones before are answered."""

    concurrency = IN_FLIGHT

    @task  # type: ignore[untyped-decorator]
    def arrive(self) -> None:
        """The whole phase."""
        run = self.run_
        if run.traffic is None:
            raise StopUser
        pool = Pool(IN_FLIGHT)
        for i in range(int(run.rate * run.phase.seconds)):
            at = run.start + i / run.rate
            gevent.sleep(max(0.0, at - time.monotonic()))
            pool.spawn(self.ask, run.traffic.next(), CALLER, at)
        pool.join()
        raise StopUser


class Mover(_User):
    """Publishes the next version, or activates the one before, in turn, so many times a second."""

    concurrency = 1

    @task  # type: ignore[untyped-decorator]
    def move(self) -> None:
        """The whole phase."""
        run = self.run_
        try:
            for i in range(int(run.phase.moves_s * run.phase.seconds)):
                at = run.start + i / run.phase.moves_s
                gevent.sleep(max(0.0, at - time.monotonic()))
                if i % 2 == 0 and run.moves:
                    self._publish(run.moves.pop(0), at)
                else:
                    self._activate(at)
        except Exception as error:
            run.broken = run.broken or error
        raise StopUser

    def on_start(self) -> None:
        """No name was moved yet in this phase."""
        self._name = ""

    def _publish(self, move: Move, at: float) -> None:
        self._name = move.name
        number = self.run_.oracle.versions[move.digest].number
        bundle = (Path(move.bundle).name, Path(move.bundle).read_bytes())
        self._sent("publish", move.name, move.digest, number, at, "POST", "/v1/adapters", bundle)

    def _activate(self, at: float) -> None:
        """Back to what was live before the last move, under the same name."""
        ledger = self.run_.ledger
        name = self._name or next(iter(self.run_.oracle.versions.values())).name
        digest = ledger.earlier(name)
        number = self.run_.oracle.versions[digest].number
        self._sent("activate", name, digest, number, at, "PUT", f"/v1/adapters/{name}/aliases/live", number)

    def _sent(
        self, kind: str, name: str, digest: str, number: int, at: float, method: str, path: str, what: Any
    ) -> None:
        run = self.run_
        if isinstance(what, int):
            body: dict[str, Any] = {"json": {"version": what}}
        else:
            content, form = multipart({"name": name}, *what)
            body = {"data": content, "headers": {"Content-Type": form}}
        start = time.monotonic()
        run.ledger.sent(name, digest, start)
        with self.client.request(method, path, name=kind, catch_response=True, **body) as response:
            end = time.monotonic()
            told = response.json() if response.status_code in (200, 201) else {}
            moved = told.get("digest") == digest and told.get("version") == number
            if moved:
                run.ledger.answered(name, end)
                response.success()
            detail = (
                "" if moved else f"{name}: status {response.status_code}, {(response.content or b'')[:300]!r}"
            )
            if not moved:
                response.failure(detail)
        verdict = Verdict.OK if moved else Verdict.FAILED
        run.records.append(
            Record(run.number, MOVER, kind, at, end - at, end - start, 1, verdict.value, detail=detail)
        )


def multipart(fields: dict[str, str], filename: str, content: bytes) -> tuple[bytes, str]:
    """A form with one file named `bundle`, as bytes, and its Content-Type: geventhttpclient sends bytes alone."""
    files = {"bundle": (filename, content, "application/zip")}
    request = httpx.Request("POST", "http://form", data=fields, files=files)
    return request.read(), request.headers["Content-Type"]
