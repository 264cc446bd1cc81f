"""Load one real server in many ways, and tell the parts of its CPU time apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.loadtest.cluster.costs import PAUSE_S, ClusterCosts
from rootstock.loadtest.cluster.live_cluster import (
    REFERENCE_ROWS,
    TOKENS,
    AdapterHome,
    LiveCluster,
    ReferencePass,
    live_cluster,
)
from rootstock.loadtest.cluster.window import WindowFigures
from rootstock.loadtest.fixtures.setup import BenchmarkSetup

Matrix = np.ndarray[Any, np.dtype[np.float64]]

_LEVELS = (1, 2, 4, 8, 16, 32)
_SHARED_LEVELS = (8, 16, 32)
_RATES = (20, 40, 80, 120)
_LOAD_LEVELS = (4, 8, 16)
# Room for a quarter of the adapters, so that a third of the requests load one.
_SMALL_CACHE_MB = 4
# After so many answers each adapter has a slot.
_FILL, _QUICK_FILL = 1500, 100
_WARM = 100
_SERVERS = 3
_WINDOW_S, _QUICK_WINDOW_S = 4.0, 1.0


@dataclass(frozen=True)
class ServerCosts:
    """CPU milliseconds of the parts of a request in a loaded server.

    `request` is what a request costs beside its batch, `batch` what a batch costs beside its pass. `client` is
    the load generator's work, and `load` an adapter's load from the store. `pause` is what a pause of PAUSE_S
    adds to the next request. `turn` is no time: it is the share of a pass that it takes longer if another process
    has worked on its core.
    """

    request: float
    batch: float
    client: float
    load: float
    pause: float
    turn: float


@dataclass(frozen=True)
class LoadedWindow:
    """The figures of a server under a load.

    `pause` is the mean pause before a request, as a share of PAUSE_S. `shared` says that the figures are of two
    servers on one core.
    """

    figures: WindowFigures
    pause: float = 0.0
    shared: bool = False


def server_costs(windows: Sequence[LoadedWindow], known: ClusterCosts) -> ServerCosts:
    """Return the parts of a request in these windows, by least squares, from known passes and loads into slots.

    Many clients make large batches, requests at random times come after pauses, two servers on one core take
    turns, and a small cache makes loads. So the parts can be told apart. No part is below 0. They hold for
    the machine at the speed that it had for the known passes.
    """
    parts, left, clients = [], [], []
    for window in windows:
        seen = window.figures
        share = seen.batches_per_request
        speed = 1e3 * known.pass_of(REFERENCE_ROWS, TOKENS) / seen.pass_ms
        all_ms = speed * seen.cpu_ms
        clients.append(speed * seen.client_cpu_ms)
        pass_ms = 1e3 * share * known.pass_of(1 / share, TOKENS)
        slots_ms = 1e3 * known.slot * seen.slot_loads_per_request
        each = (1.0, share, seen.cold_per_request, window.pause, pass_ms if window.shared else 0.0)
        # As shares of all, so that each load counts alike.
        parts.append([part / all_ms for part in each])
        left.append(1 - (pass_ms + slots_ms) / all_ms)
    request, batch, load, pause, turn = least_squares(np.array(parts), np.array(left))
    client = min(request, *clients)
    return ServerCosts(request - client, batch, client, load, pause, turn)


def least_squares(columns: Matrix, right: Matrix) -> list[float]:
    """Return factors of the columns, without those that would be below 0."""
    kept = list(range(columns.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(columns[:, kept], right, rcond=None)
        if (found >= 0).all():
            break
        kept = [column for column, factor in zip(kept, found, strict=True) if factor > 0]
    factors = dict(zip(kept, found.tolist(), strict=True))
    return [factors.get(column, 0.0) for column in range(columns.shape[1])]


def server_windows(
    setup: BenchmarkSetup, home: AdapterHome, reference: ReferencePass
) -> tuple[list[LoadedWindow], list[float]]:
    """Load several servers, one after the other, because one differs from the next by some percent.

    Return the windows, and the latencies of one client ÷ their mean.
    """
    windows: list[LoadedWindow] = []
    spread: list[float] = []
    seconds = setup.length(_WINDOW_S, _QUICK_WINDOW_S)
    fill = setup.count(_FILL, _QUICK_FILL)

    def add(cluster: LiveCluster, clients: int = 0, rate: float = 0.0) -> None:
        seen = cluster.load("least-outstanding", _WARM, seconds, clients, rate)
        pause = _mean_pause(rate, seen.p50_ms / 1e3) if rate else 0.0
        windows.append(LoadedWindow(seen, pause, shared=len(cluster.servers) > 1))
        if clients == 1:
            spread.extend(seen.spread)

    for _ in range(setup.count(_SERVERS, 1)):
        with live_cluster(home, 1, {}, reference) as cluster:
            cluster.load("random", fill, seconds, clients=max(_LEVELS))
            setup.say(f"a server under {_listed(_LEVELS)} clients")
            for level in _LEVELS:
                add(cluster, clients=level)
            setup.say(f"a server under {_listed(_RATES)} requests a second")
            for rate in _RATES:
                add(cluster, rate=rate)
        with live_cluster(home, 2, {}, reference, sorted(os.sched_getaffinity(0))[:1]) as cluster:
            cluster.load("random", 2 * fill, seconds, clients=max(_LEVELS))
            setup.say(f"two servers on one core under {_listed(_SHARED_LEVELS)} clients")
            for level in _SHARED_LEVELS:
                add(cluster, clients=level)
        with live_cluster(home, 1, {"CACHE_MB": str(_SMALL_CACHE_MB)}, reference) as cluster:
            setup.say(f"a server under {_listed(_LOAD_LEVELS)} clients, with many loads of adapters")
            for level in _LOAD_LEVELS:
                add(cluster, clients=level)
    return windows, spread


def _listed(levels: Sequence[int]) -> str:
    return f"{', '.join(map(str, levels[:-1]))} and {levels[-1]}"


def _mean_pause(rate: float, latency: float) -> float:
    """Return the mean pause before a request, as a share of PAUSE_S and at most 1, if requests come at random."""
    # About this probability has a server without requests, and the pause is exponential then.
    return float(np.exp(-rate * latency) * (1 - np.exp(-rate * PAUSE_S)) / (rate * PAUSE_S))
