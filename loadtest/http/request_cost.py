"""What the server itself spends on a request: its CPU time less that of a route that does nothing."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rootstock.adapters.client.client import Client
from rootstock.adapters.foundation.location import locate
from rootstock.loadtest.fixtures.runner_bench import ROWS, Say
from rootstock.loadtest.fixtures.server import RunningServer, free_port, running, serving, serving_bento
from rootstock.loadtest.fixtures.tiny_foundation import make_tiny_foundation
from rootstock.loadtest.fixtures.windows import Windows
from rootstock.loadtest.fixtures.workload import Workload, make_workload
from rootstock.loadtest.measure.processes import cpu_seconds, has_proc
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair
from rootstock.loadtest.measure.wrk import find_wrk, load, script
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.exports.cache import ensure_export

_LABEL = "cost"
_TITLE = "CPU time of a request − an empty route's, under {}"
_MOST_MS = 1.0
_TOKENS = 16
_PATH = "/v1/predict"
_KINDS = ("bentoml", "uvicorn")


def cost_rows(windows: Windows, say: Say) -> list[BenchmarkRow | NotRun]:
    """CPU milliseconds that a single-input request takes beyond an empty route's, under each server.

    The foundation is so small that its pass costs next to nothing; what it does cost counts as ours.
    """
    if not has_proc():
        return [
            NotRun(_LABEL, _TITLE.format(kind), "this system has no /proc to read CPU time from")
            for kind in _KINDS
        ]
    find_wrk()
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        foundation = Path(folder) / "tiny"
        make_tiny_foundation(foundation)
        export = ensure_export(str(foundation), locate(str(foundation)), Path(folder) / "home")
        spec = OnnxRunner(export, 3, 1).spec
        workload = make_workload(spec, Tokenizer(export / "tokenizer.json"), ROWS, _TOKENS)
        return [_row(kind, foundation, export, workload, windows, say) for kind in _KINDS]


def _row(
    kind: str, foundation: Path, export: Path, workload: Workload, windows: Windows, say: Say
) -> BenchmarkRow:
    bodies = [
        json.dumps({"model": name, "inputs": text}).encode()
        for name, text in zip(workload.names, workload.sentences, strict=True)
    ]
    lua = script(_PATH, bodies)

    def cost(served: RunningServer) -> float:
        before = cpu_seconds(served.pid)
        requests = load(served.url, lua, windows.connections, windows.seconds).requests
        after = cpu_seconds(served.pid)
        if before is None or after is None:
            raise OSError(f"the CPU time of process {served.pid} cannot be read")
        return 1e3 * (after - before) / requests

    with ExitStack() as stack:
        ours = stack.enter_context(serving(kind, export, 1, foundation=str(foundation)))
        empty = stack.enter_context(_serving_empty_route(kind))
        with Client(ours.url) as client:
            for name, bundle in zip(workload.names, workload.bundles, strict=True):
                client.publish(bundle, name)
        sides = (ours, empty)
        for side in sides:
            load(side.url, lua, windows.connections, 1)
        pairs = []
        for i in range(windows.pairs):
            say(f"cost under {kind}: pair {i + 1} of {windows.pairs}")
            found = {side.url: cost(side) for side in (sides if i % 2 == 0 else sides[::-1])}
            pairs.append(Pair(found[ours.url], found[empty.url]))
    return BenchmarkRow(
        label=_LABEL,
        title=_TITLE.format(kind),
        top=f"rootstock serve --server {kind} on a random BERT of one layer, 32 wide: single inputs of {_TOKENS} "
        f"tokens under {ROWS} adapters, wrk -t1 -c{windows.connections}; CPU time of all its processes",
        bottom=f"a FastAPI route that answers {{}} under {kind}, the same requests",
        unit="ms",
        pairs=pairs,
        target=_MOST_MS,
        measure=Measure.DIFFERENCE,
        at_most=True,
    )


@contextmanager
def _serving_empty_route(kind: str) -> Iterator[RunningServer]:
    if kind == "bentoml":
        with serving_bento(
            "the empty route's", "rootstock.loadtest.fixtures.empty_route:EmptyRoute", {}
        ) as served:
            yield served
        return
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "rootstock.loadtest.fixtures.empty_route:app",
        "--port",
        str(port),
        "--no-access-log",
    ]
    with running("the empty route's", command, port, {}) as served:
        yield served
