"""Row 10: how long a server takes to be ready, and how much memory it then holds, under each server."""

from __future__ import annotations

from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from rootstock.adapters.client.client import Client
from rootstock.loadtest.fixtures.runner_bench import Say, open_bench
from rootstock.loadtest.fixtures.server import EMPTY, RunningServer, serving, serving_empty
from rootstock.loadtest.fixtures.workload import Workload
from rootstock.loadtest.measure.processes import Memory, has_proc, memory
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair

_KINDS = ("uvicorn", "bentoml", EMPTY)
_SECONDS = 3.0
_MB = 400.0
_TOKENS = 16


class _Starts:
    """What every start of each kind of server took, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.ready: dict[str, list[Memory]] = defaultdict(list)
        self.used: dict[str, list[Memory]] = defaultdict(list)

    def measure(self, export: Path, kind: str, threads: int, workload: Workload) -> None:
        """Start a server once, let it answer under an adapter, and stop it."""
        with _server(export, kind, threads) as served:
            self.seconds[kind].append(served.seconds)
            if not has_proc():
                return
            self.ready[kind].append(memory(served.pid))
            if kind != EMPTY:
                with Client(served.url) as client:
                    client.publish(workload.bundles[0], workload.names[0])
                    client.predict(workload.names[0], workload.sentences[0])
                self.used[kind].append(memory(served.pid))

    def memory_notes(self, kind: str) -> list[str]:
        """What else is known of a kind's memory."""
        ready, used = self.ready[kind], self.used[kind]
        return [
            f"{ready[0].processes} process(es); resident sets added up, a page that two share counts for both",
            f"proportional sets (PSS): {median(one.proportional for one in ready):.0f} MB",
            f"resident after an upload and an answer under it: {median(one.resident for one in used):.0f} MB",
        ]


def start_rows(export: Path, repeats: int, threads: int, say: Say) -> list[BenchmarkRow | NotRun]:
    """Row 10: seconds from the start of the process to /readyz 200, and MB of all processes at that moment."""
    workload = open_bench(export, _TOKENS, threads, adapters=1).workload
    starts = _Starts()
    for i in range(repeats):
        say(f"row 10: starts {i + 1} of {repeats}")
        for kind in _KINDS if i % 2 == 0 else reversed(_KINDS):
            starts.measure(export, kind, threads, workload)
    ours = (
        f"rootstock serve --server {{}}, {threads} threads, the export in the cache, no adapters: to /readyz 200"
    )
    empty = "bentoml serve of a service with one route, one worker, no metrics, in turns with ours"
    note = "the machine's file cache is warm; /readyz is asked every 20 ms"
    seconds = starts.seconds
    rows: list[BenchmarkRow | NotRun] = [
        _row("start under uvicorn", ours.format("uvicorn"), "s", [Pair(s) for s in seconds["uvicorn"]], [note]),
        _row(
            "start under BentoML − an empty BentoML service",
            ours.format("bentoml"),
            "s",
            _pairs(seconds["bentoml"], seconds[EMPTY]),
            [note],
            empty,
        ),
    ]
    if not has_proc():
        reason = "this system has no /proc to read the memory of processes from"
        return [*rows, *(NotRun("10", f"memory under {kind}", reason) for kind in ("uvicorn", "BentoML"))]
    resident = {kind: [one.resident for one in held] for kind, held in starts.ready.items()}
    return [
        *rows,
        _row(
            "memory under uvicorn",
            "resident memory of all processes when /readyz is 200, under uvicorn",
            "MB",
            [Pair(mb) for mb in resident["uvicorn"]],
            starts.memory_notes("uvicorn"),
        ),
        _row(
            "memory under BentoML − an empty BentoML service",
            "resident memory of all processes when /readyz is 200, under BentoML",
            "MB",
            _pairs(resident["bentoml"], resident[EMPTY]),
            starts.memory_notes("bentoml"),
            empty,
        ),
    ]


def _server(export: Path, kind: str, threads: int) -> AbstractContextManager[RunningServer]:
    return serving_empty() if kind == EMPTY else serving(kind, export, threads)


def _pairs(ours: list[float], empty: list[float]) -> list[Pair]:
    return [Pair(one, other) for one, other in zip(ours, empty, strict=True)]


def _row(
    title: str, top: str, unit: str, pairs: list[Pair], notes: list[str], bottom: str | None = None
) -> BenchmarkRow:
    return BenchmarkRow(
        label="10",
        title=title,
        top=top,
        bottom=bottom or "",
        unit=unit,
        pairs=pairs,
        target=_SECONDS if unit == "s" else _MB,
        measure=Measure.DIFFERENCE if bottom else Measure.TOP,
        at_most=True,
        notes=notes,
    )
