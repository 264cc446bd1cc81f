"""Locust's users. They share a Run, which the generator sets on the environment.

Locust generates every load whose answers are checked, in closed and open loops. Its users, the arrivals and the
publisher share one process and one clock, so that an answer can be held against the versions that were live.
A check costs some 0.5 ms of CPU a request on the server's cores. That would distort ratios of throughputs, so wrk
generates their load (fixtures/windows.py). An open loop is one user that spawns a greenlet at each arrival of a
constant-rate schedule. Latencies count from the scheduled time, so that a slow server, or a slow generator, hides
nothing (no coordinated omission).
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

from rootstock.loadtest.judgement.ledger import Ledger
from rootstock.loadtest.judgement.oracle import Oracle
from rootstock.loadtest.judgement.verdict import FAULTS, Verdict
from rootstock.loadtest.load.plan import Move, Phase
from rootstock.loadtest.load.record import CALLER, FLOOD, MOVER, Record
from rootstock.loadtest.load.traffic import LoadRequest, TrafficMix, judge_response, judge_stream

# The most unanswered requests of an open loop. A further arrival waits, and its latency counts the wait.
IN_FLIGHT = 1000


@dataclass
class Run:
    """The state that the users of a phase share: the phase, its traffic, and the records.

    `fault` is a fault of the generator itself.
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
    fault: Exception | None = None

    @property
    def end(self) -> float:
        """Return the time when the phase ends."""
        return self.start + self.phase.seconds


class _User(FastHttpUser):  # type: ignore[misc]
    """A user that sends requests, judges their answers and records both."""

    abstract = True

    @property
    def run_(self) -> Run:
        run: Run = self.environment.run
        return run

    def send(self, request: LoadRequest, who: str, at: float) -> None:
        """Send a request that was due `at`. An exception here is the generator's fault and ends the run."""
        try:
            self._send(request, who, at)
        except Exception as error:
            self.run_.fault = self.run_.fault or error

    def _send(self, request: LoadRequest, who: str, at: float) -> None:
        run, number = self.run_, self.run_.number
        start = time.monotonic()
        # Compressed events could not be read as they come.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        with self.client.post(
            request.path,
            data=request.body,
            headers=headers,
            name=f"{who} {request.kind}",
            catch_response=True,
            stream=request.streams,
        ) as response:
            if request.streams and response.status_code == 200:
                judged = judge_stream(request, response.stream, start)
            else:
                after = (response.headers or {}).get("retry-after")
                content, end = response.content or b"", time.monotonic()
                judged = judge_response(request, response.status_code, after, content, start, end)
            judgement = judged.judgement
            if judgement.verdict in FAULTS:
                response.failure(f"{judgement.verdict}: {judgement.detail}")
            else:
                response.success()
        run.records.append(
            Record(
                number,
                who,
                request.kind,
                at,
                judged.end - at,
                judged.end - start,
                request.inputs,
                judgement.verdict.value,
                judgement.scored,
                judged.queue_ms,
                judged.inference_ms,
                0.0 if judged.first is None else judged.first - at,
                judged.tokens,
                judgement.detail,
            )
        )


class Caller(_User):
    """A client of a closed loop, which sends the next request after the last answer."""

    concurrency = 1

    @task  # type: ignore[untyped-decorator]
    def call(self) -> None:
        """Send one request. Stop when the phase is over."""
        run = self.run_
        if time.monotonic() >= run.end or run.fault or run.traffic is None:
            raise StopUser
        self.send(run.traffic.next(), CALLER, time.monotonic())


class Flooder(_User):
    """A client of the flooding adapter. It sends after each answer and does not wait after a refusal."""

    concurrency = 1

    @task  # type: ignore[untyped-decorator]
    def flood(self) -> None:
        """Send one request. Stop when the phase is over."""
        run = self.run_
        if time.monotonic() >= run.end or run.fault or run.flood is None:
            raise StopUser
        self.send(run.flood.next(), FLOOD, time.monotonic())


class Arrivals(_User):
    """An open loop, which sends a request every 1/rate seconds, also while earlier ones wait for answers."""

    concurrency = IN_FLIGHT

    @task  # type: ignore[untyped-decorator]
    def arrive(self) -> None:
        """Send the whole phase."""
        run = self.run_
        if run.traffic is None:
            raise StopUser
        pool = Pool(IN_FLIGHT)
        for i in range(max(1, int(run.rate * run.phase.seconds))):
            at = run.start + i / run.rate
            gevent.sleep(max(0.0, at - time.monotonic()))
            pool.spawn(self.send, run.traffic.next(), CALLER, at)
        pool.join()
        raise StopUser


class Mover(_User):
    """A publisher: it publishes a version or activates the one before, in turn, `moves_s` times a second."""

    concurrency = 1

    @task  # type: ignore[untyped-decorator]
    def move(self) -> None:
        """Publish and activate for the whole phase."""
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
            run.fault = run.fault or error
        raise StopUser

    def on_start(self) -> None:
        """Forget the name of the last move."""
        self._name = ""

    def _publish(self, move: Move, at: float) -> None:
        self._name = move.name
        number = self.run_.oracle.versions[move.digest].number
        bundle = (Path(move.bundle).name, Path(move.bundle).read_bytes())
        self._move("publish", move.name, move.digest, number, at, "POST", "/v1/adapters", bundle)

    def _activate(self, at: float) -> None:
        """Activate the version that was live before the last move, under the same name."""
        ledger = self.run_.ledger
        name = self._name or next(iter(self.run_.oracle.versions.values())).name
        digest = ledger.earlier(name)
        number = self.run_.oracle.versions[digest].number
        self._move("activate", name, digest, number, at, "PUT", f"/v1/adapters/{name}/aliases/live", number)

    def _move(
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
            answer = response.json() if response.status_code in (200, 201) else {}
            ok = answer.get("digest") == digest and answer.get("version") == number
            if ok:
                run.ledger.answered(name, end)
                response.success()
            detail = "" if ok else f"{name}: status {response.status_code}, {(response.content or b'')[:300]!r}"
            if not ok:
                response.failure(detail)
        verdict = Verdict.OK if ok else Verdict.FAILED
        run.records.append(
            Record(run.number, MOVER, kind, at, end - at, end - start, 1, verdict.value, detail=detail)
        )


def multipart(fields: dict[str, str], filename: str, content: bytes) -> tuple[bytes, str]:
    """Return a form with one file named `bundle`, and its Content-Type. geventhttpclient sends bytes alone."""
    files = {"bundle": (filename, content, "application/zip")}
    request = httpx.Request("POST", "http://form", data=fields, files=files)
    return request.read(), request.headers["Content-Type"]
