"""The simulation agrees with queueing theory, with the engine's own parts, and with itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simpy import Environment

from rootstock.loadtest.cluster.cores import SerialThread, SharedCores
from rootstock.loadtest.cluster.costs import ClusterCosts
from rootstock.loadtest.cluster.policy import POLICIES
from rootstock.loadtest.cluster.replica import ReplicaLimits
from rootstock.loadtest.cluster.simulation import ClusterSimulation, SimulatedPhase, SimulationPlan
from rootstock.loadtest.cluster.study import PolicyStudy, simulate_policies
from rootstock.loadtest.cluster.traffic import arrivals
from rootstock.service.engine.core.admission import Capacity
from rootstock.service.engine.encode.packing import BatchLimits

SERVICE_S = 0.01
COSTS = ClusterCosts(
    {(1, 16): 0.002, (32, 16): 0.03},
    batch=0.0003,
    request=0.0007,
    load=0.003,
    slot=0.0001,
    client=0.0003,
    slowdown=1.2,
    adapter_bytes=2**20,
)
PLAN = SimulationPlan(
    replicas=4,
    adapters=50,
    policy="random",
    phases=[SimulatedPhase("warm", 0.5), SimulatedPhase("faults", 0.6, kill_every=0.15, deploy=True)],
    rate=800,
    limits=ReplicaLimits(slots=12, cache_bytes=20 * 2**20),
    restart_s=0.1,
)


def test_batches_of_one_wait_as_an_m_d_1_queue_does() -> None:
    """Pollaczek and Khinchine: the mean time in the system is s + ρ s / (2 (1 − ρ))."""
    load = 0.7
    plan = SimulationPlan(
        replicas=1,
        adapters=1,
        policy="random",
        phases=[SimulatedPhase("warm", 5), SimulatedPhase("steady", 120)],
        rate=load / SERVICE_S,
        limits=ReplicaLimits(batches=BatchLimits(rows=1), timeout_s=1e9),
        cores=2,
    )
    simulation = ClusterSimulation(plan, ClusterCosts({(1, 16): SERVICE_S}))
    figures = simulation.run()[-1]
    assert figures.requests_s == pytest.approx(plan.rate, rel=0.03)
    expected = SERVICE_S + load * SERVICE_S / (2 * (1 - load))
    assert np.mean(simulation.latencies) == pytest.approx(expected, rel=0.06)


def test_threads_that_share_a_core_stay_as_long_as_in_an_m_m_1_queue_with_processor_sharing() -> None:
    """The mean time in the system is s / (1 − ρ), as in Kleinrock 1976."""
    environment = Environment()
    cores = SharedCores(environment, 1)
    work = np.random.default_rng(1).exponential(SERVICE_S, 15_000)
    gaps, spent = arrivals(0.7 / SERVICE_S, 2), []

    def begin(i: int) -> None:
        cores.work(work[i], lambda at: spent.append(environment.now - at), environment.now)
        if i + 1 < len(work):
            environment.timeout(next(gaps)).callbacks.append(lambda event: begin(i + 1))

    begin(0)
    environment.run()
    assert len(spent) == len(work)
    assert np.mean(spent) == pytest.approx(SERVICE_S / 0.3, rel=0.1)


def test_cores_slow_each_other_down_and_are_divided_equally() -> None:
    environment = Environment()
    cores, ends = SharedCores(environment, 2, slowdown=1.5), []
    for name in "abc":
        SerialThread(cores).do(1.0, lambda name: ends.append((name, environment.now)), name)
    environment.run()
    # Three threads share two cores, which both work at 1 / 1.5 of their speed.
    assert ends == [(name, pytest.approx(3 * 1.5 / 2)) for name in "abc"]


def test_a_woken_thread_waits_beside_others_and_a_thread_that_goes_on_does_not() -> None:
    environment = Environment()
    core = SharedCores(environment, 1, late=[(0.5,), (2.0,)])
    ended: dict[str, float] = {}

    def note(name: str) -> None:
        ended[name] = environment.now

    core.wake(1.0, note, "first")
    chain = SerialThread(core, threads=2)
    chain.do(0.25, note, "woken")
    chain.do(0.25, note, "goes on")
    environment.run()
    # Two threads wait 0.5 s each beside the first one, which ends meanwhile.
    assert ended == pytest.approx({"first": 1.0, "woken": 1.25, "goes on": 1.5})


def test_a_request_after_a_pause_and_a_batch_after_another_process_cost_more() -> None:
    costs = ClusterCosts({(1, 16): 0.01}, pause=0.004, turn=0.2)
    two = replace(
        PLAN, replicas=2, policy="round-robin", phases=[SimulatedPhase("steady", 900)], rate=0.2, one_machine=True
    )
    # Pauses are longer than PAUSE_S, and each of two replicas has its core.
    assert ClusterSimulation(two, costs).run()[0].cpu_ms == pytest.approx(14, rel=0.02)
    # On one core the batches of two replicas alternate.
    assert ClusterSimulation(replace(two, cores=1), costs).run()[0].cpu_ms == pytest.approx(16, rel=0.02)


def test_batches_whose_times_vary_cost_as_much_and_wait_longer() -> None:
    """Pollaczek and Khinchine: the mean wait is that of equal times, times 1 plus the squared variation."""
    plan = replace(
        PLAN,
        replicas=1,
        adapters=1,
        phases=[SimulatedPhase("warm", 5), SimulatedPhase("steady", 200)],
        rate=0.7 / SERVICE_S,
        limits=ReplicaLimits(batches=BatchLimits(rows=1), timeout_s=1e9),
    )
    costs = ClusterCosts({(1, 16): SERVICE_S}, spread=(0.5, 0.5, 2.0))
    simulation = ClusterSimulation(plan, costs)
    simulation.run()
    # The squared variation of (0.5, 0.5, 2) is 0.5.
    expected = SERVICE_S + 1.5 * 0.7 * SERVICE_S / (2 * (1 - 0.7))
    assert np.mean(simulation.latencies) == pytest.approx(expected, rel=0.08)


def test_equal_seeds_give_equal_figures_and_others_do_not() -> None:
    first, again = (ClusterSimulation(PLAN, COSTS).run() for _ in range(2))
    assert first == again
    assert ClusterSimulation(replace(PLAN, seed=1), COSTS).run() != first


@pytest.mark.parametrize("policy", POLICIES)
def test_each_request_is_answered_once_although_replicas_are_killed_and_replaced(policy: str) -> None:
    plan = replace(PLAN, policy=policy, clients=40, rate=0.0, limits=ReplicaLimits(store_s=0.01))
    simulation = ClusterSimulation(plan, COSTS)
    figures = simulation.run()[-1]
    assert figures.retried
    assert figures.refused == figures.failed == 0
    # Each client has one request under way.
    assert simulation.under_way == plan.clients


def test_a_replica_without_room_refuses_at_once() -> None:
    costs = replace(COSTS, request=0.0001, load=0.0, slot=0.0, slowdown=1.0)
    limits = ReplicaLimits(capacity=Capacity(items=8))
    plan = replace(PLAN, replicas=1, rate=2000, limits=limits, phases=[SimulatedPhase("flood", 0.5)])
    figures = ClusterSimulation(plan, costs).run()[-1]
    assert figures.refused > figures.answers / 4
    # A request waits at most for the batch that runs and for the next one.
    assert figures.p99_ms < 1e3 * (2 * costs.batch_of(8, 16) + 20 * costs.request)


def test_affinity_loads_each_adapter_once_where_random_routing_loads_it_in_each_replica() -> None:
    study = PolicyStudy(
        ("random", "rendezvous"), replicas=8, adapters=60, rate=400, clients=0, seconds=0.8, earlier=0,
        kill_every=10, restart_s=0.2,
    )  # fmt: skip
    outcome = simulate_policies(study, COSTS, lambda line: None)
    steady = {stage["policy"]: stage for stage in outcome.stages if stage["phase"] == "steady"}
    assert steady["random"]["cold_per_request"] > 4 * steady["rendezvous"]["cold_per_request"]
    (row,) = outcome.measured_rows
    assert row.interval.median < 0.25
