"""Compare the simulation with real replicas on this machine, under the same policies and the same traffic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rootstock.loadtest import targets
from rootstock.loadtest.cluster.costs import COSTS_FILE, ClusterCosts, read_costs
from rootstock.loadtest.cluster.live_cluster import TOKENS, AdapterHome, LiveCluster, adapter_home, live_cluster
from rootstock.loadtest.cluster.replica import ReplicaLimits
from rootstock.loadtest.cluster.simulation import (
    ClusterSimulation,
    PhaseFigures,
    SimulatedPhase,
    SimulationPlan,
)
from rootstock.loadtest.cluster.window import WindowFigures
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.machine import cores
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

_NAME = "cluster-validation"
_REPLICAS = (2, 4)
_CLOSED = ("random", "least-outstanding", "rendezvous-bounded")
_OPEN = "rendezvous-bounded"
# Of the rate of the closed loop.
_OPEN_SHARE = 0.6
_ADAPTERS = 200
_SLOTS = 64
# Room for half of the adapters, so that there are loads from the store too.
_CACHE_MB = 32
_CLIENTS = 32
# Answers before the window, for each replica: so many fill the caches, at whatever speed.
_WARM, _QUICK_WARM = 1000, 300
_WINDOW_S, _QUICK_WINDOW_S = 30.0, 3.0
# Rarer events than this say nothing about a rate.
_FEWEST_EVENTS = 100
_FIGURES = {
    "requests_s": "requests/s",
    "p99_ms": "p99",
    "cold_per_request": "cold loads per request",
    "slot_loads_per_request": "slot loads per request",
}


@dataclass(frozen=True)
class ComparedRun:
    """One load on real replicas and its simulation."""

    replicas: int
    policy: str
    load: str
    measured: WindowFigures
    simulated: PhaseFigures

    def error(self, figure: str) -> float | None:
        """Return the simulation's error in percent; None for a rate of too few events."""
        measured, simulated = getattr(self.measured, figure), getattr(self.simulated, figure)
        events = measured * self.measured.answers
        if figure.endswith("_per_request") and events < _FEWEST_EVENTS:
            return None
        return float(100 * abs(simulated / measured - 1))

    def to_json(self) -> dict[str, Any]:
        """Return the figures of both sides and the errors, JSON-ready."""
        sides: dict[str, Any] = {"replicas": self.replicas, "policy": self.policy, "load": self.load}
        for figure in ("requests_s", "p50_ms", "p99_ms", "cold_per_request", "slot_loads_per_request"):
            sides[figure] = round(getattr(self.measured, figure), 4)
            sides[f"simulated_{figure}"] = round(getattr(self.simulated, figure), 4)
        measured, simulated = self.measured, self.simulated
        sides["cpu_ms"] = round(measured.server_cpu_ms + measured.client_cpu_ms, 4)
        sides["simulated_cpu_ms"] = round(simulated.cpu_ms, 4)
        sides["others_share"] = round(measured.others_share, 4)
        return sides


def cluster_validation(setup: BenchmarkSetup, costs: ClusterCosts | None = None) -> Outcome:
    """Measure real clusters and return the largest errors of their simulations.

    The last row is of the real replicas alone: cold loads with affinity ÷ those of random routing.
    """
    costs = costs or read_costs(COSTS_FILE)
    with adapter_home(setup, _ADAPTERS) as home:
        runs = [run for replicas in _REPLICAS for run in _compare(setup, costs, home, replicas)]
    rows = [
        row
        for replicas in _REPLICAS
        for figure in _FIGURES
        if (row := _error_row(replicas, figure, runs)) is not None
    ]
    return Outcome([*rows, _affinity_row(runs)], [run.to_json() for run in runs])


def _compare(
    setup: BenchmarkSetup, costs: ClusterCosts, home: AdapterHome, replicas: int
) -> Iterator[ComparedRun]:
    settings = {"SLOTS": str(_SLOTS), "CACHE_MB": str(_CACHE_MB)}
    for policy in _CLOSED:
        # New servers, whose caches are as empty as the simulated ones.
        with live_cluster(home, replicas, settings) as cluster:
            run = _run(setup, costs, cluster, policy, clients=_CLIENTS)
        yield run
        if policy == _OPEN:
            with live_cluster(home, replicas, settings) as cluster:
                yield _run(setup, costs, cluster, policy, rate=round(_OPEN_SHARE * run.measured.requests_s, 1))


def _run(
    setup: BenchmarkSetup,
    costs: ClusterCosts,
    cluster: LiveCluster,
    policy: str,
    clients: int = 0,
    rate: float = 0.0,
) -> ComparedRun:
    replicas = len(cluster.servers)
    load = f"{clients} clients" if clients else f"{rate:g} requests/s"
    setup.say(f"{replicas} replicas, {policy}, {load}")
    warm = replicas * setup.count(_WARM, _QUICK_WARM)
    seconds = setup.length(_WINDOW_S, _QUICK_WINDOW_S)
    measured = cluster.load(policy, warm, seconds, clients, rate)
    plan = SimulationPlan(
        replicas,
        _ADAPTERS,
        policy,
        [SimulatedPhase("window", seconds)],
        clients,
        rate,
        TOKENS,
        ReplicaLimits(_SLOTS, _CACHE_MB * 2**20),
        cores(),
        one_machine=True,
        warm=warm,
    )
    return ComparedRun(replicas, policy, load, measured, ClusterSimulation(plan, costs).run()[0])


def _error_row(replicas: int, figure: str, runs: Sequence[ComparedRun]) -> BenchmarkRow | None:
    errors = {
        f"{run.policy}, {run.load}": error
        for run in runs
        if run.replicas == replicas and (error := run.error(figure)) is not None
    }
    if not errors:
        return None
    return BenchmarkRow(
        benchmark=_NAME,
        title=f"{replicas} replicas: {_FIGURES[figure]}, largest error of the simulation",
        top=f"{_ADAPTERS} adapters under Zipf traffic, {_SLOTS} slots and {_CACHE_MB} MiB a replica, all on this "
        "machine",
        bottom="",
        unit="%",
        pairs=[Pair(max(errors.values()))],
        target=targets.SIMULATION_ERROR,
        measure=Measure.TOP,
        at_most=True,
        notes=[f"{name}: {error:.1f} %" for name, error in errors.items()],
    )


def _affinity_row(runs: Sequence[ComparedRun]) -> BenchmarkRow:
    of = {
        run.policy: run.measured.slot_loads_per_request
        for run in runs
        if run.replicas == max(_REPLICAS) and run.load.endswith("clients")
    }
    return BenchmarkRow(
        benchmark=_NAME,
        title=f"{max(_REPLICAS)} replicas: slot loads per request, {_OPEN} ÷ random, measured",
        top=_OPEN,
        bottom="random",
        unit="loads per request",
        pairs=[Pair(of[_OPEN], of["random"])],
        target=targets.AFFINITY_LOADS,
        at_most=True,
    )
