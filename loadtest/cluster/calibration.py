"""Measure the costs of one replica on this machine: forward passes, loads, and the work of a request."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import Queue as ThreadQueue
from threading import Barrier
from typing import Any

import numpy as np

from rootstock.adapters.bundle import Limits
from rootstock.adapters.child_process import end_with_spawner
from rootstock.adapters.home.home import Home
from rootstock.loadtest.cluster.costs import BESIDE, PAUSE_S, ClusterCosts
from rootstock.loadtest.cluster.live_cluster import TOKENS, AdapterHome, LiveCluster, adapter_home, live_cluster
from rootstock.loadtest.cluster.wake_delay import wake_delays
from rootstock.loadtest.cluster.window import WindowFigures
from rootstock.loadtest.fixtures.registration import digests_of
from rootstock.loadtest.fixtures.runner_bench import open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.machine import cores
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.processes import pin
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair
from rootstock.service.engine.core.adapter_cache import memory_of
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.registry_catalog import RegistryCatalog

_ROW_SIZES = (1, 2, 4, 8, 16, 32)
_TOKEN_SIZES = (16, 32, 64)
_CPU_TIME = "CPU time of one core; `stages` has the forward pass by rows and tokens"
# The pass that is timed beside others of its kind.
_BESIDE_ROWS = 8
_BESIDE_S, _QUICK_BESIDE_S = 3.0, 0.3
_PASSES, _QUICK_PASSES = 11, 5
# All adapters of the load have a slot, so that none is loaded during it.
_ADAPTERS, _QUICK_ADAPTERS = 48, 8
_LEVELS = (1, 2, 4, 8, 16, 32)
_TURN_LEVELS = (2, 4, 8, 16)
_RATES = (10, 20, 40, 80)
_WARM = 100
_READY_S = 120.0
_SERVERS = 3
_WINDOW_S, _QUICK_WINDOW_S = 4.0, 1.0
_WAKING_S, _QUICK_WAKING_S = 10.0, 1.0


def cluster_costs(setup: BenchmarkSetup) -> Outcome:
    """Measure every cost that the simulation needs, in CPU time, on one thread of one core."""
    passes = _passes(setup)
    slowdown = _slowdown(setup)
    with adapter_home(setup, setup.count(_ADAPTERS, _QUICK_ADAPTERS)) as home:
        loads, slots, sizes = _loads(setup, home)
        request, batch, client, pause, turn = _requests(setup, home, passes)
    setup.say("threads that wake beside others")
    seconds = setup.length(_WAKING_S, _QUICK_WAKING_S)
    late = {beside: wake_delays(beside, request / 2e3, seconds) for beside in BESIDE}
    stages = [
        {"rows": rows, "tokens": tokens, "ms": round(1e3 * seconds, 4)}
        for (rows, tokens), seconds in passes.items()
    ]
    return Outcome(
        [
            _row("request", "a request beside its batch: HTTP, admission, reading and answer", "ms", [request]),
            _row("batch", "a batch beside its forward pass", "ms", [batch]),
            _row("client", "the load generator, for a request", "ms", [client]),
            _row("load", "an adapter from the store into memory", "ms", loads),
            _row("slot", "an adapter from memory into a slot", "ms", slots),
            _row("adapter", "memory of an adapter", "kB", sizes),
            _row("slowdown", "time of a pass while all cores run passes ÷ alone", "×", [slowdown]),
            _row("pause", f"a request after a pause of {PAUSE_S * 1e3:g} ms, beside all that", "ms", [pause]),
            _row("turn", "a batch after one of another process on its core, beside all that", "ms", [turn]),
            *(_late_row(beside, delays) for beside, delays in late.items()),
        ],
        stages,
    )


def _row(
    cost: str, title: str, unit: str, figures: Sequence[float], top: str = _CPU_TIME, **extra: Any
) -> BenchmarkRow:
    return BenchmarkRow(
        benchmark="cluster-costs",
        title=title,
        top=top,
        bottom="",
        unit=unit,
        pairs=[Pair(figure) for figure in figures],
        measure=Measure.TOP,
        extra={"cost": cost, **extra},
    )


def _late_row(beside: int, delays: Sequence[float]) -> BenchmarkRow:
    """Return a row with the mean. `sample` has the delays, of which the simulation draws."""
    title = f"a woken thread waits beside {beside} that compute on its core"
    mean, sample = 1e3 * float(np.mean(delays)), [round(1e3 * delay, 3) for delay in sorted(delays)]
    return _row(f"late-{beside}", title, "ms", [mean], "mean on the clock", sample=sample)


def _passes(setup: BenchmarkSetup) -> dict[tuple[int, int], float]:
    """Return the CPU seconds of a forward pass by rows and tokens. Each row has another adapter."""
    found = {}
    for tokens in _TOKEN_SIZES:
        setup.say(f"forward passes of {tokens} tokens a row")
        bench = open_bench(setup.export, tokens, 1)
        for rows in _ROW_SIZES:
            batch = bench.batch(bench.encoded[:rows], range(1, rows + 1))
            run = _timed(lambda bench=bench, batch=batch: bench.runner.run(batch))  # type: ignore[misc]
            found[rows, tokens] = median_interval(
                [run() for _ in range(setup.count(_PASSES, _QUICK_PASSES))]
            ).median
    return found


def _timed(work: Callable[[], Any]) -> Callable[[], float]:
    """Return a function that does the work and returns its CPU seconds. It has been done once."""
    work()

    def timed() -> float:
        begin = time.thread_time()
        work()
        return time.thread_time() - begin

    return timed


def _slowdown(setup: BenchmarkSetup) -> float:
    """Return the CPU time of a pass while every core runs such passes ÷ that of one alone."""
    setup.say("a pass on every core at once")
    seconds = setup.length(_BESIDE_S, _QUICK_BESIDE_S)
    alone = _on_cores(1, setup.export, seconds)
    return max(1.0, _on_cores(cores(), setup.export, seconds) / alone)


def _on_cores(count: int, export: Path, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=_pass_for, args=(export, seconds, barrier, results)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return median_interval(found).median


def _pass_for(export: Path, seconds: float, barrier: Barrier, results: ThreadQueue[float]) -> None:
    """Run passes for some seconds, at the same time as the other processes, and put their median."""
    bench = open_bench(export, TOKENS, 1)
    batch = bench.batch(bench.encoded[:_BESIDE_ROWS], range(1, _BESIDE_ROWS + 1))
    run = _timed(lambda: bench.runner.run(batch))
    barrier.wait(60)
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        found.append(run())
    results.put(median_interval(found).median)


@contextmanager
def _passes_beside(export: Path, core: int) -> Iterator[None]:
    """Let another process run passes on a core until the block ends."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_pass_on, args=(export, core, ready, stop))
    process.start()
    try:
        if not ready.wait(_READY_S):
            raise RuntimeError(f"a process that runs passes did not start within {_READY_S:g} s")
        yield
    finally:
        stop.set()
        process.join()


def _pass_on(export: Path, core: int, ready: Event, stop: Event) -> None:
    # A parent that is killed sets nothing.
    end_with_spawner()
    bench = open_bench(export, TOKENS, 1)
    batch = bench.batch(bench.encoded[:_BESIDE_ROWS], range(1, _BESIDE_ROWS + 1))
    bench.runner.run(batch)
    pin(os.getpid(), core)
    ready.set()
    while not stop.is_set():
        bench.runner.run(batch)


def _loads(setup: BenchmarkSetup, home: AdapterHome) -> tuple[list[float], list[float], list[float]]:
    """Return the CPU milliseconds of loads into memory and into slots, and the adapters' sizes in kB."""
    setup.say("loads of adapters")
    runner = OnnxRunner(setup.export, 4, 1)
    folder = Home(home.folder)
    loads, slots, sizes = [], [], []
    with closing(folder.open_registry()) as registry:
        catalog = RegistryCatalog(registry, folder.open_store(), runner.spec, Limits())
        for digest in digests_of(home.folder, home.names).values():
            begin = time.thread_time()
            adapter = catalog.load(digest)
            runner.warm(adapter)
            loaded = time.thread_time()
            runner.place(1, runner.stage(adapter))
            slots.append(1e3 * (time.thread_time() - loaded))
            loads.append(1e3 * (loaded - begin))
            sizes.append(memory_of(adapter) / 1e3)
    # The first one opens the graphs.
    return loads[1:], slots[1:], sizes[1:]


class _ServerLoads:
    """The CPU milliseconds of a server and its clients under several loads, for one request of each."""

    def __init__(self, known: ClusterCosts) -> None:
        self._known = known
        # For each load, as shares of all: the parts of a request, and the time beside its pass.
        self._parts: list[list[float]] = []
        self._left: list[float] = []
        self._clients: list[float] = []

    def add(self, setup: BenchmarkSetup, cluster: LiveCluster) -> None:
        """Load one server, alone and beside another process on its core."""
        window = setup.length(_WINDOW_S, _QUICK_WINDOW_S)
        for level, rate in (*((level, 0) for level in _LEVELS), *((0, rate) for rate in _RATES)):
            setup.say(f"a server under {level} clients" if level else f"a server under {rate} requests a second")
            seen = cluster.load("random", _WARM, window, clients=level, rate=rate)
            self._note(seen, _mean_pause(rate, seen.p50_ms / 1e3) if rate else 0.0, beside=False)
        with _passes_beside(setup.export, cluster.cores[0]):
            for level in _TURN_LEVELS:
                setup.say(f"a server under {level} clients, beside another process on its core")
                self._note(cluster.load("random", _WARM, window, clients=level), 0.0, beside=True)

    def _note(self, seen: WindowFigures, pause: float, beside: bool) -> None:
        share, all_ms = seen.batches_per_request, seen.server_cpu_ms + seen.client_cpu_ms
        # A request, a batch, a pause, a turn, and the seconds in which the server also works without requests.
        parts = (1.0, share, pause, share if beside else 0.0, 1 / seen.requests_s)
        self._parts.append([part / all_ms for part in parts])
        self._left.append(1 - 1e3 * share * self._known.pass_of(1 / share, TOKENS) / all_ms)
        self._clients.append(seen.client_cpu_ms)

    def split(self) -> tuple[float, float, float, float, float]:
        """Return the milliseconds of a request, a batch, the client, a pause and a turn (least squares)."""
        found, *_ = np.linalg.lstsq(np.array(self._parts), np.array(self._left), rcond=None)
        request, batch, pause, turn = (max(0.0, float(one)) for one in found[:4])
        client = min(request, *self._clients)
        return request - client, batch, client, pause, turn


def _requests(
    setup: BenchmarkSetup, home: AdapterHome, passes: dict[tuple[int, int], float]
) -> tuple[float, float, float, float, float]:
    """Return CPU milliseconds: of a request, of a batch beside its pass, of the client, of a pause and of a turn.

    The CPU time of a loaded server and its clients, less that of the passes, is that of the others. Many clients
    make large batches, requests at random times come after pauses, and another process on the server's core makes
    turns, which tells them apart. One server differs from the next by some percent, so several are loaded.
    """
    loads = _ServerLoads(ClusterCosts(passes))
    for _ in range(setup.count(_SERVERS, 1)):
        with live_cluster(home, 1, {}) as cluster:
            loads.add(setup, cluster)
    return loads.split()


def _mean_pause(rate: float, latency: float) -> float:
    """Return the mean pause before a request, as a share of PAUSE_S and at most 1, if requests come at random."""
    # No request is under way with this probability, and the pause is exponential then.
    return float(np.exp(-rate * latency) * (1 - np.exp(-rate * PAUSE_S)) / (rate * PAUSE_S))
