"""Compare the simulation with real replicas on this machine, under the same policies and the same traffic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rootstock.loadtest import targets
from rootstock.loadtest.cluster.costs import COSTS_FILE, ClusterCosts, read_costs
from rootstock.loadtest.cluster.live_cluster import (
    REFERENCE_ROWS,
    TOKENS,
    AdapterHome,
    ReferencePass,
    adapter_home,
    live_cluster,
)
from rootstock.loadtest.cluster.replica import ReplicaLimits
from rootstock.loadtest.cluster.simulation import (
    ClusterSimulation,
    PhaseFigures,
    SimulatedPhase,
    SimulationPlan,
)
from rootstock.loadtest.cluster.window import WindowFigures
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.interval import median_interval
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
_WINDOW_S, _QUICK_WINDOW_S = 20.0, 3.0
# Each has other traffic and new servers, whose caches are as empty as the simulated ones.
_WINDOWS, _QUICK_WINDOWS = 3, 1
# Rarer events than this say nothing about a rate.
_FEWEST_EVENTS = 100
_FIGURES = {
    "requests_s": "requests/s",
    "p99_ms": "p99",
    "cold_per_request": "cold loads per request",
    "slot_loads_per_request": "slot loads per request",
}


@dataclass(frozen=True)
class ComparedLoad:
    """Windows of one load on real replicas, and their simulations. Figures are medians over the windows."""

    replicas: int
    policy: str
    load: str
    measured: Sequence[WindowFigures]
    simulated: Sequence[PhaseFigures]

    def error(self, figure: str) -> float | None:
        """Return the simulation's error in percent; None for a rate of too few events."""
        measured = _median(self.measured, figure)
        events = measured * _median(self.measured, "answers")
        if figure.endswith("_per_request") and events < _FEWEST_EVENTS:
            return None
        return float(100 * abs(_median(self.simulated, figure) / measured - 1))

    def to_json(self) -> dict[str, Any]:
        """Return the figures of both sides, JSON-ready. `windows` has those of each window."""
        sides: dict[str, Any] = {"replicas": self.replicas, "policy": self.policy, "load": self.load}
        for figure in (*_FIGURES, "p50_ms", "batches_per_request", "cpu_ms"):
            sides[figure] = round(_median(self.measured, figure), 4)
            sides[f"simulated_{figure}"] = round(_median(self.simulated, figure), 4)
        sides["pass_ms"] = round(_median(self.measured, "pass_ms"), 4)
        sides["others_share"] = round(max(seen.others_share for seen in self.measured), 4)
        sides["windows"] = [
            {
                name: [round(getattr(side, figure), 4) for side in (measured, simulated)]
                for figure, name in _FIGURES.items()
            }
            for measured, simulated in zip(self.measured, self.simulated, strict=True)
        ]
        return sides


def _median(windows: Sequence[WindowFigures] | Sequence[PhaseFigures], figure: str) -> float:
    return median_interval([getattr(window, figure) for window in windows]).median


def cluster_validation(setup: BenchmarkSetup, costs: ClusterCosts | None = None) -> Outcome:
    """Measure real clusters and return the largest errors of their simulations.

    The last row is of the real replicas alone: loads into slots with affinity ÷ those of random routing.
    """
    costs = costs or read_costs(COSTS_FILE)
    reference = ReferencePass(setup.export)
    with adapter_home(setup, _ADAPTERS) as home:
        loads = [load for replicas in _REPLICAS for load in _compare(setup, costs, home, reference, replicas)]
    rows = [
        row
        for replicas in _REPLICAS
        for figure in _FIGURES
        if (row := _error_row(replicas, figure, loads)) is not None
    ]
    return Outcome([*rows, _affinity_row(loads)], [load.to_json() for load in loads])


def _compare(
    setup: BenchmarkSetup, costs: ClusterCosts, home: AdapterHome, reference: ReferencePass, replicas: int
) -> Iterator[ComparedLoad]:
    for policy in _CLOSED:
        load = _load(setup, costs, home, reference, replicas, policy, clients=_CLIENTS)
        yield load
        if policy == _OPEN:
            rate = round(_OPEN_SHARE * _median(load.measured, "requests_s"), 1)
            yield _load(setup, costs, home, reference, replicas, policy, rate=rate)


def _load(
    setup: BenchmarkSetup,
    costs: ClusterCosts,
    home: AdapterHome,
    reference: ReferencePass,
    replicas: int,
    policy: str,
    clients: int = 0,
    rate: float = 0.0,
) -> ComparedLoad:
    load = f"{clients} clients" if clients else f"{rate:g} requests/s"
    warm = replicas * setup.count(_WARM, _QUICK_WARM)
    seconds = setup.length(_WINDOW_S, _QUICK_WINDOW_S)
    measured, simulated = [], []
    for seed in range(setup.count(_WINDOWS, _QUICK_WINDOWS)):
        setup.say(f"{replicas} replicas, {policy}, {load}, window {seed + 1}")
        settings = {"SLOTS": str(_SLOTS), "CACHE_MB": str(_CACHE_MB)}
        with live_cluster(home, replicas, settings, reference) as cluster:
            measured.append(cluster.load(policy, warm, seconds, clients, rate, seed))
        costs_now = costs.at_speed(measured[-1].pass_ms / 1e3, REFERENCE_ROWS, TOKENS)
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
            seed=seed,
        )
        simulated += ClusterSimulation(plan, costs_now).run()
    return ComparedLoad(replicas, policy, load, measured, simulated)


def _error_row(replicas: int, figure: str, loads: Sequence[ComparedLoad]) -> BenchmarkRow | None:
    errors = {
        f"{load.policy}, {load.load}": error
        for load in loads
        if load.replicas == replicas and (error := load.error(figure)) is not None
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


def _affinity_row(loads: Sequence[ComparedLoad]) -> BenchmarkRow:
    of = {
        load.policy: _median(load.measured, "slot_loads_per_request")
        for load in loads
        if load.replicas == max(_REPLICAS) and load.load.endswith("clients")
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
