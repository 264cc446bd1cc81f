"""Compare the routing policies on a simulated cluster: steady, with failures, in a deploy, and at its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rootstock.loadtest.cluster.costs import COSTS_FILE, ClusterCosts, read_costs
from rootstock.loadtest.cluster.policy import POLICIES
from rootstock.loadtest.cluster.replica import ReplicaLimits
from rootstock.loadtest.cluster.simulation import (
    ClusterSimulation,
    PhaseFigures,
    SimulatedPhase,
    SimulationPlan,
)
from rootstock.loadtest.fixtures.setup import BenchmarkSetup, Say
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Pair

_NAME = "cluster-policies"
# Of what the cluster could answer if its load were spread evenly.
_LOAD = 0.6
_WARM_SHARE = 0.5
_BASELINE = "random"
_BATCH = 8


@dataclass(frozen=True)
class PolicyStudy:
    """A cluster on which policies are compared, and the seconds of each phase.

    `rate` is the requests a second; None takes 60 % of what all replicas together could answer. `clients` are the
    clients of the last phase, a closed loop; 0 leaves it out. `earlier` requests have filled the caches.
    """

    policies: Sequence[str] = POLICIES
    replicas: int = 100
    adapters: int = 100_000
    tokens: int = 32
    cores: int = 2
    rate: float | None = None
    clients: int = 3200
    seconds: float = 4.0
    kill_every: float = 1.0
    restart_s: float = 2.0
    surge: float = 0.25
    earlier: int = 2_000_000
    seed: int = 0
    limits: ReplicaLimits = field(default_factory=lambda: ReplicaLimits(store_s=0.01))


def cluster_policies(setup: BenchmarkSetup) -> Outcome:
    """Simulate the default study with the kept costs."""
    return simulate_policies(PolicyStudy(), read_costs(COSTS_FILE), setup.say)


def simulate_policies(study: PolicyStudy, costs: ClusterCosts, say: Say) -> Outcome:
    """Simulate each policy on the same traffic. Return the figures of each phase as stages."""
    rate = study.rate or default_rate(study, costs)
    found = {policy: _phases(study, costs, policy, rate, say) for policy in study.policies}
    stages = [_stage(policy, phase) for policy, phases in found.items() for phase in phases]
    notes = [
        "simulated: one router knows what is under way in each replica and sees at once that a replica has ended",
        f"{rate:,.0f} requests/s at random times, and {study.clients:,} clients at the limit",
    ]
    return Outcome(_cold_rows(found), stages, notes=notes)


def default_rate(study: PolicyStudy, costs: ClusterCosts) -> float:
    """Return 60 % of the requests a second that all replicas could answer, in batches of eight."""
    compute = costs.batch_of(_BATCH, study.tokens) / _BATCH
    slowest = max(compute, costs.request, (compute + costs.request) * costs.slowdown / study.cores)
    return round(_LOAD * study.replicas / slowest, -2) or 1.0


def _phases(study: PolicyStudy, costs: ClusterCosts, policy: str, rate: float, say: Say) -> list[PhaseFigures]:
    # The deploy takes a restart for each group of replicas, and then its last group warms up.
    deploy = study.restart_s / study.surge + study.seconds / 4
    plan = SimulationPlan(
        study.replicas,
        study.adapters,
        policy,
        [
            SimulatedPhase("warm", _WARM_SHARE * study.seconds),
            SimulatedPhase("steady", study.seconds),
            SimulatedPhase("failures", study.seconds, kill_every=study.kill_every),
            SimulatedPhase("deploy", deploy, deploy=True),
        ],
        rate=rate,
        tokens=study.tokens,
        limits=study.limits,
        cores=study.cores,
        restart_s=study.restart_s,
        surge=study.surge,
        earlier=study.earlier,
        seed=study.seed,
    )
    figures = ClusterSimulation(plan, costs).run(say)[1:]
    if study.clients:
        half = study.seconds / 2
        limit = [SimulatedPhase("warm", half), SimulatedPhase("limit", half)]
        closed = replace(plan, phases=limit, rate=0.0, clients=study.clients)
        figures.append(ClusterSimulation(closed, costs).run(say)[-1])
    return figures


def _stage(policy: str, phase: PhaseFigures) -> dict[str, Any]:
    return {
        "policy": policy,
        "phase": phase.name,
        "requests_s": round(phase.requests_s),
        "p50_ms": round(phase.p50_ms, 2),
        "p99_ms": round(phase.p99_ms, 2),
        "cold_per_request": round(phase.cold_per_request, 4),
        "slot_loads_per_request": round(phase.slot_loads_per_request, 4),
        "refused": phase.refused,
        "retried": phase.retried,
        "failed": phase.failed,
    }


def _cold_rows(found: dict[str, list[PhaseFigures]]) -> list[BenchmarkRow]:
    """Return the cold loads of each policy against those of random routing, in the steady phase."""
    if _BASELINE not in found:
        return []
    base = found[_BASELINE][0].cold_per_request
    return [
        BenchmarkRow(
            benchmark=_NAME,
            title=f"{policy} ÷ {_BASELINE}: cold loads per request, simulated",
            top=policy,
            bottom=_BASELINE,
            unit="loads per request",
            pairs=[Pair(phases[0].cold_per_request, base)],
        )
        for policy, phases in found.items()
        if policy != _BASELINE and base
    ]
