"""The time that a server takes to be ready, and the memory that it then holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager

from rootstock.adapters.client.client import Client
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.runner_bench import open_bench
from rootstock.loadtest.fixtures.server import EMPTY, ServerProcess, empty_server, rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import Workload
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.processes import NO_PROC_MEMORY, Memory, has_proc, memory
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair

_NAME = "startup"
_KINDS = ("uvicorn", "bentoml", EMPTY)
_TOKENS = 16
# A 95 % interval needs at least six starts.
_STARTS = 6
_EMPTY_SERVICE = "bentoml serve of a service with one route, one worker, no metrics, in turns with ours"
_START = "rootstock serve --server {}, {} threads, the export in the cache, no adapters: to /readyz 200"


class _Starts:
    """The seconds and the memory of every start, by kind of server, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.ready: dict[str, list[Memory]] = defaultdict(list)
        self.used: dict[str, list[Memory]] = defaultdict(list)

    def measure(self, setup: BenchmarkSetup, kind: str, workload: Workload) -> None:
        """Start a server once, let it answer under an adapter, and stop it."""
        with _server(setup, kind) as server:
            self.seconds[kind].append(server.seconds)
            if not has_proc():
                return
            self.ready[kind].append(memory(server.pid))
            if kind != EMPTY:
                with Client(server.url) as client:
                    client.push(workload.bundles[0], workload.names[0])
                    client.predict(workload.names[0], workload.sentences[0])
                self.used[kind].append(memory(server.pid))

    def resident(self, kind: str) -> list[float]:
        """Return the resident MB of each start of a kind."""
        return [one.resident for one in self.ready[kind]]

    def memory_notes(self, kind: str) -> list[str]:
        """Return the further figures of a kind's memory."""
        ready, used = self.ready[kind], self.used[kind]
        proportional = median_interval([one.proportional for one in ready]).median
        resident = median_interval([one.resident for one in used]).median
        return [
            f"{ready[0].processes} process(es); their resident sets are added up: a shared page counts in each",
            f"proportional sets (PSS): {proportional:.0f} MB",
            f"resident after an upload and an answer under it: {resident:.0f} MB",
        ]


def startup(setup: BenchmarkSetup) -> list[BenchmarkRow | NotRun]:
    """Measure the start and the memory of our server under uvicorn and under BentoML."""
    return start_rows(setup, setup.count(_STARTS, setup.pairs))


def start_rows(setup: BenchmarkSetup, repeats: int) -> list[BenchmarkRow | NotRun]:
    """Measure seconds from the start of the process to /readyz 200, and MB of all processes at that moment."""
    workload = open_bench(setup.export, _TOKENS, setup.threads, adapters=1).workload
    starts = _Starts()
    for i in range(repeats):
        setup.say(f"{_NAME}: starts {i + 1} of {repeats}")
        for kind in _KINDS if i % 2 == 0 else reversed(_KINDS):
            starts.measure(setup, kind, workload)
    return [*_time_rows(starts, setup.threads), *_memory_rows(starts)]


def _time_rows(starts: _Starts, threads: int) -> list[BenchmarkRow]:
    seconds, notes = starts.seconds, ["the machine's file cache is warm; /readyz is asked every 20 ms"]
    top = {kind: _START.format(kind, threads) for kind in ("uvicorn", "bentoml")}
    beyond = _pairs(seconds["bentoml"], seconds[EMPTY])
    title = "start under BentoML − an empty BentoML service"
    return [
        _row("start under uvicorn", top["uvicorn"], "s", [Pair(s) for s in seconds["uvicorn"]], notes),
        _row(title, top["bentoml"], "s", beyond, notes, _EMPTY_SERVICE),
    ]


def _memory_rows(starts: _Starts) -> Sequence[BenchmarkRow | NotRun]:
    if not has_proc():
        return [NotRun(_NAME, f"memory under {kind}", NO_PROC_MEMORY) for kind in ("uvicorn", "BentoML")]
    top = "resident memory of all processes when /readyz is 200, under {}"
    alone = [Pair(mb) for mb in starts.resident("uvicorn")]
    beyond = _pairs(starts.resident("bentoml"), starts.resident(EMPTY))
    notes = {kind: starts.memory_notes(kind) for kind in ("uvicorn", "bentoml")}
    title = "memory under BentoML − an empty BentoML service"
    return [
        _row("memory under uvicorn", top.format("uvicorn"), "MB", alone, notes["uvicorn"]),
        _row(title, top.format("BentoML"), "MB", beyond, notes["bentoml"], _EMPTY_SERVICE),
    ]


def _server(setup: BenchmarkSetup, kind: str) -> AbstractContextManager[ServerProcess]:
    return empty_server() if kind == EMPTY else rootstock_server(kind, setup.export, setup.threads)


def _pairs(ours: list[float], empty: list[float]) -> list[Pair]:
    return [Pair(one, other) for one, other in zip(ours, empty, strict=True)]


def _row(
    title: str, top: str, unit: str, pairs: list[Pair], notes: list[str], bottom: str | None = None
) -> BenchmarkRow:
    return BenchmarkRow(
        benchmark=_NAME,
        title=title,
        top=top,
        bottom=bottom or "",
        unit=unit,
        pairs=pairs,
        target=targets.START_S if unit == "s" else targets.START_MB,
        measure=Measure.DIFFERENCE if bottom else Measure.TOP,
        at_most=True,
        notes=notes,
    )
