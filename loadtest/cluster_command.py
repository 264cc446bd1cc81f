"""The command `rootstock bench cluster`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.loadtest.command_line import fail, finish, measure_with, results_file, say
from rootstock.loadtest.fixtures.setup import BenchmarkSetup

if TYPE_CHECKING:
    from rootstock.loadtest.cluster.costs import ClusterCosts
    from rootstock.loadtest.cluster.study import PolicyStudy
    from rootstock.loadtest.measure.outcome import Outcome

CLUSTER_EXAMPLES = (
    "rootstock bench cluster",
    "rootstock bench cluster --replicas 20 --adapters 5000 --policies random,rendezvous --seconds 2",
    "rootstock bench cluster --measure",
    "rootstock bench cluster --validate --seconds 20",
)


def cluster(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the costs of one replica on this machine, and write them.")
    ] = False,
    validate: Annotated[
        bool,
        typer.Option("--validate", help="Compare the simulation with two and with four real replicas here."),
    ] = False,
    costs: Annotated[
        Path | None,
        typer.Option(help="The file with the costs. Default: loadtest/results/cluster/cluster-costs.json."),
    ] = None,
    policies: Annotated[str, typer.Option(help="The routing policies, separated by commas, or all.")] = "all",
    replicas: Annotated[int, typer.Option(min=1, max=1000, help="The number of simulated replicas.")] = 100,
    adapters: Annotated[int, typer.Option(min=1, help="The number of adapters.")] = 100_000,
    rate: Annotated[
        float | None,
        typer.Option(min=1, help="The requests a second. Default: 60 % of what all replicas could answer."),
    ] = None,
    clients: Annotated[
        int, typer.Option(min=0, help="The clients at the limit, a closed loop; 0 leaves that phase out.")
    ] = 3200,
    tokens: Annotated[int, typer.Option(min=1, max=512, help="The tokens of each input.")] = 32,
    slots: Annotated[int, typer.Option(min=3, help="The slots of a replica; two are reserved.")] = 256,
    cache_mb: Annotated[int, typer.Option(min=1, help="A replica's memory for adapters, in MiB.")] = 512,
    cores: Annotated[int, typer.Option(min=1, help="The cores of each replica's machine.")] = 2,
    store_ms: Annotated[
        float, typer.Option(min=0, help="The milliseconds until the store begins to answer.")
    ] = 10.0,
    kill_every: Annotated[
        float, typer.Option(min=0.01, help="The seconds between two killed replicas, in the phase with failures.")
    ] = 1.0,
    restart: Annotated[float, typer.Option(min=0.0, help="The seconds until a new replica is ready.")] = 2.0,
    surge: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="The share of replicas that a deploy replaces at a time.")
    ] = 0.25,
    earlier: Annotated[
        int, typer.Option(min=0, help="The requests that have filled the caches before the first phase.")
    ] = 2_000_000,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="The seconds of a phase. Default: 4; with --validate 30, with --measure 4."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of all random numbers.")] = 0,
    json: Annotated[
        Path | None,
        typer.Option(
            "--json", help="The file for the figures. Default: in loadtest/results/, with --quick none."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Take seconds, to check that the command works.")
    ] = False,
) -> None:
    """Simulate replicas behind a router, by routing policy.

    The simulation runs on the measured costs of one replica. Without --measure and --validate it compares the
    policies in four phases: a steady load, killed replicas, a deploy, and as many clients as the replicas can
    take.
    """
    from rootstock.loadtest.cluster.costs import COSTS_FILE, NoCosts, read_costs

    if measure and validate:
        fail("--measure and --validate are two runs; give one of them", 2)
    size: dict[str, Any] = {"quick": quick, "seconds": seconds}
    if measure:
        _measure_costs(size, json)
        return
    try:
        found = read_costs(costs or COSTS_FILE)
    except NoCosts as error:
        fail(str(error), 2)
    if validate:
        _validate(found, size, json)
        return
    from rootstock.loadtest.cluster.replica import ReplicaLimits
    from rootstock.loadtest.cluster.study import PolicyStudy

    limits = ReplicaLimits(slots, cache_mb * 2**20, store_s=store_ms / 1e3)
    shrink = 10 if quick else 1
    study = PolicyStudy(
        _policies(policies),
        max(1, replicas // shrink),
        max(1, adapters // shrink),
        tokens,
        cores,
        rate,
        clients // shrink,
        seconds or (0.5 if quick else 4.0),
        kill_every / (4 if quick else 1),
        restart / (4 if quick else 1),
        surge,
        earlier // (10 * shrink if quick else 1),
        seed,
        limits,
    )
    _simulate(study, found, quick, json)


def _measure_costs(size: dict[str, Any], json: Path | None) -> None:
    from rootstock.loadtest.cluster.calibration import cluster_costs

    outcome = measure_with(cluster_costs, {"threads": 1, **size})
    _finish("cluster-costs", size, outcome, results_file(json, "cluster/cluster-costs", size["quick"]))


def _validate(costs: ClusterCosts, size: dict[str, Any], json: Path | None) -> None:
    from rootstock.loadtest.cluster.validation import cluster_validation

    def compare(setup: BenchmarkSetup) -> Outcome:
        return cluster_validation(setup, costs)

    outcome = measure_with(compare, {"threads": 1, **size})
    _finish("cluster-validation", size, outcome, results_file(json, "cluster/cluster-validation", size["quick"]))


def _simulate(study: PolicyStudy, costs: ClusterCosts, quick: bool, json: Path | None) -> None:
    from rootstock.loadtest.cluster.study import simulate_policies

    cluster = {
        "replicas": study.replicas,
        "adapters": study.adapters,
        "tokens": study.tokens,
        "cores": study.cores,
        "slots": study.limits.slots,
        "cache_mb": study.limits.cache_bytes // 2**20,
        "store_ms": 1e3 * study.limits.store_s,
        "kill_every_s": study.kill_every,
        "restart_s": study.restart_s,
        "surge": study.surge,
        "earlier": study.earlier,
        "seed": study.seed,
    }
    outcome = simulate_policies(study, costs, say)
    parameters = {"quick": quick, "seconds": study.seconds, "simulated": cluster}
    _finish("cluster-policies", parameters, outcome, results_file(json, "cluster/cluster-policies", quick))


def _finish(name: str, parameters: dict[str, Any], outcome: Outcome, file: Path | None) -> None:
    from rootstock.loadtest.measure.machine import describe_machine
    from rootstock.loadtest.measure.outcome import BenchmarkRun

    finish(BenchmarkRun(describe_machine(), {"benchmarks": [name], **parameters}, outcome), file)


def _policies(text: str) -> tuple[str, ...]:
    from rootstock.loadtest.cluster.policy import POLICIES

    names = tuple(part.strip() for part in text.split(",")) if text != "all" else POLICIES
    if unknown := [name for name in names if name not in POLICIES]:
        fail(f"--policies: {unknown[0]!r} is unknown; choose from {', '.join(POLICIES)}", 2)
    return tuple(dict.fromkeys(names))
