"""Measure the costs of one replica on this machine: forward passes, loads, and the work of a request."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from queue import Queue as ThreadQueue
from threading import Barrier
from typing import Any

import numpy as np

from rootstock.adapters.bundle import Limits
from rootstock.adapters.home.home import Home
from rootstock.loadtest.cluster.costs import BESIDE, PAUSE_S, ClusterCosts
from rootstock.loadtest.cluster.live_cluster import AdapterHome, ReferencePass, adapter_home, pass_seconds
from rootstock.loadtest.cluster.server_loads import server_costs, server_windows
from rootstock.loadtest.cluster.wake_delay import wake_delays
from rootstock.loadtest.fixtures.registration import digests_of
from rootstock.loadtest.fixtures.runner_bench import open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.machine import cores
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair
from rootstock.service.engine.core.adapter_cache import memory_of
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.registry_catalog import RegistryCatalog

_ROW_SIZES = (1, 2, 4, 8, 16, 32)
_TOKEN_SIZES = (16, 32, 64)
_CPU_TIME = "CPU time of one core; `stages` has the forward pass by rows and tokens"
_BESIDE_S, _QUICK_BESIDE_S = 3.0, 0.3
_PASSES, _QUICK_PASSES = 11, 5
# All have a slot in a server's default settings.
_ADAPTERS, _QUICK_ADAPTERS = 48, 24
_WAKING_S, _QUICK_WAKING_S = 10.0, 1.0


def cluster_costs(setup: BenchmarkSetup) -> Outcome:
    """Measure every cost that the simulation needs, in CPU time, on one thread of one core."""
    passes = _passes(setup)
    slowdown = _slowdown(setup)
    with adapter_home(setup, setup.count(_ADAPTERS, _QUICK_ADAPTERS)) as home:
        slots, sizes = _slots(setup, home)
        windows, spread = server_windows(setup, home, ReferencePass(setup.export))
    parts = server_costs(windows, ClusterCosts(passes, slot=median_interval(slots).median / 1e3))
    setup.say("threads that wake beside others")
    seconds = setup.length(_WAKING_S, _QUICK_WAKING_S)
    late = {beside: wake_delays(beside, parts.request / 2e3, seconds) for beside in BESIDE}
    stages = [
        {"rows": rows, "tokens": tokens, "ms": round(1e3 * seconds, 4)}
        for (rows, tokens), seconds in passes.items()
    ]
    return Outcome(
        [
            _row(
                "request",
                "a request beside its batch: HTTP, admission, reading and answer",
                "ms",
                [parts.request],
            ),
            _row("batch", "a batch beside its forward pass", "ms", [parts.batch]),
            _row("client", "the load generator, for a request", "ms", [parts.client]),
            _row("load", "an adapter from the store into memory", "ms", [parts.load]),
            _row("slot", "an adapter from memory into a slot", "ms", slots),
            _row("adapter", "memory of an adapter", "kB", sizes),
            _row("slowdown", "time of a pass while all cores run passes ÷ alone", "×", [slowdown]),
            _row(
                "pause", f"a request after a pause of {PAUSE_S * 1e3:g} ms, beside all that", "ms", [parts.pause]
            ),
            _row("turn", "a batch after one of another process on its core ÷ another", "×", [1 + parts.turn]),
            _spread_row(spread),
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


def _spread_row(spread: Sequence[float]) -> BenchmarkRow:
    """Return a row with the 99th percentile. `sample` has percentiles, of which the simulation draws."""
    at = np.percentile(spread, np.arange(0.5, 100))
    title = "latency of one client at a time: its 99th percentile ÷ its mean"
    sample = [round(float(one), 4) for one in at]
    return _row("spread", title, "×", [float(np.percentile(spread, 99))], "on the clock", sample=sample)


def _passes(setup: BenchmarkSetup) -> dict[tuple[int, int], float]:
    """Return the CPU seconds of a forward pass by rows and tokens. Each row has another adapter."""
    found = {}
    for tokens in _TOKEN_SIZES:
        setup.say(f"forward passes of {tokens} tokens a row")
        bench = open_bench(setup.export, tokens, 1)
        for rows in _ROW_SIZES:
            batch = bench.batch(bench.encoded[:rows], range(1, rows + 1))
            # The first one takes longer.
            pass_seconds(bench.runner, batch)
            times = [pass_seconds(bench.runner, batch) for _ in range(setup.count(_PASSES, _QUICK_PASSES))]
            found[rows, tokens] = median_interval(times).median
    return found


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
    reference = ReferencePass(export)
    # The first one takes longer.
    reference.seconds()
    barrier.wait(60)
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        found.append(reference.seconds())
    results.put(median_interval(found).median)


def _slots(setup: BenchmarkSetup, home: AdapterHome) -> tuple[list[float], list[float]]:
    """Return the CPU milliseconds of loads into slots, and the adapters' sizes in kB."""
    setup.say("loads of adapters into slots")
    runner = OnnxRunner(setup.export, 4, 1)
    folder = Home(home.folder)
    slots, sizes = [], []
    with closing(folder.open_registry()) as registry:
        catalog = RegistryCatalog(registry, folder.open_store(), runner.spec, Limits())
        for digest in digests_of(home.folder, home.names).values():
            adapter = catalog.load(digest)
            runner.warm(adapter)
            begin = time.thread_time()
            runner.place(1, runner.stage(adapter))
            slots.append(1e3 * (time.thread_time() - begin))
            sizes.append(memory_of(adapter) / 1e3)
    # The first one opens the graphs.
    return slots[1:], sizes[1:]
