"""Load one real server in many ways, and tell the parts of its CPU time apart."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from rootstock.adapters.child_process import end_with_spawner
from rootstock.loadtest.cluster.costs import PAUSE_S, ClusterCosts
from rootstock.loadtest.cluster.live_cluster import TOKENS, AdapterHome, LiveCluster, live_cluster
from rootstock.loadtest.cluster.window import WindowFigures
from rootstock.loadtest.fixtures.runner_bench import open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.processes import pin

# The passes of the process that works beside the server.
BESIDE_ROWS = 8
_LEVELS = (1, 2, 4, 8, 16, 32)
_TURN_LEVELS = (2, 4, 8, 16)
_RATES = (20, 40, 80, 120)
_LOAD_LEVELS = (4, 8, 16)
# Room for a quarter of the adapters, so that a third of the requests load one.
_SMALL_CACHE_MB = 4
# After so many answers each adapter has a slot.
_FILL, _QUICK_FILL = 1500, 100
_WARM = 100
_READY_S = 120.0
_SERVERS = 3
_WINDOW_S, _QUICK_WINDOW_S = 4.0, 1.0


@dataclass(frozen=True)
class ServerCosts:
    """CPU milliseconds of the parts of a request in a loaded server.

    `request` is what a request costs beside its batch, `batch` what a batch costs beside its pass. `client` is
    the load generator's work, and `load` an adapter's load from the store. `pause` is what a request costs beside
    that after a pause of PAUSE_S, and `turn` what a batch costs beside that after another process on its core.
    """

    request: float
    batch: float
    client: float
    load: float
    pause: float
    turn: float


@dataclass(frozen=True)
class LoadedWindow:
    """The figures of one server under a load.

    `pause` is the mean pause before a request, as a share of PAUSE_S. `beside` says that another process worked
    on the server's core.
    """

    figures: WindowFigures
    pause: float = 0.0
    beside: bool = False


def server_costs(windows: Sequence[LoadedWindow], known: ClusterCosts) -> ServerCosts:
    """Return the parts of a request in these windows, by least squares, from known passes and loads into slots.

    Many clients make large batches, requests at random times come after pauses, another process on the server's
    core makes turns, and a small cache makes loads. So the parts can be told apart. No part is below 0.
    """
    parts, left = [], []
    for window in windows:
        seen = window.figures
        share = seen.batches_per_request
        known_s = share * known.pass_of(1 / share, TOKENS) + seen.slot_loads_per_request * known.slot
        each = (1.0, share, seen.cold_per_request, window.pause, share if window.beside else 0.0)
        # As shares of all, so that each load counts alike.
        parts.append([part / seen.cpu_ms for part in each])
        left.append(1 - 1e3 * known_s / seen.cpu_ms)
    found, *_ = np.linalg.lstsq(np.array(parts), np.array(left), rcond=None)
    request, batch, load, pause, turn = (max(0.0, float(one)) for one in found)
    client = min(request, *(window.figures.client_cpu_ms for window in windows))
    return ServerCosts(request - client, batch, client, load, pause, turn)


def server_windows(setup: BenchmarkSetup, home: AdapterHome) -> tuple[list[LoadedWindow], list[float]]:
    """Load several servers, one after the other, because one differs from the next by some percent.

    Return the windows, and the latencies of one client ÷ their mean.
    """
    windows: list[LoadedWindow] = []
    spread: list[float] = []
    seconds = setup.length(_WINDOW_S, _QUICK_WINDOW_S)

    def add(cluster: LiveCluster, clients: int = 0, rate: float = 0.0, beside: bool = False) -> None:
        seen = cluster.load("random", _WARM, seconds, clients, rate)
        pause = _mean_pause(rate, seen.p50_ms / 1e3) if rate else 0.0
        windows.append(LoadedWindow(seen, pause, beside))
        if clients == 1:
            spread.extend(seen.spread)

    for _ in range(setup.count(_SERVERS, 1)):
        with live_cluster(home, 1, {}) as cluster:
            cluster.load("random", setup.count(_FILL, _QUICK_FILL), seconds, clients=max(_LEVELS))
            setup.say(f"a server under {_listed(_LEVELS)} clients")
            for level in _LEVELS:
                add(cluster, clients=level)
            setup.say(f"a server under {_listed(_RATES)} requests a second")
            for rate in _RATES:
                add(cluster, rate=rate)
            setup.say(f"a server under {_listed(_TURN_LEVELS)} clients, beside another process on its core")
            with _passes_beside(setup.export, cluster.cores[0]):
                for level in _TURN_LEVELS:
                    add(cluster, clients=level, beside=True)
        with live_cluster(home, 1, {"CACHE_MB": str(_SMALL_CACHE_MB)}) as cluster:
            setup.say(f"a server under {_listed(_LOAD_LEVELS)} clients, with many loads of adapters")
            for level in _LOAD_LEVELS:
                add(cluster, clients=level)
    return windows, spread


def _listed(levels: Sequence[int]) -> str:
    return f"{', '.join(map(str, levels[:-1]))} and {levels[-1]}"


def _mean_pause(rate: float, latency: float) -> float:
    """Return the mean pause before a request, as a share of PAUSE_S and at most 1, if requests come at random."""
    # No request is under way with this probability, and the pause is exponential then.
    return float(np.exp(-rate * latency) * (1 - np.exp(-rate * PAUSE_S)) / (rate * PAUSE_S))


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
    batch = bench.batch(bench.encoded[:BESIDE_ROWS], range(1, BESIDE_ROWS + 1))
    bench.runner.run(batch)
    pin(os.getpid(), core)
    ready.set()
    while not stop.is_set():
        bench.runner.run(batch)
