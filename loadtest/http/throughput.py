"""Row 4: requests a second over HTTP, under each server, against the engine in process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rootstock.adapters.client.client import Client
from rootstock.loadtest.fixtures.engine_process import InProcess, in_process
from rootstock.loadtest.fixtures.server import RunningServer, serving
from rootstock.loadtest.fixtures.windows import Windows
from rootstock.loadtest.fixtures.workload import Workload, make_workload
from rootstock.loadtest.measure.agreement import TOLERANCE, Disagreement
from rootstock.loadtest.measure.processes import IdleClock, cpu_seconds
from rootstock.loadtest.measure.row import BenchmarkRow, Pair
from rootstock.loadtest.measure.wrk import Load, find_wrk, load, script
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

ADAPTERS = 32
TOKENS = 16
TARGETS = {"bentoml": 0.5, "uvicorn": 0.6}
_PATH = "/v1/predict"

Say = Callable[[str], None]


class ThroughputSides:
    """The running servers and the engine's process, with the load that each of them gets."""

    def __init__(self, workload: Workload, engine: InProcess, servers: Mapping[str, RunningServer]) -> None:
        self._workload = workload
        self._engine = engine
        self._servers = servers
        self._expected = engine.answers()
        self._bodies = [
            json.dumps({"model": name, "inputs": text}).encode()
            for name, text in zip(workload.names, workload.sentences, strict=True)
        ]
        self._lua = script(_PATH, self._bodies)
        self._pids = {"in process": engine.pid} | {kind: served.pid for kind, served in servers.items()}
        self.idle = IdleClock()

    def publish(self) -> None:
        """Upload every adapter to every server; Disagreement if a digest is not the engine's own."""
        for kind, served in self._servers.items():
            with Client(served.url) as client:
                for i, name in enumerate(self._workload.names):
                    digest = client.publish(self._workload.bundles[i], name)["digest"]
                    if digest != self._expected[i]["digest"]:
                        raise Disagreement(f"{kind}: {name} is {digest}, not {self._expected[i]['digest']}")

    def check(self) -> float:
        """The largest difference of any server's scores from the engine's own; Disagreement if too large."""
        worst = 0.0
        for kind, served in self._servers.items():
            with Client(served.url) as client:
                for i, name in enumerate(self._workload.names):
                    answer = client.predict(name, self._workload.sentences[i], {"top_k": None})
                    where = f"{kind}: {name}"
                    if answer["digest"] != self._expected[i]["digest"]:
                        raise Disagreement(f"{where} was answered by {answer['digest']}")
                    worst = max(worst, difference(answer["predictions"][0], self._expected[i]["scores"], where))
        return worst

    def warm(self, connections: int, seconds: int) -> int:
        """Load everything untimed, each HTTP answer's digest and label checked; gives the answers checked."""
        expected = {
            name: (f'"digest":"{answer["digest"]}"', f'"label":"{answer["scores"][0]["label"]}"')
            for name, answer in zip(self._workload.names, self._expected, strict=True)
        }
        lua = script(_PATH, self._bodies, expected)
        self._engine.load(connections, seconds)
        return sum(load(s.url, lua, connections, seconds).requests for s in self._servers.values())

    def pairs(self, kind: str, first: bool, windows: Windows) -> Pair:
        """Requests a second of the server and of the engine, one window each; the server `first` or second."""
        if first:
            over_http = self._over_http(kind, windows)
            return Pair(over_http, self._in_process(windows))
        inside = self._in_process(windows)
        return Pair(self._over_http(kind, windows), inside)

    def latency(self, kind: str, connections: int, seconds: int) -> Load:
        """One window of a server at so many connections."""
        return load(self._servers[kind].url, self._lua, connections, seconds)

    def _over_http(self, kind: str, windows: Windows) -> float:
        return self._watched(
            kind,
            lambda: load(self._servers[kind].url, self._lua, windows.connections, windows.seconds).rate,
        )

    def _in_process(self, windows: Windows) -> float:
        return self._watched("in process", lambda: self._engine.load(windows.connections, windows.seconds))

    def _watched(self, busy: str, work: Callable[[], float]) -> float:
        """The work's figure; what the processes that are not at work use meanwhile goes to `idle`."""
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


def http_rows(export: Path, windows: Windows, threads: int, say: Say) -> list[BenchmarkRow]:
    """Row 4 under each server. LoadError, ServerFailed or Disagreement where the figures would mean nothing."""
    find_wrk()
    tokenizer = Tokenizer(export / "tokenizer.json")
    workload = make_workload(OnnxRunner(export, 3, 1).spec, tokenizer, ADAPTERS, TOKENS)
    with ExitStack() as stack:
        say("starting the engine's process and the servers")
        engine = stack.enter_context(in_process(export, threads, ADAPTERS, TOKENS))
        servers = {kind: stack.enter_context(serving(kind, export, threads)) for kind in TARGETS}
        comparison = ThroughputSides(workload, engine, servers)
        say(f"publishing {ADAPTERS} adapters to each")
        comparison.publish()
        worst = comparison.check()
        checked = comparison.warm(windows.connections, max(1, windows.seconds))
        measured: dict[str, list[Pair]] = {kind: [] for kind in servers}
        for i in range(windows.pairs):
            say(f"pair {i + 1} of {windows.pairs}")
            for kind, pairs in measured.items():
                pairs.append(comparison.pairs(kind, i % 2 == 0, windows))
        latencies = {kind: _latencies(comparison, kind, windows) for kind in servers}
        worst = max(worst, comparison.check())
        notes = [
            f"scores before and after equal the engine's own (largest difference {worst:.1e})",
            f"{checked} answers under load had the right digest and label; no error in any window",
            "idle processes used, of one core: "
            + ", ".join(f"{name} {share:.1%}" for name, share in comparison.idle.shares().items()),
        ]
        return [
            _row(kind, pairs, windows, latencies[kind], notes, comparison.idle.shares())
            for kind, pairs in measured.items()
        ]


def _latencies(comparison: ThroughputSides, kind: str, windows: Windows) -> dict[str, Any]:
    seconds = max(1, 2 * windows.seconds)
    found = {}
    for connections in dict.fromkeys((windows.connections, 1)):
        one = comparison.latency(kind, connections, seconds)
        found[str(connections)] = {"p50_ms": one.p50_ms, "p99_ms": one.p99_ms, "requests_s": one.rate}
    return found


def _row(
    kind: str,
    pairs: list[Pair],
    windows: Windows,
    latencies: dict[str, Any],
    notes: list[str],
    idle: dict[str, float],
) -> BenchmarkRow:
    shown = [
        f"{connections} connection(s): p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms, "
        f"{one['requests_s']:.0f} requests/s (not judged)"
        for connections, one in latencies.items()
    ]
    return BenchmarkRow(
        label="4",
        title=f"over HTTP under {kind} ÷ the engine in process",
        top=f"wrk -t1 -c{windows.connections} to rootstock serve --server {kind}: single inputs of {TOKENS} "
        f"tokens under {ADAPTERS} adapters in turn, wrk on the same cores",
        bottom=f"{windows.connections} asyncio clients on uvloop calling Engine.predict with the same requests, "
        "in a process of its own",
        unit="requests/s",
        pairs=pairs,
        target=TARGETS[kind],
        notes=[*shown, *notes],
        extra={"latency": latencies, "idle_share_of_a_core": idle},
    )


def difference(actual: list[dict[str, Any]], expected: list[dict[str, Any]], where: str) -> float:
    """The largest difference of two lists of scores by label."""
    ours = {one["label"]: one["score"] for one in actual}
    theirs = {one["label"]: one["score"] for one in expected}
    if ours.keys() != theirs.keys():
        raise Disagreement(f"{where} has labels {sorted(ours)}, not {sorted(theirs)}")
    for label, score in theirs.items():
        if abs(ours[label] - score) > TOLERANCE + TOLERANCE * abs(score):
            raise Disagreement(f"{where}: {label} scores {ours[label]}, the engine says {score}")
    return max((abs(float(ours[label]) - float(score)) for label, score in theirs.items()), default=0.0)
