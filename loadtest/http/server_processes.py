"""One server in several processes against one process with as many threads, and what one event loop carries."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from rootstock.adapters.client.client import Client
from rootstock.adapters.foundation.location import locate
from rootstock.loadtest.fixtures.server import rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.tiny_foundation import make_tiny_foundation
from rootstock.loadtest.fixtures.windows import Side, alternate, rates, spread, windows_of
from rootstock.loadtest.fixtures.workload import make_workload
from rootstock.loadtest.http.requests import PREDICT, predict_bodies
from rootstock.loadtest.measure.row import BenchmarkRow
from rootstock.loadtest.measure.wrk import find_wrk, load, script
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.exports.cache import ensure_export

_NAME = "processes"
_ADAPTERS = 32
_TOKENS = 16
_LEAST = 2


def processes(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure requests a second of several processes ÷ those of one, on the same cores.

    The second row does so on a foundation whose pass costs next to nothing: there the event loop is the limit.
    """
    find_wrk()
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        tiny = Path(folder) / "tiny"
        make_tiny_foundation(tiny)
        export = ensure_export(str(tiny), locate(str(tiny)), Path(folder) / "home")
        return [
            _row("on the default foundation", "default", setup.export, setup),
            _row("on a foundation that costs next to nothing", str(tiny), export, setup),
        ]


def _row(where: str, foundation: str, export: Path, setup: BenchmarkSetup) -> BenchmarkRow:
    count = max(_LEAST, setup.threads)
    windows = windows_of(setup)
    workload = make_workload(
        OnnxRunner(export, 3, 1).spec, Tokenizer(export / "tokenizer.json"), _ADAPTERS, _TOKENS
    )
    bodies = predict_bodies(workload)
    sides = []
    with ExitStack() as stack:
        for number, threads in ((count, 1), (1, count)):
            settings = {"PROCESSES": str(number)}
            server = stack.enter_context(
                rootstock_server("uvicorn", export, threads, foundation=foundation, settings=settings)
            )
            digests = {}
            with Client(server.url) as client:
                for name, bundle in zip(workload.names, workload.bundles, strict=True):
                    digests[name] = (f'"digest":"{client.push(bundle, name).digest}"',)
            # Every answer is checked once, before the windows. This loads the adapters in each process.
            load(server.url, script(PREDICT, bodies, digests), windows.connections, max(1, windows.seconds))
            sides.append(Side("one process" if number == 1 else f"{number} processes", server, PREDICT, bodies))
        several, one = sides
        loads = alternate(several, one, windows, setup.say)
    return BenchmarkRow(
        benchmark=_NAME,
        title=f"{count} processes ÷ one process {where}",
        top=f"wrk -t1 -c{windows.connections} to rootstock serve --server uvicorn --processes {count}, one "
        f"thread each: single inputs of {_TOKENS} tokens under {_ADAPTERS} adapters in turn, wrk on the same "
        "cores",
        bottom=f"the same to one process with {count} threads",
        unit="requests/s",
        pairs=rates(loads),
        notes=[spread(loads, (several.name, one.name))],
    )
