"""Requests a second over HTTP, under each server, against the engine in process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from rootstock.adapters.client.client import Client
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.engine_process import EngineProcess, engine_process
from rootstock.loadtest.fixtures.server import ServerProcess, rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.windows import Windows, windows_of
from rootstock.loadtest.fixtures.workload import Workload, make_workload
from rootstock.loadtest.http.requests import PREDICT, predict_bodies
from rootstock.loadtest.measure.agreement import TOLERANCE, Disagreement
from rootstock.loadtest.measure.processes import IdleClock, cpu_seconds
from rootstock.loadtest.measure.row import BenchmarkRow, Pair
from rootstock.loadtest.measure.wrk import Load, find_wrk, load, script
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

ADAPTERS = 32
TOKENS = 16


class ThroughputSides:
    """The servers and the engine's process, with the load that each of them gets."""

    def __init__(self, workload: Workload, engine: EngineProcess, servers: Mapping[str, ServerProcess]) -> None:
        self._workload = workload
        self._engine = engine
        self._servers = servers
        self._expected = engine.answers()
        self._bodies = predict_bodies(workload)
        self._lua = script(PREDICT, self._bodies)
        self._pids = {"in process": engine.pid} | {kind: server.pid for kind, server in servers.items()}
        self.idle = IdleClock()

    def publish(self) -> None:
        """Upload every adapter to every server. Raise Disagreement if a digest differs from the engine's."""
        for kind, server in self._servers.items():
            with Client(server.url) as client:
                for i, name in enumerate(self._workload.names):
                    digest = client.push(self._workload.bundles[i], name).digest
                    if digest != self._expected[i]["digest"]:
                        raise Disagreement(f"{kind}: {name} is {digest}, not {self._expected[i]['digest']}")

    def check(self) -> float:
        """Return the largest difference of scores from the engine's. Raise Disagreement if it is too large."""
        worst = 0.0
        for kind, server in self._servers.items():
            with Client(server.url) as client:
                for i, name in enumerate(self._workload.names):
                    answer = client.predict(name, self._workload.sentences[i], top_k=None)
                    where = f"{kind}: {name}"
                    if answer.digest != self._expected[i]["digest"]:
                        raise Disagreement(f"{where}: {answer.digest} answered")
                    worst = max(worst, difference(answer.raw, self._expected[i]["scores"], where))
        return worst

    def warm(self, connections: int, seconds: int) -> int:
        """Load every side untimed and check each HTTP answer's digest and label. Return the answers checked."""
        expected = {
            name: (f'"digest":"{answer["digest"]}"', f'"label":"{answer["scores"][0]["label"]}"')
            for name, answer in zip(self._workload.names, self._expected, strict=True)
        }
        lua = script(PREDICT, self._bodies, expected)
        self._engine.load(connections, seconds)
        return sum(load(s.url, lua, connections, seconds).requests for s in self._servers.values())

    def pair(self, kind: str, first: bool, windows: Windows) -> Pair:
        """Return requests a second of server and engine. If `first`, the server's window comes first."""
        if first:
            over_http = self._over_http(kind, windows)
            return Pair(over_http, self._in_process(windows))
        inside = self._in_process(windows)
        return Pair(self._over_http(kind, windows), inside)

    def latency(self, kind: str, connections: int, seconds: int) -> Load:
        """Return one window of a server."""
        return load(self._servers[kind].url, self._lua, connections, seconds)

    def _over_http(self, kind: str, windows: Windows) -> float:
        return self._watch(
            kind,
            lambda: load(self._servers[kind].url, self._lua, windows.connections, windows.seconds).rate,
        )

    def _in_process(self, windows: Windows) -> float:
        return self._watch("in process", lambda: self._engine.load(windows.connections, windows.seconds))

    def _watch(self, busy: str, work: Callable[[], float]) -> float:
        """Return the work's figure. Add the CPU time of the processes that are not at work to `idle`."""
        others = {name: pid for name, pid in self._pids.items() if name != busy}
        before = {name: cpu_seconds(pid) for name, pid in others.items()}
        start = time.monotonic()
        figure = work()
        seconds = time.monotonic() - start
        for name, pid in others.items():
            used, earlier = cpu_seconds(pid), before[name]
            if used is not None and earlier is not None:
                self.idle.add(name, used - earlier, seconds)
        return figure


def throughput(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure requests a second under each server ÷ those of the engine in process.

    Raise LoadError, ServerFailed or Disagreement if there are no valid figures.
    """
    find_wrk()
    windows = windows_of(setup)
    tokenizer = Tokenizer(setup.export / "tokenizer.json")
    workload = make_workload(OnnxRunner(setup.export, 3, 1).spec, tokenizer, ADAPTERS, TOKENS)
    with ExitStack() as stack:
        setup.say("throughput: starting the engine's process and the servers")
        engine = stack.enter_context(engine_process(setup.export, setup.threads, ADAPTERS, TOKENS))
        servers = {
            kind: stack.enter_context(rootstock_server(kind, setup.export, setup.threads))
            for kind in targets.THROUGHPUT
        }
        sides = ThroughputSides(workload, engine, servers)
        setup.say(f"throughput: publishing {ADAPTERS} adapters to each")
        sides.publish()
        worst = sides.check()
        answers = sides.warm(windows.connections, max(1, windows.seconds))
        pairs: dict[str, list[Pair]] = {kind: [] for kind in servers}
        for i in range(windows.pairs):
            setup.say(f"throughput: pair {i + 1} of {windows.pairs}")
            for kind in servers:
                pairs[kind].append(sides.pair(kind, i % 2 == 0, windows))
        latencies = {kind: _latencies(sides, kind, windows) for kind in servers}
        worst = max(worst, sides.check())
        shares = sides.idle.shares()
    notes = [
        f"scores before and after equal the engine's own (largest difference {worst:.1e})",
        f"{answers} answers under load had the right digest and label; no error in any window",
        "idle processes used, of one core: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()),
    ]
    return [_row(kind, pairs[kind], windows, latencies[kind], notes, shares) for kind in servers]


def _latencies(sides: ThroughputSides, kind: str, windows: Windows) -> dict[str, Any]:
    seconds = max(1, 2 * windows.seconds)
    latencies = {}
    for connections in dict.fromkeys((windows.connections, 1)):
        window = sides.latency(kind, connections, seconds)
        latencies[str(connections)] = {
            "p50_ms": window.p50_ms,
            "p99_ms": window.p99_ms,
            "requests_s": window.rate,
        }
    return latencies


def _row(
    kind: str,
    pairs: list[Pair],
    windows: Windows,
    latencies: dict[str, Any],
    notes: list[str],
    idle: dict[str, float],
) -> BenchmarkRow:
    latency_notes = [
        f"{connections} connection(s): p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms, "
        f"{one['requests_s']:.0f} requests/s (not judged)"
        for connections, one in latencies.items()
    ]
    return BenchmarkRow(
        benchmark="throughput",
        title=f"over HTTP under {kind} ÷ the engine in process",
        top=f"wrk -t1 -c{windows.connections} to rootstock serve --server {kind}: single inputs of {TOKENS} "
        f"tokens under {ADAPTERS} adapters in turn, wrk on the same cores",
        bottom=f"{windows.connections} asyncio clients on uvloop calling Engine.predict with the same requests, "
        "in a separate process",
        unit="requests/s",
        pairs=pairs,
        target=targets.THROUGHPUT[kind],
        notes=[*latency_notes, *notes],
        extra={"latency": latencies, "idle_share_of_a_core": idle},
    )


def difference(actual: list[dict[str, Any]], expected: list[dict[str, Any]], where: str) -> float:
    """Return the largest difference of two lists of scores by label. Raise Disagreement if it is too large."""
    ours = {one["label"]: one["score"] for one in actual}
    theirs = {one["label"]: one["score"] for one in expected}
    if ours.keys() != theirs.keys():
        raise Disagreement(f"{where} has labels {sorted(ours)}, not {sorted(theirs)}")
    for label, score in theirs.items():
        if abs(ours[label] - score) > TOLERANCE + TOLERANCE * abs(score):
            raise Disagreement(f"{where}: {label} scores {ours[label]}, expected {score}")
    return max((abs(float(ours[label]) - float(score)) for label, score in theirs.items()), default=0.0)
