"""The server's cost of a request: its CPU time less that of a route that does nothing."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rootstock.adapters.client.client import Client
from rootstock.adapters.foundation.location import locate
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.runner_bench import ROWS
from rootstock.loadtest.fixtures.server import (
    ServerProcess,
    bento_server,
    free_port,
    rootstock_server,
    server_process,
)
from rootstock.loadtest.fixtures.setup import SERVERS, BenchmarkSetup
from rootstock.loadtest.fixtures.tiny_foundation import make_tiny_foundation
from rootstock.loadtest.fixtures.windows import windows_of
from rootstock.loadtest.fixtures.workload import Workload, make_workload
from rootstock.loadtest.http.requests import PREDICT, predict_bodies
from rootstock.loadtest.measure.processes import cpu_seconds, has_proc
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair
from rootstock.loadtest.measure.wrk import find_wrk, load, script
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.exports.cache import ensure_export

_NAME = "request-cost"
_TITLE = "CPU time of a request − an empty route's, under {}"
_TOKENS = 16
_EMPTY_ROUTE = "the empty route's"


def request_cost(setup: BenchmarkSetup) -> list[BenchmarkRow | NotRun]:
    """Measure the CPU milliseconds of a single-input request beyond an empty route's, under each server.

    The foundation is so small that its pass costs next to nothing. The rest of its cost counts as ours.
    """
    if not has_proc():
        reason = "this system has no /proc to read CPU time from"
        return [NotRun(_NAME, _TITLE.format(kind), reason) for kind in SERVERS]
    find_wrk()
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        foundation = Path(folder) / "tiny"
        make_tiny_foundation(foundation)
        export = ensure_export(str(foundation), locate(str(foundation)), Path(folder) / "home")
        spec = OnnxRunner(export, 3, 1).spec
        workload = make_workload(spec, Tokenizer(export / "tokenizer.json"), ROWS, _TOKENS)
        return [_row(kind, foundation, export, workload, setup) for kind in SERVERS]


def _row(kind: str, foundation: Path, export: Path, workload: Workload, setup: BenchmarkSetup) -> BenchmarkRow:
    windows = windows_of(setup)
    lua = script(PREDICT, predict_bodies(workload))

    def cost(server: ServerProcess) -> float:
        before = cpu_seconds(server.pid)
        requests = load(server.url, lua, windows.connections, windows.seconds).requests
        after = cpu_seconds(server.pid)
        if before is None or after is None:
            raise OSError(f"the CPU time of process {server.pid} cannot be read")
        return 1e3 * (after - before) / requests

    with ExitStack() as stack:
        ours = stack.enter_context(rootstock_server(kind, export, 1, foundation=str(foundation)))
        empty = stack.enter_context(_empty_route_server(kind))
        with Client(ours.url) as client:
            for name, bundle in zip(workload.names, workload.bundles, strict=True):
                client.push(bundle, name)
        sides = (ours, empty)
        for side in sides:
            load(side.url, lua, windows.connections, 1)
        pairs = []
        for i in range(windows.pairs):
            setup.say(f"{_NAME} under {kind}: pair {i + 1} of {windows.pairs}")
            costs = {side.url: cost(side) for side in (sides if i % 2 == 0 else sides[::-1])}
            pairs.append(Pair(costs[ours.url], costs[empty.url]))
    return BenchmarkRow(
        benchmark=_NAME,
        title=_TITLE.format(kind),
        top=f"rootstock serve --server {kind} on a random BERT of one layer, 32 wide: single inputs of {_TOKENS} "
        f"tokens under {ROWS} adapters, wrk -t1 -c{windows.connections}; CPU time of all its processes",
        bottom=f"a FastAPI route that answers {{}} under {kind}, the same requests",
        unit="ms",
        pairs=pairs,
        target=targets.REQUEST_CPU_MS,
        measure=Measure.DIFFERENCE,
        at_most=True,
    )


@contextmanager
def _empty_route_server(kind: str) -> Iterator[ServerProcess]:
    module = "rootstock.loadtest.fixtures.empty_route"
    if kind == "bentoml":
        with bento_server(_EMPTY_ROUTE, f"{module}:EmptyRoute", {}) as server:
            yield server
        return
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port), "--no-access-log"]
    with server_process(_EMPTY_ROUTE, command, port, {}) as server:
        yield server
